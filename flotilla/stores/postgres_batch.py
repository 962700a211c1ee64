"""A batch of appends as the columns that `append_facts` (schema/0002) takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, bucket_of, reminders_gone, reminders_made
from flotilla.stores.sealing import Key, entry_place


def columns(batch: Sequence[Append], keys: Sequence[Key]) -> tuple[Any, ...]:
    """In the order of the function's parameters. `keys[i]` seals `batch[i]`; an actor is in it once."""
    bare = [append for append in batch if not append.entries]
    return (
        list({append.actor.tenant for append in batch}),
        *_names(append.actor for append in batch),
        [append.expected for append in batch],
        [key.id for key in keys],
        *_names(append.actor for append in bare),
        [append.expected for append in bare],
        *_entries(batch, keys),
        *_names(append.actor for append in batch if append.unfinished),
        *_names(append.actor for append in batch if not append.unfinished),
        _json([gone for append in batch for gone in _gone(append)]),
        _json([made for append, key in zip(batch, keys, strict=True) for made in _made(append, key)]),
    )


def _names(actors: Iterable[ActorId]) -> tuple[list[str], list[str]]:
    named = list(actors)
    return [actor.tenant for actor in named], [actor.key for actor in named]


def _entries(batch: Sequence[Append], keys: Sequence[Key]) -> tuple[list[Any], ...]:
    rows = [
        (
            append.actor.tenant,
            append.actor.key,
            seq,
            entry.type,
            entry.version,
            append.at,
            key.id,
            key.seal(entry.body, entry_place(append.actor, seq, entry.type, entry.version)),
        )
        for append, key in zip(batch, keys, strict=True)
        for seq, entry in enumerate(append.entries, append.expected + 1)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True)) or ([],) * 8


def _gone(append: Append) -> Iterable[dict[str, Any]]:
    for name, due in reminders_gone(append).items():
        yield {"tenant": append.actor.tenant, "actor": append.actor.key, "name": name, "due": due}


def _made(append: Append, key: Key) -> Iterable[dict[str, Any]]:
    for reminder in reminders_made(append):
        yield {
            "tenant": append.actor.tenant,
            "actor": append.actor.key,
            "bucket": bucket_of(append.actor),
            "key": key.id,
            **msgspec.to_builtins(reminder),
        }


def _json(rows: list[dict[str, Any]]) -> str | None:
    return msgspec.json.encode(rows).decode() if rows else None
