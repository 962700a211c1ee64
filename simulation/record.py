"""A journal's entries in the words of the history checker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from flotilla.core.journal import Stored
from flotilla.views.events import NOT_FOR_VISITORS, TURN_ENDS
from simulation.observations import Change, Entry

MESSAGES = frozenset({"message.accepted", "message.sent", "note.added", "ordered", "bought", "wound", "rang"})
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def entries_of(stored: Iterable[Stored]) -> list[Entry]:
    return [_entry(one) for one in stored]


def _entry(stored: Stored) -> Entry:
    type, fact = stored.entry.type, _decode(stored.entry.body)
    if type == "step.done":
        return _step(stored.seq, fact)
    if type == "task.failed":
        return Entry(seq=stored.seq, type=type, turn=fact["task"], text=_why(fact))
    if type == "reply.failed":
        return Entry(seq=stored.seq, type=type, turn=fact["turn"], text=_why(fact))
    return Entry(
        seq=stored.seq,
        type=type,
        turn=fact.get("turn", ""),
        message=fact["id"] if type in MESSAGES else "",
        text=fact.get("text", "") if type in TURN_ENDS else "",
        shown=type not in NOT_FOR_VISITORS,
        effect=fact["id"] if type == "paid" else "",
        model=fact.get("model", "") if type == "reply.completed" else "",
        wanted=fact.get("model", "") if type == "session.opened" else "",
    )


def _why(fact: dict[str, Any]) -> str:
    """The short name of the problem that it failed for."""
    return fact["problem"]["type"].rpartition("/")[2]


def _step(seq: int, fact: dict[str, Any]) -> Entry:
    """Of an agent's task: its text, if it was made by a model."""
    made = fact.get("outcome") or {}
    return Entry(
        seq=seq, type="step.done", turn=fact["task"], text=made.get("text", ""), model=made.get("model", "")
    )


def changes_of(stored: Iterable[Stored]) -> list[Change]:
    """A model's journal."""
    return [_change(one.seq, one.entry.type, _decode(one.entry.body)) for one in stored]


def _change(seq: int, type: str, fact: dict[str, Any]) -> Change:
    words = {name: fact[name] for name in ("swap", "to", "stage", "end", "reason") if fact.get(name)}
    version = fact.get("version") or "" if type == "model.served" else ""
    in_place = bool(fact.get("order", {}).get("in_place"))
    return Change(seq=seq, type=type, version=version, in_place=in_place, **words)
