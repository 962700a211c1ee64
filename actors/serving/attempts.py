"""A prompt at one replica: opened over a link, with the adapter that it needs, and read part by part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Protocol

import msgspec

from actors.frames import encode
from actors.link import Link, Links
from actors.roster import Roster
from actors.serving.balance import Balance, Burden
from flotilla.core.errors import (
    AdapterMissing,
    FlotillaError,
    Misconfigured,
    OtherVersion,
    Overloaded,
    Unavailable,
)
from flotilla.core.generation import Finished, Generated, Piece, Prompt
from flotilla.core.members import Member
from flotilla.core.versions import Version

LOAD_ADAPTER_TIMEOUT_S = 30.0
# Between two parts; an engine that is silent for longer hangs.
STALL_S = 60.0
AGAIN_S = 0.1

_decode = msgspec.msgpack.Decoder(Piece | Finished).decode
# An adapter that doesn't fit must not cost its base the replicas.
_NOT_ITS_FAULT = (AdapterMissing, Misconfigured, OtherVersion, Overloaded)


class Slow(Unavailable):
    """The first token hasn't come in time."""


class Reading(Protocol):
    """A reply as it is read, wherever it is made: `first` is its first part, `rest` gives the others."""

    @property
    def member(self) -> Member | None:
        """The replica that makes it; None if it is made here."""
        ...

    @property
    def first(self) -> asyncio.Future[Generated]: ...

    def rest(self) -> AsyncGenerator[Generated]: ...

    async def aclose(self) -> None: ...


class Attempt:
    """`first` is the first part of the reply; `rest` gives the others. Close it. `adapter` says that it is
    made with one, at a replica of the base."""

    def __init__(self, member: Member, burden: Burden, *, adapter: bool = False) -> None:
        self.member = member
        self.adapter = adapter
        self.link: Link | None = None
        self.first: asyncio.Future[Generated]
        self._burden = burden
        self._items: AsyncGenerator[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Attempt at {self.member.name}>"

    async def open(self, link: Link, body: bytes) -> Generated:
        self._items = link.call("generate", body)
        part = await self._next(self._items)
        self._burden.begun()
        return part

    async def rest(self) -> AsyncGenerator[Generated]:
        """Raises `Unavailable` for a replica that falls silent, and what ended the reply otherwise."""
        assert self._items is not None
        part = self.first.result()
        while not isinstance(part, Finished):
            try:
                async with asyncio.timeout(STALL_S):
                    part = await self._next(self._items)
            except TimeoutError:
                raise Unavailable(f"{self.member.name} fell silent.", retry_after_s=AGAIN_S) from None
            yield part

    async def _next(self, items: AsyncGenerator[bytes]) -> Generated:
        async for item in items:
            return _decode(item)
        raise Unavailable(f"{self.member.name} ended a reply without saying so.", retry_after_s=AGAIN_S)

    async def aclose(self) -> None:
        """Nobody waits for it any more; the replica hears of that."""
        self._burden.lift()
        if not self.first.done():
            self.first.cancel()
            await asyncio.wait([self.first])
        if not self.first.cancelled():
            self.first.exception()  # asyncio would complain of one that nobody has looked at
        if self._items is not None:
            await self._items.aclose()


class Asker:
    """Asks replicas, and draws the conclusions about them."""

    def __init__(self, links: Links, roster: Roster, balance: Balance, log: Any) -> None:
        self._links = links
        self._roster = roster
        self._log = log
        self.balance = balance

    def ask(self, version: Version, prompt: Prompt, passed_over: Iterable[str]) -> Attempt:
        """Returns at once. Raises `NoReplica`."""
        member = self.balance.pick(version, prompt, passed_over)
        attempt = Attempt(member, self.balance.burden(member, prompt), adapter=bool(version.adapter))
        attempt.first = asyncio.create_task(self._first(attempt, version, encode(prompt)))
        return attempt

    async def _first(self, attempt: Attempt, version: Version, body: bytes) -> Generated:
        link = attempt.link = await self._links.to(attempt.member.address)
        if version.adapter and not self.balance.has(attempt.member, version):
            await self._load(link, attempt.member, version)
        try:
            return await attempt.open(link, body)
        except AdapterMissing:  # others were used more lately, and it had to go
            await self._load(link, attempt.member, version)
            return await attempt.open(link, body)

    async def _load(self, link: Link, member: Member, version: Version) -> None:
        await link.ask("load_adapter", encode(version), timeout_s=LOAD_ADAPTER_TIMEOUT_S)
        self.balance.loaded(member, version)

    def answers(self, attempt: Attempt) -> None:
        """Its first part is there."""
        self.balance.note(attempt.member, ok=True)

    def failed(self, attempt: Attempt, error: FlotillaError) -> bool:
        """Whether it is the replica's fault, or its adapter's, which must not cost the base its replicas. One
        that is slow because requests wait there is left its good name, too."""
        if attempt.link is None or attempt.link.lost:
            self._roster.suspect(attempt.member)
        if isinstance(error, OtherVersion) and error.instead:
            self.balance.serves(attempt.member, error.instead)
        if error.status < 500 or isinstance(error, _NOT_ITS_FAULT):
            return False
        queues = isinstance(error, Slow) and self.balance.queues(attempt.member)
        if not (attempt.adapter or queues):
            self.balance.note(attempt.member, ok=False)
        self._log.warning("replica.failed", replica=attempt.member.name, reason=error.detail)
        return True
