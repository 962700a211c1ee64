"""Which of the buckets of reminders a host looks after: by the same hashing that places actors."""

from __future__ import annotations

from actors.roster import Roster
from flotilla.core.ids import ActorId
from flotilla.core.journal import BUCKETS

_IDS = tuple(ActorId("", "bucket", str(n)) for n in range(BUCKETS))


def buckets_of(roster: Roster, host: str) -> list[int]:
    owners = (roster.owner(id) for id in _IDS)
    return [n for n, owner in enumerate(owners) if owner is not None and owner.name == host]
