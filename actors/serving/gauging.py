"""What replicas say of themselves, and what all processes have counted of their replies: for a gateway's
metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from actors.link import Links
from actors.roster import Roster
from actors.serving.balance import ROLE
from actors.serving.meters import ReplicaSaid
from flotilla.core.errors import FlotillaError
from flotilla.core.members import Member
from flotilla.core.ports import TallyBoard
from flotilla.core.tallies import SHADOW, Tallies, summed

# Processes that are gone and whose sums are still kept apart, in case they were only silent.
GONE_KEPT = 1_000


async def ask_replicas(links: Links, roster: Roster, timeout_s: float) -> dict[str, ReplicaSaid | None]:
    """By the replica's name; None for one that doesn't answer in time."""
    members = roster.members(ROLE)
    said = await asyncio.gather(*(_ask(links, member, timeout_s) for member in members))
    return {member.name: one for member, one in zip(members, said, strict=True)}


async def _ask(links: Links, member: Member, timeout_s: float) -> ReplicaSaid | None:
    try:
        async with asyncio.timeout(timeout_s):
            link = await links.to(member.address)
            answer = await link.ask("metrics", b"", timeout_s=timeout_s)
        return msgspec.msgpack.decode(answer, type=ReplicaSaid)
    except (FlotillaError, TimeoutError, msgspec.DecodeError):
        return None


class Tallied:
    """The sums of all processes that were ever seen: one that ends takes nothing away, or a counter would
    fall, which to Prometheus is a restart from zero."""

    def __init__(self, board: TallyBoard, log: Any) -> None:
        self._board = board
        self._log = log
        self._last: dict[str, Tallies] = {}
        self._gone: Tallies = {}

    def __repr__(self) -> str:
        return f"<Tallied: {len(self._last)} processes, {len(self._gone)} versions of others>"

    async def read(self, known: Collection[str]) -> Tallies:
        """Of the versions `known`, and their shadows. While the board is down, what it said last."""
        try:
            pages = await self._board.pages()
        except FlotillaError as error:
            self._log.info("tallies.unread", reason=error.detail)
        else:
            self._keep(pages)
        total = summed([self._gone, *self._last.values()])
        return {id: tally for id, tally in total.items() if id.removeprefix(SHADOW) in known}

    def _keep(self, pages: Mapping[str, Tallies]) -> None:
        self._last |= pages
        gone = [process for process in self._last if process not in pages]
        for process in gone:
            for tally in self._last[process].values():
                tally.running = tally.held = 0
        for process in gone[: max(0, len(gone) - GONE_KEPT)]:
            self._gone = summed([self._gone, self._last.pop(process)])
