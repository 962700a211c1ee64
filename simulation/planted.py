"""Bugs to be caught: each breaks one promise in the code under test, for the time of a run.

python -m simulation --planted lost-ack --schedules 100
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from actors.activation import Activation
from actors.follower import Remote
from actors.place import Place
from flotilla.core import signals
from flotilla.core.effects import Answer, Effects
from flotilla.core.ids import new_id
from flotilla.core.journal import Append
from flotilla.core.replies import Replies
from flotilla.core.session import Session
from flotilla.stores.memory import MemoryHotLog, MemoryJournal
from flotilla.views.events import Frame
from simulation.bugs import Bug, always, instead
from simulation.kinds import Paying
from simulation.planted_choices import CHOICE_BUGS
from simulation.planted_models import MODEL_BUGS
from simulation.world import World

RARELY = 0.05


def lost_ack(_: World) -> AbstractContextManager[None]:
    """Answers before it records."""

    def make(perform: Any) -> Any:
        def broken(self: Activation, effects: Effects, envelope: Any) -> None:
            perform(self, sorted(effects, key=lambda effect: not isinstance(effect, Answer)), envelope)

        return broken

    return instead(Activation, "_perform", make)


def double_effect(_: World) -> AbstractContextManager[None]:
    """A fresh idempotency key for each try."""

    def make(_: Any) -> Any:
        def broken(self: Paying, at: Any, effect: Any) -> str:
            return new_id("k")

        return broken

    return instead(Paying, "key", make)


def split_brain(world: World) -> AbstractContextManager[None]:
    """A journal without the fence: whoever writes is believed to know the last entry."""

    def make(append: Any) -> Any:
        async def broken(self: MemoryJournal, wanted: Append) -> None:
            known = len(await self.read(wanted.actor))
            await append(self, msgspec.structs.replace(wanted, expected=known))

        return broken

    return instead(MemoryJournal, "append", make)


def gap(world: World) -> AbstractContextManager[None]:
    """A gateway loses a delta now and then."""

    def make(take: Any) -> Any:
        def broken(self: Place, frame: Frame) -> list[Frame]:
            out = take(self, frame)
            return [] if frame.offset is not None and world.loop.chance.random() < RARELY else out

        return broken

    return instead(Place, "take", make)


def text_after_takeover(_: World) -> AbstractContextManager[None]:
    """Nobody stops the agent, and what it still says is shown."""

    def make(on_work: Any) -> Any:
        def broken(self: Session, signal: Any) -> Effects:
            if self.taken_by and isinstance(signal, signals.Streamed):
                return (signals.Say(turn=signal.turn, seq=self.seq, offset=0, text=signal.text),)
            return on_work(self, signal)

        return broken

    @contextmanager
    def both() -> Generator[None]:
        with instead(Replies, "_silence", always(())), instead(Replies, "_on_work", make):
            yield

    return both()


def reordered(world: World) -> AbstractContextManager[None]:
    """A follower whose frames are overtaken by the next one now and then."""
    passed: dict[Remote, bytes] = {}

    def make(put: Any) -> Any:
        def broken(self: Remote, frame: bytes) -> None:
            if self not in passed and world.loop.chance.random() < RARELY:
                passed[self] = frame
                return
            put(self, frame)
            if (late := passed.pop(self, None)) is not None:
                put(self, late)

        return broken

    return instead(Remote, "put", make)


def doubled_message(_: World) -> AbstractContextManager[None]:
    """A session that forgets which messages it has seen."""

    def make(on_post: Any) -> Any:
        def broken(self: Session, post: signals.Post) -> Effects:
            self.seen.pop(post.id, None)
            return on_post(self, post)

        return broken

    return instead(Session, "_on_post", make)


def unfenced_text(_: World) -> AbstractContextManager[None]:
    """A hot log that takes text from anybody, whatever stands there."""

    def make(_: Any) -> Any:
        async def broken(self: MemoryHotLog, actor: Any, turn: str, said: int, text: str) -> None:
            texts: Any = self._texts  # type: ignore[reportPrivateUsage]
            texts[actor, turn] = texts.get((actor, turn), b"") + text.encode()

        return broken

    return instead(MemoryHotLog, "append", make)


BUGS: dict[str, Bug] = {
    "lost-ack": Bug(lost_ack, frozenset({"lost"}), first=32),
    "double-effect": Bug(double_effect, frozenset({"effect"}), first=11),
    "split-brain": Bug(split_brain, frozenset({"lost", "doubled", "unrecorded", "overlap"}), first=10),
    "gap": Bug(gap, frozenset({"gap"})),
    "text-after-takeover": Bug(text_after_takeover, frozenset({"silence"}), first=81),
    "reordered": Bug(reordered, frozenset({"gap", "doubled", "overlap"})),
    "doubled-message": Bug(doubled_message, frozenset({"doubled"})),
    "unfenced-text": Bug(unfenced_text, frozenset({"contradicted", "overlap"}), first=31),
    **MODEL_BUGS,
    **CHOICE_BUGS,
}
# Within so many seeds each of them is caught.
SEEDS_MAX = 400
