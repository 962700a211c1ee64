"""What a key may do. Few and well chosen: a resource and what is done with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from flotilla.core.errors import Refused

Scope = Literal[
    "conversations:read",
    "conversations:write",
    "customers:erase",
    "knowledge:read",
    "knowledge:write",
    "completions:write",
    "models:read",
    "models:write",
    "actors:read",
    "actors:write",
    "usage:read",
    "keys:read",
    "keys:write",
    "operator",
]

SCOPES: frozenset[str] = frozenset(get_args(Scope))
OF_THE_FLEET: frozenset[str] = frozenset({"models:write", "operator"})
"""They touch what all tenants share: only an operator has them, and only an operator gives them."""
OF_A_TENANT: frozenset[str] = SCOPES - OF_THE_FLEET
OF_A_VISITOR: frozenset[str] = frozenset({"conversations:read", "conversations:write"})
"""In the one session that the token is for."""


def check_scopes(asked: Iterable[str], held: frozenset[str]) -> tuple[str, ...]:
    """`asked`, sorted and once each. Raises `Refused` for one that there isn't, that the giver doesn't hold
    itself, or for none at all."""
    wanted = sorted(set(asked))
    if not wanted:
        raise Refused("A key without scopes can do nothing.", field="scopes", next=_known(held))
    for scope in wanted:
        if scope not in SCOPES:
            raise Refused(f"There is no scope {scope!r}.", field="scopes", next=_known(held))
        if scope not in held:
            raise Refused(
                f"Your key does not hold {scope!r}, so it can't give it.", field="scopes", next=_known(held)
            )
    return tuple(wanted)


def _known(held: frozenset[str]) -> str:
    return f"Choose of: {', '.join(sorted(held))}."
