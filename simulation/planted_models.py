"""Bugs of models and their swaps, to be caught: see `simulation.planted`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from actors.residents import model as residence
from actors.residents.session import SessionPerformer
from actors.serving.balance import Balance
from actors.serving.replies import Replies
from actors.serving.router import Models
from flotilla.core.effects import Effects
from flotilla.core.errors import FlotillaError
from flotilla.core.generation import Prompt
from flotilla.core.policy import stepping
from flotilla.core.replies import Replies as Replying
from flotilla.core.swap_facts import Publish, SwapEnded
from flotilla.core.swap_steps import Steps
from flotilla.core.versions import Route, Version
from simulation.bugs import Bug, always, always_later, instead
from simulation.world import World


def other_version(_: World) -> AbstractContextManager[None]:
    """A reply that broke off goes on at the stable version, whoever has begun it."""

    def make(version_of: Any) -> Any:
        def broken(self: Models, prompt: Prompt) -> Version:
            version = version_of(self, prompt)
            route = self.catalogue.route(version.model)
            return (prompt.said and route and self.catalogue.version(route.stable)) or version

        return broken

    return instead(Models, "_version", make)


def unpublished(_: World) -> AbstractContextManager[None]:
    """The end of a swap is recorded, and nobody hears of it."""

    def make(change: Any) -> Any:
        def broken(self: Steps, *facts: Any, **words: Any) -> Effects:
            effects = change(self, *facts, **words)
            ended = any(isinstance(fact, SwapEnded) for fact in facts)
            return tuple(e for e in effects if not (ended and isinstance(e, Publish)))

        return broken

    return instead(Steps, "_change", make)


def unplaced_early(_: World) -> AbstractContextManager[None]:
    """A version goes at once, whoever it still answers."""

    return instead(residence, "empty", always_later(None))


def shadow_sent(_: World) -> AbstractContextManager[None]:
    """What was to be compared goes to the customer."""

    def make(begin: Any) -> Any:
        async def broken(self: Models, prompt: Prompt, version: Version, route: Route | None) -> Any:
            drawn = self.shadow.draws(route, version, prompt) and route
            candidate = self.catalogue.version(route.candidate) if drawn and route else None
            return await begin(self, prompt, candidate or version, route)

        return broken

    return instead(Models, "_begin", make)


def lost_promotion(_: World) -> AbstractContextManager[None]:
    """That a version was promoted is known to the host where it was, and to no other after a crash."""

    def make(woken: Any) -> Any:
        async def broken(self: residence.ModelPerformer, at: Any) -> Any:
            swap = at.actor.swap
            if swap is not None and swap.promoted:
                at.actor.stable = swap.from_
            return await woken(self, at)

        return broken

    return instead(residence.ModelPerformer, "woken", make)


def tool_loop(_: World) -> AbstractContextManager[None]:
    """Each generation of a task is answered by whoever is routed to just then."""

    def make(_: Any) -> Any:
        def broken(task: Any, wanted: str) -> str:
            return wanted

        return broken

    return instead(stepping, "_kept", make)


def unheld(_: World) -> AbstractContextManager[None]:
    """A version goes though a task is to go on with it behind its tool."""

    return instead(Models, "hold", always(None))


def stale_blamed(_: World) -> AbstractContextManager[None]:
    """Who is asked for what it serves no longer has failed, and so has the version: nobody believes what it says
    it serves instead."""

    def strict(_: Any) -> Any:
        def broken(self: Replies, error: FlotillaError, *_: Any) -> bool:
            return error.status >= 500

        return broken

    @contextmanager
    def both() -> Generator[None]:
        with instead(Balance, "serves", always(None)), instead(Replies, "_is_its_own", strict):
            yield

    return both()


def unclaimed(_: World) -> AbstractContextManager[None]:
    """Who begins a reply instead of who was chosen has made sure of nothing: a host that the session has left may
    show the other one's after all."""

    return instead(SessionPerformer, "_unshown", always_later(None))


def unnamed(_: World) -> AbstractContextManager[None]:
    """Nobody records that another version begins than was chosen."""

    return instead(Replying, "_begun_by", always(()))


MODEL_BUGS: dict[str, Bug] = {
    "other-version": Bug(other_version, frozenset({"mixed"}), models=True, first=1),
    "unpublished": Bug(unpublished, frozenset({"stuck"}), models=True, first=5),
    "unplaced-early": Bug(unplaced_early, frozenset({"unplaced"}), models=True, first=95),
    "shadow-sent": Bug(shadow_sent, frozenset({"unasked"}), models=True),
    "lost-promotion": Bug(lost_promotion, frozenset({"stable"}), models=True),
    "tool-loop": Bug(tool_loop, frozenset({"changed"}), models=True),
    "unheld": Bug(unheld, frozenset({"changed"}), models=True, first=261),
    "unclaimed": Bug(unclaimed, frozenset({"mixed", "contradicted", "overlap"}), models=True, first=199),
    "unnamed": Bug(unnamed, frozenset({"mixed"}), models=True, first=24),
    "stale-blamed": Bug(stale_blamed, frozenset({"blamed"}), models=True, first=16),
}
