"""A kind of actor: a plain class whose fields are its state.

    class Added(Fact, tag="added"):
        n: int

    class Add(Message[int], tag="add"):
        n: int

    class Counter(Actor):
        kind: ClassVar[Kind] = Kind(name="counter", messages=Add, facts=Added)
        total: int = 0

        def apply(self, fact: Added) -> None:
            self.total += fact.n

        def on(self, signal: Add) -> Effects:
            return self.record(Added(n=signal.n)), Answer(value=self.total)

`apply` folds a fact of the journal into the state; `on` decides. Neither waits, reads a clock or
touches a socket, so a kind is tested by calling it. The runtime does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from flotilla.core.effects import Effects, Record
from flotilla.core.ids import ActorId
from flotilla.core.policy import schedule
from flotilla.core.reminders import Forget, Remind

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a fact's JSON of one version into that of the next."""


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Something that was decided and is in the journal for good."""


class KindLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one actor of a kind may hold and take."""

    mailbox_messages_max: int = 256
    message_bytes_max: int = 256 * 1024
    tries_max: int = 3  # of a message that breaks its actor
    idle_after_s: float = 300.0  # then it is passivated
    snapshot_every: int = 256  # entries; 0 for never


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What each actor of a dedicated kind gets for itself, as a Ray actor of its own."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: int = 0


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime must know of a kind. `messages` and `facts` are unions of tagged structs.

    `upcasters` maps (tag, version) to the step up from that version.
    """

    name: str
    messages: Any
    facts: Any
    version: int = 1
    upcasters: Mapping[tuple[str, int], Upcaster] = {}
    limits: KindLimits = KindLimits()
    dedicated: Resources | None = None


class Actor(msgspec.Struct, kw_only=True):
    """One actor's state. Fields with defaults, so that a new one is made of its id alone."""

    kind: ClassVar[Kind]

    id: ActorId
    seq: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether there is work to go on with, should the host die now."""
        return False

    @property
    def person(self) -> str:
        """Whose key seals what is recorded; "" for a key of the actor's own."""
        return ""

    def apply(self, fact: Any) -> None:
        raise NotImplementedError

    def on(self, signal: Any) -> Effects:
        """What must be done about `signal`, in order. Raises a `FlotillaError`, before anything has
        changed, to refuse it."""
        raise NotImplementedError

    def fold(self, fact: Any) -> None:
        """The next fact of the journal."""
        self.seq += 1
        self.apply(fact)

    def record(self, *facts: Any, remind: tuple[Remind | Forget, ...] = ()) -> Record:
        """Applies the facts, and has them appended. Raises `Refused` for a reminder that can't be."""
        for change in remind:
            if isinstance(change, Remind):
                schedule.check(change)
        for fact in facts:
            self.fold(fact)
        return Record(facts=facts, unfinished=self.unfinished, remind=remind)
