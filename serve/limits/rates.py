"""The limits of tenants and keys, for every door: `await doors.limits.message(who)`, and so on.

A message that finds room in the leases of its tenant and its key costs no round trip and does not suspend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from flotilla.core.access import Quotas
from flotilla.core.api_keys import KeyLimits
from flotilla.core.clock import Clock
from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS
from flotilla.core.policy.gcra import Quota
from serve.limits.bucket import Bucket, Standing
from serve.limits.fallback import Fallback
from serve.limits.slots import Slots
from serve.principals import Principal
from serve.settings import Settings

RENEW_EVERY_S = 5.0
Whose = Literal["tenant", "key"]
Name = Literal["messages", "sessions", "sockets", "streams"]
Subject = tuple[Name, Whose, str]
Leave = Callable[[], None]
T = TypeVar("T", Bucket, Slots)


class RateLimits:
    """Each raises `LimitReached` with `retry_after_s` past a limit of the tenant or of the key."""

    def __init__(self, settings: Settings, quotas: Quotas, clock: Clock, log: Any) -> None:
        self._tenants, self._keys = settings.limits, settings.key_limits
        self._gateways = max(1, settings.gateways)
        self._quotas = Fallback(quotas, clock, log, self._gateways)
        self._clock = clock
        self._holder = new_id("gw")
        self._buckets: dict[Subject, Bucket] = {}
        self._slots: dict[Subject, Slots] = {}

    def __repr__(self) -> str:
        return f"<RateLimits: {len(self._buckets)} buckets, {len(self._slots)} bounds on what is open>"

    # -- how fast

    async def message(self, who: Principal) -> Sequence[Standing]:
        """One message of a customer or of a person. Where the caller stands, the key's limit first."""
        return await self._take("messages", who)

    def message_now(self, who: Principal) -> bool:
        """The same without waiting: False, and nothing is taken, if `message` has to be awaited."""
        taken: list[Bucket] = []
        for bucket in self._buckets_of("messages", who):
            if not bucket.take_now():
                for one in taken:
                    one.give_back()
                return False
            taken.append(bucket)
        return True

    async def opening(self, who: Principal) -> Sequence[Standing]:
        """One session that is opened."""
        return await self._take("sessions", who)

    async def _take(self, name: Literal["messages", "sessions"], who: Principal) -> Sequence[Standing]:
        buckets = self._buckets_of(name, who)
        for at, bucket in enumerate(buckets):
            try:
                if not bucket.take_now():
                    await bucket.take()
            except BaseException:
                for one in buckets[:at]:
                    one.give_back()
                raise
        return [bucket.standing for bucket in buckets]

    # -- how many at the same time

    async def socket(self, who: Principal) -> Leave:
        """A slot for an open socket; call what is returned, once, when it is closed."""
        return await self._enter("sockets", who)

    async def stream(self, who: Principal) -> Leave:
        """A slot for an open stream (SSE, gRPC); call what is returned, once, when it ends."""
        return await self._enter("streams", who)

    async def _enter(self, name: Literal["sockets", "streams"], who: Principal) -> Leave:
        entered: list[Slots] = []
        for slots in self._slots_of(name, who):
            try:
                await slots.enter()
            except BaseException:  # also who hangs up while it waits
                _leave(entered)
                raise
            entered.append(slots)
        return partial(_leave, entered)

    async def run(self) -> None:
        """Until cancelled: renews what is held, and forgets what is idle."""
        while True:
            await self._clock.sleep(RENEW_EVERY_S)
            for subject, slots in list(self._slots.items()):
                await slots.renew()
                if slots.idle:
                    self._slots.pop(subject, None)

    async def aclose(self) -> None:
        """Gives back what is held: a gateway that goes away leaves its slots to the others."""
        for slots in self._slots.values():
            slots.used = 0
        await asyncio.gather(*(slots.renew() for slots in self._slots.values()))

    # -- whose

    def _buckets_of(self, name: Literal["messages", "sessions"], who: Principal) -> list[Bucket]:
        found: list[Bucket] = []
        for whose, id, bounds in self._bounds(who):
            if quota := _quota(bounds, name):
                found.append(self._bucket((name, whose, id), quota))
        return found

    def _slots_of(self, name: Literal["sockets", "streams"], who: Principal) -> list[Slots]:
        found: list[Slots] = []
        for whose, id, bounds in self._bounds(who):
            if most := bounds.sockets if name == "sockets" else bounds.streams:
                found.append(self._slots_for((name, whose, id), most))
        return found

    def _bounds(self, who: Principal) -> list[tuple[Whose, str, KeyLimits]]:
        """The key's first: one that is over its own limit takes nothing of its tenant's."""
        own = _over(self._keys, who.limits)
        return [("key", who.key, own), ("tenant", who.tenant, self._tenants)]

    def _bucket(self, subject: Subject, quota: Quota) -> Bucket:
        bucket = self._buckets.get(subject)
        if bucket is None or bucket.quota != quota:  # the key's own limit was changed
            name, whose, _ = subject
            bucket = Bucket(
                name,
                whose,
                ":".join(subject),
                quota,
                quotas=self._quotas,
                clock=self._clock,
                gateways=self._gateways,
            )
            _add(self._buckets, subject, bucket)
        return bucket

    def _slots_for(self, subject: Subject, most: int) -> Slots:
        slots = self._slots.get(subject)
        if slots is not None:
            slots.most = most  # the key's own limit may have been changed
        else:
            name, whose, _ = subject
            slots = Slots(
                name,
                whose,
                ":".join(subject),
                most,
                quotas=self._quotas,
                holder=self._holder,
                gateways=self._gateways,
            )
            _add(self._slots, subject, slots)
        return slots


def _leave(entered: list[Slots]) -> None:
    for slots in entered:
        slots.leave()


def _add(known: dict[Subject, T], subject: Subject, one: T) -> None:
    if len(known) >= LIMITS.watched_subjects_max:
        for idle in [key for key, value in known.items() if value.idle]:
            del known[idle]
    known[subject] = one


def _over(default: KeyLimits, own: KeyLimits) -> KeyLimits:
    if own == _NONE:
        return default
    return KeyLimits(
        messages_per_s=own.messages_per_s or default.messages_per_s,
        messages_burst=own.messages_burst or default.messages_burst,
        sessions_per_min=own.sessions_per_min or default.sessions_per_min,
        sockets=own.sockets or default.sockets,
        streams=own.streams or default.streams,
    )


_NONE = KeyLimits()


def _quota(bounds: KeyLimits, name: Literal["messages", "sessions"]) -> Quota | None:
    """A minute's worth of sessions may be opened at once; of messages what the operator says, or a second's."""
    if name == "sessions":
        return (
            Quota(bounds.sessions_per_min, 60.0 / bounds.sessions_per_min)
            if bounds.sessions_per_min
            else None
        )
    if not bounds.messages_per_s:
        return None
    burst = bounds.messages_burst or max(1, round(bounds.messages_per_s))
    return Quota(burst, 1.0 / bounds.messages_per_s)
