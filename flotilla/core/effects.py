"""What an actor hears and what it wants done: the two vocabularies that every kind shares.

A signal is something that happened. `actor.on(signal)` answers with effects, in the order in which
they must be performed. A kind adds messages, steps and works of its own; these are the runtime's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec

from flotilla.core.errors import Problem
from flotilla.core.ids import ActorId
from flotilla.core.reminders import Forget, Remind, Repeat

A = TypeVar("A")


# -- signals


class Signal(msgspec.Struct, frozen=True, kw_only=True, tag_field="signal"):
    """Something that happened. Control goes before everything that waits. What is `sheddable` begins new
    work, and may be refused with `Overloaded` while too much waits already; nothing else ever is."""

    control: ClassVar[bool] = False
    sheddable: ClassVar[bool] = False

    def joined(self, later: Signal) -> Self | None:
        """This signal and the one right behind it as one, if they can be; a slow actor then has fewer."""
        return None


class Message(Signal, Generic[A], frozen=True):
    """A signal from outside, answered with an `A` or refused with an error.

    An idempotent one carries an id that its actor knows it by, so it is sent again when the outcome of
    the first try is unknown; any other is then refused with `Unavailable`.
    """

    idempotent: ClassVar[bool] = False


class Woken(Signal, frozen=True, tag="flotilla.woken"):
    """The activation has just been folded from its journal, and there was work to go on with. `said` is
    what has already been shown of the text that was under way; `sealed`, that nothing can be shown
    behind it any more: its host died when it was about to record that it ends there; `model`, the version that has
    claimed to begin it, if that is not the one that was chosen. It comes before all
    that waits: a stop that overtook it would not know what has been shown."""

    control = True
    said: str = ""
    sealed: bool = False
    model: str = ""


class Answered(Signal, frozen=True, tag="flotilla.answered"):
    """Another actor's answer to `Ask(key=…)`: a value, or the problem that it was refused with."""

    key: str
    value: Any = None
    problem: Problem | None = None


class Due(Signal, frozen=True, tag="flotilla.due"):
    """The reminder `name` is due since `at`. Facts recorded in answer to it go into the journal in one
    transaction with its removal: they are there exactly once for each due time."""

    name: str
    at: datetime
    repeat: Repeat | None = None
    all_missed: bool = True


class Abandoned(Signal, frozen=True, tag="flotilla.abandoned"):
    """Nobody waits any more for what was promised with `Wait(key=…)`."""

    control = True
    key: str


# -- effects


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Record(Effect, frozen=True):
    """Append to the journal. Every effect listed after it depends on it. `remind` goes into the same
    transaction. `unfinished`: whether there is work to go on with, should the host die right after it."""

    facts: tuple[Any, ...]
    unfinished: bool = False
    remind: tuple[Remind | Forget, ...] = ()


class Answer(Effect, frozen=True):
    """Answer whoever sent the signal or, with a key, all who `Wait` under it."""

    value: Any
    key: str = ""


class Refuse(Effect, frozen=True):
    """Refuse those who wait under `key`. (The sender of the signal itself is refused by raising.)"""

    problem: Problem
    key: str


class Part(Effect, frozen=True):
    """A part of a streamed answer, for those who `Wait` under `key`; `Answer` ends the stream."""

    value: Any
    key: str


class Wait(Effect, frozen=True):
    """Whoever sent the signal is answered later, under this key."""

    key: str


class Ask(Effect, frozen=True):
    """Ask another actor; what it says comes back as `Answered(key)`. Sent again after a crash only if
    the actor, when `Woken`, asks again: so give `message` an id that the other knows it by."""

    key: str
    to: ActorId
    message: Message[Any]
    timeout_s: float = 60.0


class Tell(Effect, frozen=True):
    """Send a message to another actor without waiting for its answer: at most once."""

    to: ActorId
    message: Message[Any]


class Stop(Effect, frozen=True):
    """Cancel the work or the ask that runs under `key`, here and where it is done."""

    key: str


class Step(Effect, frozen=True):
    """A kind's own effect that is performed in its place in the order (`Performer.step`)."""


class Work(Effect, frozen=True):
    """A kind's own effect that runs beside the loop and comes back as signals (`Performer.work`).

    One that is `early` changes nothing outside and may be done for nothing: it is started while the facts in
    front of it are still being written. What it has to say is heard behind them all the same.
    """

    early: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """What `Stop` calls it by."""
        raise NotImplementedError


Effects = tuple[Effect, ...]
