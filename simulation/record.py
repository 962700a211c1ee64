"""A journal's entries in the words of the history checker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from flotilla.core.journal import Stored
from flotilla.views.events import NOT_FOR_VISITORS, TURN_ENDS
from simulation.observations import Entry

MESSAGES = frozenset({"message.accepted", "message.sent", "note.added", "ordered", "bought", "wound", "rang"})
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def entries_of(stored: Iterable[Stored]) -> list[Entry]:
    return [_entry(one) for one in stored]


def _entry(stored: Stored) -> Entry:
    type, fact = stored.entry.type, _decode(stored.entry.body)
    return Entry(
        seq=stored.seq,
        type=type,
        turn=fact.get("turn", ""),
        message=fact["id"] if type in MESSAGES else "",
        text=fact.get("text", "") if type in TURN_ENDS else "",
        shown=type not in NOT_FOR_VISITORS,
        effect=fact["id"] if type == "paid" else "",
    )
