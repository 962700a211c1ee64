"""Facts in and out of the journal: encoded, versioned, and brought up to date when they are old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from flotilla.core.actor import Actor, Kind
from flotilla.core.errors import Undecodable
from flotilla.core.ids import ActorId
from flotilla.core.journal import Entry, Snapshot, Stored

_encode = msgspec.json.Encoder().encode


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A fact in the journal: `seq` counts from 1 without gaps."""

    seq: int
    at: datetime
    fact: Any


class Codec:
    """The facts, messages and snapshots of one kind, as bytes."""

    def __init__(self, actor: type[Actor]) -> None:
        self.actor = actor
        self.kind: Kind = actor.kind
        self._fact = msgspec.json.Decoder(self.kind.facts).decode
        self.message = msgspec.msgpack.Decoder(self.kind.messages).decode
        self._snapshot = msgspec.json.Decoder(actor).decode

    def entry(self, fact: Any) -> Entry:
        return Entry(fact.__struct_config__.tag, self.kind.version, _encode(fact))

    def recorded(self, stored: Stored) -> Recorded:
        """Raises `Undecodable` with the actor's next move."""
        try:
            return Recorded(seq=stored.seq, at=stored.at, fact=self._decode(stored.entry))
        except Exception as error:  # also what breaks in an upcaster
            raise Undecodable(
                f"Entry {stored.seq} ({stored.entry.type}, version {stored.entry.version}) of a "
                f"{self.kind.name} can't be read: {error}.",
                next=f"Add an upcaster to the kind {self.kind.name!r}, or run the release that wrote it.",
            ) from error

    def _decode(self, entry: Entry) -> Any:
        if entry.version == self.kind.version:
            return self._fact(entry.body)
        if entry.version > self.kind.version:
            raise ValueError(f"this release knows version {self.kind.version}")
        body: dict[str, Any] = msgspec.json.decode(entry.body)
        for version in range(entry.version, self.kind.version):
            if upcast := self.kind.upcasters.get((str(body["type"]), version)):
                body = upcast(body)
        return self._fact(_encode(body))

    def snapshot(self, actor: Actor) -> Snapshot:
        return Snapshot(actor.seq, self.kind.version, _encode(actor))

    def wake(self, id: ActorId, snapshot: Snapshot | None, entries: Sequence[Stored]) -> Actor:
        """The actor that its record tells of. A snapshot of another version is not used: the journal
        must then be folded from its beginning (raises `Stale`)."""
        actor = self._restored(id, snapshot)
        for stored in entries:
            actor.fold(self.recorded(stored).fact)
        return actor

    def _restored(self, id: ActorId, snapshot: Snapshot | None) -> Actor:
        if snapshot is None:
            return self.actor(id=id)
        if snapshot.version != self.kind.version:
            raise Stale
        try:
            return self._snapshot(snapshot.body)
        except msgspec.MsgspecError:
            raise Stale from None


class Stale(Exception):
    """The snapshot was written by another version of the kind."""
