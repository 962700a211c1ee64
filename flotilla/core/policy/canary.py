"""Who is answered by a candidate: decided from the conversation alone, everywhere the same.

A conversation's place is a hash of the swap's salt, its tenant and its name, spread evenly over [0, 100).
It never moves, so whoever is in at 5 % is in at 25 % too, and another swap begins with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from flotilla.core.generation import Origin
from flotilla.core.versions import FLEET, Canary, Route, Version

_PLACES = 1 << 64


def in_canary(canary: Canary, origin: Origin, salt: str) -> bool:
    """Whether the candidate answers. Who has no conversation is in only by name, or at 100 %: there is
    nothing to keep it at one version by, so whoever routes gives each lone request a name of its own."""
    if canary.percent >= 100.0 or origin.tenant in canary.tenants:
        return True
    if canary.agents and f"{origin.tenant}/{origin.agent}" in canary.agents:
        return True
    if not origin.conversation:
        return False
    if canary.conversations and f"{origin.tenant}/{origin.conversation}" in canary.conversations:
        return True
    return canary.percent > 0.0 and place(origin, salt) < canary.percent


def place(origin: Origin, salt: str) -> float:
    """Where a conversation is, 0 to 100."""
    key = f"{salt}\0{origin.tenant}\0{origin.conversation}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") * 100.0 / _PLACES


def may_use(version: Version | None, tenant: str) -> bool:
    """The fleet itself, which warms and evaluates, may use them all."""
    return version is not None and (not version.tenants or tenant in version.tenants or tenant == FLEET)


def version_for(route: Route, versions: Mapping[str, Version], origin: Origin) -> str:
    """The id of the version that answers; "" if there is none that this tenant may use."""
    candidate = route.candidate
    if candidate and in_canary(route.canary, origin, route.salt) and _open(candidate, versions, origin):
        return candidate
    return route.stable if _open(route.stable, versions, origin) else ""


def _open(id: str, versions: Mapping[str, Version], origin: Origin) -> bool:
    return may_use(versions.get(id), origin.tenant)
