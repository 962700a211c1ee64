"""Bugs of adapters and canaries, of who is to answer whom, to be caught: see `simulation.planted`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from itertools import count
from typing import Any

import msgspec

from actors.serving import catalogue
from actors.serving.attempts import Asker
from actors.serving.replica import Replica
from flotilla.core.errors import Unavailable
from flotilla.core.generation import Generated, Piece, Prompt
from flotilla.core.policy import canary
from simulation.bugs import Bug, instead
from simulation.world import World

TOO_MANY = 4.0


def without_adapter(_: World) -> AbstractContextManager[None]:
    """A replica that had to let an adapter go makes the reply without it, and says that it did with."""

    def make(generate: Any) -> Any:
        async def broken(self: Replica, prompt: Prompt) -> AsyncGenerator[Generated]:
            asked = prompt.adapter
            if missing := bool(asked) and not self.weights.has(asked):
                prompt = msgspec.structs.replace(prompt, adapter="", model=self.version.id)
            async with aclosing(generate(self, prompt)) as parts:
                async for part in parts:
                    first = missing and (not isinstance(part, Piece) or part.model)
                    yield msgspec.structs.replace(part, model=asked) if first else part

        return broken

    return instead(Replica, "generate", make)


def base_instead(_: World) -> AbstractContextManager[None]:
    """No adapter is ever loaded, so that the base answers whoever asked for one."""

    def make(_: Any) -> Any:
        async def broken(*_: Any) -> None:
            raise Unavailable("It is not loaded.")

        return broken

    return instead(Asker, "_load", make)


def drawn_again(_: World) -> AbstractContextManager[None]:
    """Each turn of a conversation is drawn anew."""
    turns = count()

    def make(version_for: Any) -> Any:
        def broken(route: Any, versions: Any, origin: Any) -> str:
            again = msgspec.structs.replace(origin, conversation=f"{origin.conversation} {next(turns)}")
            return version_for(route, versions, again)

        return broken

    return instead(catalogue, "version_for", make)


def too_many(_: World) -> AbstractContextManager[None]:
    """A canary has many more of the conversations than it was given."""

    def make(place: Any) -> Any:
        def broken(origin: Any, salt: str) -> float:
            return place(origin, salt) / TOO_MANY

        return broken

    return instead(canary, "place", make)


CHOICE_BUGS: dict[str, Bug] = {
    "without-adapter": Bug(without_adapter, frozenset({"mixed"}), models=True),
    "base-instead": Bug(base_instead, frozenset({"instead"}), models=True),
    "drawn-again": Bug(drawn_again, frozenset({"kept"}), models=True, first=11),
    "too-many": Bug(too_many, frozenset({"share"}), models=True, first=109),
}
