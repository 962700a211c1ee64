"""Visitors of the small fleet: their tokens, which end when the test says so."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

LIFE_S = 1800.0


class Visits:
    """`tokens` are good; those in `stale` for nothing but getting another one. The key `dev` is good for ever."""

    def __init__(self) -> None:
        self.now = 0.0  # by the fleet's clock
        self.tokens: list[str] = []
        self.stale = set[str]()
        self.renewals = asyncio.Queue[str]()
        self.refused = 0
        self.open = 0  # streams
        self.away = 0  # so many times nobody is there to renew
        self._ended: dict[str, asyncio.Event] = {"Bearer dev": asyncio.Event()}

    def issue(self, session: str) -> str:
        claims = msgspec.json.encode({"sub": session, "exp": int(self.now + LIFE_S), "n": len(self.tokens)})
        token = f"head.{urlsafe_b64encode(claims).decode().rstrip('=')}.signature"
        self.tokens.append(token)
        self._ended[f"Bearer {token}"] = asyncio.Event()
        return token

    def renew(self, session: str) -> str:
        token = self.issue(session)
        self.renewals.put_nowait(token)
        return token

    def end(self, token: str) -> None:
        """What it has opened ends with it."""
        self._ended[f"Bearer {token}"].set()

    def begin(self, key: str) -> None:
        """It is good (again)."""
        self._ended[f"Bearer {key}"] = asyncio.Event()

    def admits(self, shown: str, path: str) -> bool:
        ended = self._ended.get(shown)
        stale = shown.removeprefix("Bearer ") in self.stale and not path.endswith("/token")
        good = ended is not None and not ended.is_set() and not stale
        self.refused += not good
        return good

    async def over(self, shown: str) -> None:
        """Once what was shown is not good any more."""
        await self._ended[shown].wait()

    async def guarded(
        self, events: AsyncGenerator[dict[str, Any]], shown: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events, as long as what was shown is good."""
        over = asyncio.create_task(self.over(shown))
        self.open += 1
        try:
            while True:
                coming = asyncio.ensure_future(anext(events, None))
                await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                    return
                if (event := coming.result()) is None:
                    return
                yield event
        finally:
            self.open -= 1
            over.cancel()
            await events.aclose()
