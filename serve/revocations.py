"""Keys that are revoked and sessions that are closed: told to every gateway, and to what is open there.

Who revokes writes into PostgreSQL first, which has the last word, and then tells the others (`Notices`). They
hear it in milliseconds. While notices can't be heard, what is believed of a key is at most
`LIMITS.key_fresh_s` old, and what is open is looked after every `SWEEP_S`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flotilla.core.access import Notices
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Unauthenticated
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from serve.keys import Keys
from serve.principals import Principal

HEAR_S = 1.0
SWEEP_S = 5.0
PAUSE_S = 0.3

Gone = Callable[[FlotillaError], None]
"""Called once, in the loop, with the error that whoever is open must be told: `Unauthenticated`."""


class _Watch:
    __slots__ = ("gone", "who")

    def __init__(self, who: Principal, gone: Gone) -> None:
        self.who = who
        self.gone = gone


class Revocations:
    def __init__(
        self, notices: Notices, keys: Keys, clock: Clock, log: Any, *, token_s: float = LIMITS.visitor_token_s
    ) -> None:
        self._notices, self._keys, self._clock, self._log = notices, keys, clock, log
        self._token_s = token_s
        self._watches: dict[str, set[_Watch]] = {}
        self._closed: OrderedDict[str, float] = OrderedDict()
        self.hears = False

    def __repr__(self) -> str:
        open_ = sum(map(len, self._watches.values()))
        return f"<Revocations: {open_} watched, {'hears' if self.hears else 'deaf'}>"

    def watch(self, who: Principal, gone: Gone) -> Callable[[], None]:
        """Calls `gone` when the key that `who` came with, or that vouches for its token, is revoked or has
        ended. Returns what ends the watch; calling that twice is all right."""
        watch = _Watch(who, gone)
        self._watches.setdefault(who.key, set()).add(watch)

        def unwatch() -> None:
            watches = self._watches.get(who.key)
            if watches is not None:
                watches.discard(watch)
                if not watches:
                    self._watches.pop(who.key, None)

        return unwatch

    def closed(self, actor: ActorId) -> bool:
        """Whether this session's tokens are void, as it was closed."""
        return str(actor) in self._closed

    async def tell_changed(self, id: str) -> None:
        """A key has another secret. Raises `Unavailable` if the others can't be told."""
        self._keys.forget(id)
        await self._notices.tell(f"changed {id}")

    async def tell_revoked(self, id: str) -> None:
        """Raises `Unavailable` if the others can't be told; here it counts at once."""
        self._take(f"revoked {id}")
        await self._notices.tell(f"revoked {id}")

    async def tell_closed(self, actor: ActorId) -> None:
        """A session's tokens are void from now on. Where it can't be told they end by themselves."""
        self._take(f"closed {actor}")
        try:
            await self._notices.tell(f"closed {actor}")
        except FlotillaError as error:
            self._log.warning("tokens.close_not_told", session=str(actor), reason=error.detail)

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._hear(), self._sweep())

    async def _hear(self) -> None:
        place = ""
        while True:
            try:
                place, names = await self._notices.hear(place, HEAR_S)
            except FlotillaError as error:
                if self.hears:
                    self._log.warning("notices.not_heard", reason=error.detail)
                self.hears = False
                await self._clock.sleep(PAUSE_S)
                continue
            if not self.hears:  # what was told meanwhile may be lost with the server
                self.hears = True
                self._keys.forget_all()
                await self.sweep()
            for name in names:
                self._take(name)

    def _take(self, notice: str) -> None:
        kind, _, name = notice.partition(" ")
        match kind:
            case "revoked":
                self._keys.forget(name)
                self._end(name, lambda _: True)
            case "changed":
                self._keys.forget(name)
            case "closed":
                self._close(name)
            case _:  # a newer release's
                return

    def _close(self, actor: str) -> None:
        now = self._clock.monotonic()
        self._closed[actor] = now
        while self._closed:
            oldest, at = next(iter(self._closed.items()))
            if now - at <= self._token_s and len(self._closed) <= LIMITS.closed_sessions_max:
                return
            del self._closed[oldest]

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Looks after all that is open: keys that ended without a notice, secrets whose time is over."""
        for id in list(self._watches):
            try:
                vouched = not id or await self._keys.vouching(id) is not None
            except FlotillaError:  # nobody can say: the next look will
                continue
            now = self._clock.now()
            self._end(id, lambda who, v=vouched, n=now: not v or (who.until is not None and n >= who.until))

    def _end(self, id: str, over: Callable[[Principal], bool]) -> None:
        ended = [watch for watch in self._watches.get(id, ()) if over(watch.who)]
        for watch in ended:
            self._watches[id].discard(watch)
        if id in self._watches and not self._watches[id]:
            del self._watches[id]
        for watch in ended:
            what = "token" if watch.who.visitor else "key"
            watch.gone(
                Unauthenticated(f"The {what} was revoked or has ended.", next=f"Come with another {what}.")
            )
