"""Sessions in a list: what the first and the last fact of each journal tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flotilla.core.facts import Recorded, SessionClosed, SessionOpened
from flotilla.core.ids import ActorId
from flotilla.views.events import stamp


def listed(actor: ActorId, ends: Sequence[Recorded]) -> dict[str, Any]:
    first, last = ends[0], ends[-1]
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
