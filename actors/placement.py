"""Which host owns an actor: weighted rendezvous hashing.

Every process computes the same answer from the same list of hosts, without asking anyone. Adding
one of N hosts moves 1/N of the actors and leaves the others where they are. The answer is only an
optimisation: the journal's fence makes a wrong one harmless.

Method: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998), with the
logarithmic weights of Schindelhauer and Schomaker (2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from flotilla.core.ids import ActorId
from flotilla.core.members import Member


def owner(actor: ActorId, hosts: Sequence[Member]) -> Member | None:
    """The host with the highest score for `actor`; None if there are no hosts."""
    return max(hosts, key=lambda host: _score(actor, host), default=None)


def _score(actor: ActorId, host: Member) -> float:
    digest = blake2b(f"{actor}|{host.name}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / 2.0**64  # in (0, 1]
    return -host.capacity / math.log(uniform) if uniform < 1.0 else math.inf
