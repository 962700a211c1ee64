"""Whose a key is: one of the environment, or one that was issued. Of issued keys what was looked up is
believed for `LIMITS.key_fresh_s`, and forgotten at once when a notice says that it has changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec

from flotilla.core import api_keys
from flotilla.core.access import KeyStore
from flotilla.core.api_keys import IssuedKey, NewSecret, Pepper
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Overloaded, Unauthenticated, Unavailable
from flotilla.core.limits import LIMITS
from flotilla.core.policy.gcra import Quota, take
from flotilla.core.scopes import OF_A_TENANT, SCOPES
from serve.principals import Principal
from serve.settings import ApiKey, Settings

DEV_KEY = "dev"
DEV_TENANT = "demo"
HELD_MAX = 20_000  # about 1 KB each
USED_EVERY_S = 60.0
# Forged ids reach the database no faster than this: the checksum needs no secret.
UNKNOWN = Quota(burst=200, every_s=0.01)

Opening = Callable[[], Awaitable[KeyStore]]


class _Known(msgspec.Struct, frozen=True):
    key: IssuedKey | None
    at: float


class Keys:
    """`opening` opens the store when it is needed first. `hears` says whether notices arrive: as long as they
    do, a key that was looked up once is believed while PostgreSQL is down."""

    def __init__(
        self,
        settings: Settings,
        opening: Opening,
        clock: Clock,
        log: Any,
        *,
        hears: Callable[[], bool] = lambda: False,
    ) -> None:
        self._opening, self._clock, self._log, self._hears = opening, clock, log, hears
        self._pepper = Pepper(settings.secret)
        self._plain = _plain(settings)
        self._by_id = {who.key: who for who in self._plain.values()}
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking: dict[str, asyncio.Task[IssuedKey | None]] = {}
        self._used: set[tuple[str, str]] = set()
        self._unknown_tat = 0.0

    def __repr__(self) -> str:
        return f"<Keys: {len(self._plain)} of the environment, {len(self._known)} looked up>"

    async def of(self, credential: str) -> Principal:
        """Raises `Unauthenticated` for a key that is not known or has ended, `Unavailable` if nobody can say."""
        if plain := self._plain.get(_hash(credential)):
            return plain
        id = api_keys.id_of(credential)
        key = await self.look(id) if id else None
        if key is None:
            raise _unknown(credential)
        until = self._until(key, credential)
        self._used.add((key.tenant, key.id))
        return _principal(key, until)

    def fresh(self, id: str) -> NewSecret:
        """A secret for the key of that id: it works once its digest is in the store."""
        return self._pepper.fresh(id)

    async def vouching(self, id: str) -> Principal | None:
        """Who holds the key of that id; None if it is not good any more. Visitors' tokens rest on it."""
        if id in self._by_id:
            return self._by_id[id]
        key = await self.look(id) if id.startswith("key_") else None
        return _principal(key, key.expires) if key is not None and key.live(self._clock.now()) else None

    async def look(self, id: str) -> IssuedKey | None:
        """The key's record, at most `LIMITS.key_fresh_s` old if the store answers."""
        known = self._known.get(id)
        if known is not None and self._clock.monotonic() - known.at < LIMITS.key_fresh_s:
            return known.key
        try:
            return await self._fetch(id)
        except Unavailable:
            if known is not None and self._hears():
                return known.key
            raise

    def forget(self, id: str) -> None:
        """What is being looked up just now is not believed either."""
        self._known.pop(id, None)
        self._looking.pop(id, None)

    def forget_all(self) -> None:
        for id in [*self._known, *self._looking]:
            self.forget(id)

    async def run(self) -> None:
        """Until cancelled: notes which keys were used, to the minute."""
        while True:
            await self._clock.sleep(USED_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        used, self._used = self._used, set()
        try:
            if used:
                await (await self._opening()).touch(used, self._clock.now().replace(second=0, microsecond=0))
        except FlotillaError as error:
            self._log.warning("keys.use_not_noted", keys=len(used), reason=error.detail)

    def _until(self, key: IssuedKey, credential: str) -> datetime | None:
        try:
            return key.until(self._pepper.digest(credential), self._clock.now())
        except KeyError:
            raise Unauthenticated(
                f"The key {key.id} was revoked or has expired, or this is not its secret any more.",
                next="Use its new secret, or have another key made.",
            ) from None

    async def _fetch(self, id: str) -> IssuedKey | None:
        """One look-up for all who ask at the same time, and another one if the key changed meanwhile."""
        while True:
            looking = self._looking.get(id)
            if looking is None:
                looking = self._looking[id] = asyncio.create_task(self._find(id))
            try:
                found = await asyncio.shield(looking)
            except FlotillaError:
                if self._looking.get(id) is looking:
                    del self._looking[id]
                raise
            if self._looking.get(id) is looking:
                del self._looking[id]
                self._hold(id, found)
                return found
            if id in self._known:  # another waiter of the same look-up was first
                return found

    async def _find(self, id: str) -> IssuedKey | None:
        taken, tat = take(UNKNOWN, self._unknown_tat, self._clock.monotonic(), 1)
        if not taken.granted:
            raise Overloaded("Too many unknown keys are being tried.", next="Try again.", retry_after_s=1.0)
        found = await (await self._opening()).find(id)
        if found is None:
            self._unknown_tat = tat
        return found

    def _hold(self, id: str, found: IssuedKey | None) -> None:
        self._known[id] = _Known(found, self._clock.monotonic())
        self._known.move_to_end(id)
        if len(self._known) > HELD_MAX:
            self._known.popitem(last=False)


def _plain(settings: Settings) -> dict[str, Principal]:
    """The keys of the environment by their hash: all scopes of a tenant; of an operator, all there are."""
    found = {digest: _of_environment(digest, key) for digest, key in settings.keys.items()}
    if settings.on_loopback:
        found[_hash(DEV_KEY)] = Principal(tenant=DEV_TENANT, scopes=SCOPES, key=DEV_KEY)
    return found


def _of_environment(digest: str, key: ApiKey) -> Principal:
    scopes = SCOPES if key.operator else OF_A_TENANT
    return Principal(tenant=key.tenant, scopes=scopes, key=f"env_{_hash(digest)[:16]}")


def _principal(key: IssuedKey, until: datetime | None) -> Principal:
    scopes = frozenset(key.scopes)
    return Principal(tenant=key.tenant, scopes=scopes, key=key.id, limits=key.limits, until=until)


def _unknown(credential: str) -> Unauthenticated:
    if credential.startswith(api_keys.PREFIX) and api_keys.id_of(credential) is None:
        return Unauthenticated(
            "This key is cut off or mistyped: its checksum is wrong.", next="Copy the whole key."
        )
    return Unauthenticated("This key is not known.", next="Check the key; `dev` works on loopback only.")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
