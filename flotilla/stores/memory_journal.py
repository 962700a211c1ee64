"""The record without a disk: it keeps the promises of PostgreSQL's for as long as its process lives."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import merge
from itertools import count, islice
from typing import TypeVar

import msgspec

from flotilla.core.errors import Conflict, Erased
from flotilla.core.ids import ActorId
from flotilla.core.journal import (
    BUCKETS,
    Append,
    Due,
    Letter,
    Snapshot,
    Stored,
    bucket_of,
    reminders_gone,
    reminders_made,
)
from flotilla.core.reminders import Reminder

T = TypeVar("T")
_Pending = tuple[datetime, ActorId, str]


class _Log(msgspec.Struct):
    """`keys[i]` is the key that `entries[i]` lies under. Nothing is encrypted here, but dropping a key
    has the same consequences."""

    entries: list[Stored]
    keys: list[int]


class MemoryJournal:
    """Implements `Journal`. Its `letters` implement `Letters`."""

    def __init__(self) -> None:
        self.letters = MemoryLetters()
        self._logs: dict[ActorId, _Log] = {}
        self._snapshots: dict[ActorId, tuple[Snapshot, frozenset[int]]] = {}
        self._unfinished: dict[ActorId, None] = {}
        self._reminders = _Reminders()
        self._keys: dict[tuple[str, str], int] = {}  # by tenant and person
        self._kept: set[int] = set()  # the keys that were not dropped
        self._next_key = count(1)

    # -- writing

    async def append(self, append: Append) -> None:
        """Raises `Erased` if the actor's last entry was, besides what the port says."""
        log = self._log_at(append.actor, append.expected)
        if len(log.entries) != append.expected:
            raise Conflict("Another host has written to this actor's journal.")
        key = self._key(append.actor, append.person)
        self._reminders.change(append, key)
        for seq, entry in enumerate(append.entries, append.expected + 1):
            log.entries.append(Stored(seq, append.at, entry))
            log.keys.append(key)
        if append.entries:
            self._logs[append.actor] = log
        if append.unfinished:
            self._unfinished[append.actor] = None
        else:
            self._unfinished.pop(append.actor, None)

    async def keep(self, actor: ActorId, snapshot: Snapshot, *, person: str = "") -> None:
        """Raises `Conflict` if the snapshot is ahead of the record, `Erased` if a part of it was."""
        old, keys = self._snapshots.get(actor, (None, frozenset[int]()))
        since = old.seq if old else 0
        if old and since >= snapshot.seq:
            return
        log = self._log_at(actor, snapshot.seq)
        keys |= {*log.keys[since : snapshot.seq], self._key(actor, person)}
        self._check_kept(keys)
        self._snapshots[actor] = snapshot, keys

    async def erase(self, tenant: str, person: str) -> bool:
        """Besides, the person's dead letters and reminders go. `actor:KIND/NAME` is the name of an actor's own key."""
        key = self._keys.pop((tenant, person), None)
        if key is None:
            return False
        self._kept.remove(key)
        self._reminders.erase(tenant, key)
        for actor in [actor for actor, (_, keys) in self._snapshots.items() if key in keys]:
            del self._snapshots[actor]
        for actor, log in self._logs.items():
            if actor.tenant == tenant and key in log.keys:
                self._blank(actor, log, key)
        return True

    def _blank(self, actor: ActorId, log: _Log, key: int) -> None:
        """The text goes, the place stays: the fence counts on it."""
        for i, stored in enumerate(log.entries):
            if log.keys[i] == key:
                entry = msgspec.structs.replace(stored.entry, body=b"")
                log.entries[i] = msgspec.structs.replace(stored, entry=entry)
        if log.keys[-1] == key:
            self._unfinished.pop(actor, None)
            self.letters.erase(actor)

    def _log_at(self, actor: ActorId, seq: int) -> _Log:
        """The actor's log, in which `seq` is there and was not erased."""
        log = self._logs.get(actor) or _Log([], [])
        if len(log.entries) < seq:
            raise Conflict("The journal has no such entry to go on from.")
        self._check_kept(log.keys[seq - 1 : seq])
        return log

    def _key(self, actor: ActorId, person: str) -> int:
        name = actor.tenant, person or f"actor:{actor.key}"
        if (key := self._keys.get(name)) is None:
            key = self._keys[name] = next(self._next_key)
            self._kept.add(key)
        return key

    def _check_kept(self, keys: Iterable[int]) -> None:
        if not self._kept.issuperset(keys):
            raise Erased("What is recorded of this actor was erased.", next="Begin with a new one.")

    # -- reading

    async def load(self, actor: ActorId) -> tuple[Snapshot | None, list[Stored]]:
        snapshot, _ = self._snapshots.get(actor, (None, None))
        return snapshot, await self.read(actor, after=snapshot.seq if snapshot else 0)

    async def read(self, actor: ActorId, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        if (log := self._logs.get(actor)) is None:
            return []
        self._check_kept(log.keys[after:][:limit])
        return log.entries[after:][:limit]

    async def unfinished(self) -> list[ActorId]:
        return list(self._unfinished)

    async def actors(
        self, tenant: str, kind: str, *, before: str | None = None, limit: int = 50
    ) -> list[tuple[ActorId, list[Stored]]]:
        mine = (id for id in self._logs if (id.tenant, id.kind) == (tenant, kind))
        older = sorted((id for id in mine if before is None or id.name < before), reverse=True)
        readable = (id for id in older if self._kept.issuperset(_ends(self._logs[id].keys)))
        return [(id, _ends(self._logs[id].entries)) for id in islice(readable, limit)]

    async def due(self, before: datetime, buckets: Sequence[int], *, limit: int) -> list[Due]:
        return self._reminders.due(before, buckets, limit)

    async def reminders(self, actor: ActorId) -> list[Reminder]:
        return self._reminders.of(actor)

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


def _ends(log: Sequence[T]) -> list[T]:
    return [log[0]] if len(log) == 1 else [log[0], log[-1]]


class _Reminders:
    def __init__(self) -> None:
        self._set: dict[ActorId, dict[str, tuple[Reminder, int]]] = {}  # with the key of its person
        self._pending: list[list[_Pending]] = [[] for _ in range(BUCKETS)]  # each in order

    def change(self, append: Append, key: int) -> None:
        """All or nothing: raises `Conflict` if what was fired is not pending any more."""
        if not (append.remind or append.forget or append.fired):
            return
        gone, mine = reminders_gone(append), self._set.get(append.actor, {})
        if any(due and (name not in mine or mine[name][0].due != due) for name, due in gone.items()):
            raise Conflict("The reminder has fired already, or was changed.")
        for name in gone:
            self._remove(append.actor, name)
        for reminder in reminders_made(append):
            self._remove(append.actor, reminder.name)
            self._set.setdefault(append.actor, {})[reminder.name] = reminder, key
            insort(self._pending[bucket_of(append.actor)], (reminder.due, append.actor, reminder.name))

    def _remove(self, actor: ActorId, name: str) -> None:
        mine = self._set.get(actor, {})
        if name not in mine:
            return
        reminder, _ = mine.pop(name)
        if not mine:
            del self._set[actor]
        pending = self._pending[bucket_of(actor)]
        del pending[bisect_left(pending, (reminder.due, actor, name))]

    def erase(self, tenant: str, key: int) -> None:
        for actor, mine in list(self._set.items()):
            for name in [name for name, (_, of) in mine.items() if of == key and actor.tenant == tenant]:
                self._remove(actor, name)

    def due(self, before: datetime, buckets: Sequence[int], limit: int) -> list[Due]:
        first = (islice(self._pending[bucket], limit) for bucket in set(buckets))
        found: list[Due] = []
        for due, actor, name in islice(merge(*first), limit):
            if due > before:
                break
            reminder, _ = self._set[actor][name]
            found.append(Due(actor, name, due, reminder.repeat, reminder.all_missed))
        return found

    def of(self, actor: ActorId) -> list[Reminder]:
        return [reminder for _, (reminder, _) in sorted(self._set.get(actor, {}).items())]


class MemoryLetters:
    """Implements `Letters`. A journal has one, whose letters go with what is erased in the journal."""

    def __init__(self) -> None:
        self._letters: dict[tuple[str, str], Letter] = {}

    async def put(self, letter: Letter) -> None:
        self._letters.setdefault((letter.actor.tenant, letter.id), letter)

    async def list(self, tenant: str, *, actor: ActorId | None = None, limit: int = 100) -> list[Letter]:
        mine = [one for (of, _), one in self._letters.items() if of == tenant and actor in (None, one.actor)]
        return sorted(mine, key=lambda letter: (letter.at, letter.id))[:limit]

    async def read(self, tenant: str, id: str) -> Letter | None:
        return self._letters.get((tenant, id))

    async def remove(self, tenant: str, id: str) -> Letter | None:
        return self._letters.pop((tenant, id), None)

    def erase(self, actor: ActorId) -> None:
        for name in [name for name, letter in self._letters.items() if letter.actor == actor]:
            del self._letters[name]
