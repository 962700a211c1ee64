"""Who asks, once that is known."""

from __future__ import annotations

from datetime import datetime

import msgspec

from flotilla.core.api_keys import KeyLimits
from flotilla.core.errors import Forbidden, Refused
from flotilla.core.ids import ActorId, is_name
from flotilla.core.scopes import OF_A_TENANT, OF_THE_FLEET, Scope


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """`session` is set for a visitor, who may touch that one session and nothing else. `key` is the id of the
    key, for a visitor that of the key which vouches for its token; `limits` are that key's own. `until` is when
    the secret or the token that came stops working, if it does: what it has opened ends then, too."""

    tenant: str
    scopes: frozenset[str] = OF_A_TENANT
    session: str | None = None
    key: str = ""
    limits: KeyLimits = KeyLimits()
    until: datetime | None = None

    @property
    def visitor(self) -> bool:
        return self.session is not None

    @property
    def operator(self) -> bool:
        """May also touch what all tenants share."""
        return "operator" in self.scopes

    def actor(self, session: str) -> ActorId:
        """The session's actor. Raises `Forbidden` if it is not this visitor's."""
        if not is_name(session):
            raise Refused("That is no session id.", field="session")
        if self.session not in (None, session):
            raise Forbidden("This token is for another session.", next="Use the token of this session.")
        return ActorId(self.tenant, "session", session)


def check_scope(who: Principal, scope: Scope) -> None:
    """Raises `Forbidden`, which names the scope, if `who` doesn't hold it."""
    if scope not in who.scopes:
        raise Forbidden(
            f"This needs the scope {scope!r}, which the {'token' if who.visitor else 'key'} doesn't have.",
            field="authorization",
            next=_next(scope),
        )


def _next(scope: Scope) -> str:
    if scope in OF_THE_FLEET:
        return f"This touches the whole fleet: use a key of an operator that has {scope!r}."
    return f"Use a key with {scope!r}: `flotilla keys create --scope {scope}`."


def check_key(who: Principal) -> None:
    """Raises `Forbidden` for a visitor."""
    if who.visitor:
        raise Forbidden("A visitor's token can't do this.", next="Use an API key.")
