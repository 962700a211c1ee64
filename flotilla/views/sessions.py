"""Sessions as others see them: their entries read, and their list by what the first and the last entry of
each journal tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flotilla.core.facts import SessionClosed, SessionOpened
from flotilla.core.ids import ActorId
from flotilla.core.journal import Stored
from flotilla.core.ledger import Codec
from flotilla.core.session import Session
from flotilla.views.events import stamp

recorded = Codec(Session).recorded
"""An entry of a session's journal, decoded."""


def listed(actor: ActorId, ends: Sequence[Stored]) -> dict[str, Any]:
    first, last = recorded(ends[0]), recorded(ends[-1])
    assert isinstance(first.fact, SessionOpened)
    return {
        "id": actor.name,
        "state": "closed" if isinstance(last.fact, SessionClosed) else "open",
        "agent": first.fact.agent,
        "channel": first.fact.channel,
        "customer": first.fact.customer,
        "opened_at": stamp(first.at),
        "last_at": stamp(last.at),
        "seq": last.seq,
    }
