"""What a client shows at the door: an API key, which stays, or a visitor's token, which is replaced before it ends."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable

import msgspec

from flotilla.client.trying import helps
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Refused

Renew = Callable[[str], Awaitable[str]]
"""Another token for the session, by the one that is shown now."""

LEAST_S = 1.0
LONGEST_S = 600.0
"""Tokens end by the fleet's clock, which may be another than ours: they are renewed this often at least."""
OVER_S = 10.0
"""Until a token is renewed that our clock says is over, and nobody has refused."""


class Visit(msgspec.Struct, frozen=True):
    """What a visitor's token says (RFC 7519): the session, and its end in Unix seconds."""

    sub: str
    exp: int


class Credential:
    """`value` is the key or the token. From the first use to `aclose` a token is kept good: it is renewed at half
    of the time that it has left."""

    def __init__(self, value: str, renew: Renew, clock: Clock) -> None:
        self.value = _checked(value)
        self._renew = renew
        self._clock = clock
        self._visit = visit_of(value)
        self._spent = ""  # a token that the fleet gives no other for
        self._renewing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    def bearer(self) -> str:
        """The header's value. Wants a running loop."""
        if self._renewable and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.create_task(self._keep(), name="flotilla-client-token")
        return f"Bearer {self.value}"

    async def another(self, than: str) -> bool:
        """Whether there is another token than this one now: got meanwhile, or by asking for it."""
        async with self._renewing:
            return self.value != than or await self._renewed()

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def _renewable(self) -> bool:
        return self._visit is not None and self._spent != self.value

    @property
    def _left_s(self) -> float:
        """Of the token, by our clock."""
        return self._visit.exp - self._clock.now().timestamp() if self._visit else 0.0

    async def _keep(self) -> None:
        """Ends with a token that can't be renewed: whoever shows it hears from the fleet why."""
        while self._renewable:
            left_s = self._left_s
            await self._clock.sleep(max(LEAST_S, min(left_s / 2, LONGEST_S)) if left_s > 0 else OVER_S)
            if not await self.another(self.value) and self._left_s <= 0:
                return

    async def _renewed(self) -> bool:
        if self._visit is None or not self._renewable:
            return False
        try:
            self.value = await self._renew(self._visit.sub)
        except FlotillaError as error:
            if not helps(error):
                self._spent = self.value
            return False
        self._visit = visit_of(self.value)
        return True


def visit_of(credential: str) -> Visit | None:
    """What a token says; None for an API key. Nothing is verified: that is the fleet's."""
    parts = credential.split(".")
    if len(parts) != 3:
        return None
    claims = parts[1]
    try:
        return msgspec.json.decode(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=Visit)
    except (ValueError, msgspec.DecodeError):
        return None


def _checked(value: str) -> str:
    """Raises `Refused` for what no header can carry."""
    if value.isascii() and value.isprintable():
        return value
    raise Refused("The key has characters that no key has.", field="key", next="Look at its line ends.")
