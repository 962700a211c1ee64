"""Which host owns an actor: weighted rendezvous hashing.

Every process computes the same answer from the same list of hosts, without asking anyone. Adding
one of N hosts moves 1/N of the actors and leaves the others where they are. The answer is only an
optimisation: the journal's fence makes a wrong one harmless.

Method: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998), with the
logarithmic weights of Schindelhauer and Schomaker (2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from flotilla.core.ids import ActorId
from flotilla.core.members import Member

NO_PINS: Mapping[ActorId, str] = {}


def owner(actor: ActorId, hosts: Sequence[Member], pins: Mapping[ActorId, str] = NO_PINS) -> Member | None:
    """The host that `actor` is pinned to, while it is up; else the one with the highest score for it.

    A host that is draining owns nothing. None if no host is up. Costs about 2 µs for each host: who
    asks for every message asks `Roster.owner`, which remembers."""
    up = [host for host in hosts if host.state == "up"]
    if pinned := pins.get(actor):
        for host in up:
            if host.name == pinned:
                return host
    key = str(actor)
    return max(up, key=lambda host: _score(key, host), default=None)


def _score(key: str, host: Member) -> float:
    digest = blake2b(f"{key}|{host.name}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / 2.0**64  # in (0, 1]
    return -host.capacity / math.log(uniform) if uniform < 1.0 else math.inf
