"""What the activations of a host share: the doors of the runtime, and the kinds that live here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from actors.fleet import Fleet
from actors.performer import Performer
from actors.timing import Timing
from flotilla.core.actor import Actor, Kind
from flotilla.core.clock import Clock
from flotilla.core.errors import UnknownKind
from flotilla.core.ledger import Codec
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.ports import Journal, Letters
from flotilla.core.tracing import Tracer


class Resident:
    """A kind at home: its class, how its facts become bytes, and how its effects are performed."""

    def __init__(self, actor: type[Actor], performer: Performer | None = None) -> None:
        self.codec = Codec(actor)
        self.performer = performer or Performer()
        self.counts: Counter[str] = Counter()
        self.timing = Timing()

    @property
    def kind(self) -> Kind:
        return self.codec.kind

    def __repr__(self) -> str:
        return f"<Resident {self.kind.name}: {dict(self.counts)}>"


class Kinds:
    def __init__(self, residents: Iterable[Resident]) -> None:
        self._by_name = {resident.kind.name: resident for resident in residents}

    def __iter__(self):
        return iter(self._by_name.values())

    def of(self, name: str) -> Resident:
        """Raises `UnknownKind`."""
        if resident := self._by_name.get(name):
            return resident
        raise UnknownKind(
            f"There is no kind {name!r} here.",
            field="kind",
            next=f"Known: {', '.join(sorted(self._by_name))}. FLOTILLA_KINDS names modules with more.",
        )


class Runtime(msgspec.Struct, kw_only=True):
    journal: Journal
    letters: Letters
    kinds: Kinds
    fleet: Fleet
    clock: Clock
    log: Any
    limits: Limits = LIMITS
    tracer: Tracer | None = None
    random: random.Random = msgspec.field(default_factory=random.Random)
