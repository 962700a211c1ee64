"""Many open conversations from one process, asked at times that were set before: an open loop.

Whether or not the fleet keeps up, the next turn is asked when its time has come, by the conversation that
has been quiet for longest; a latency counts from the intended time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import msgspec
import numpy as np
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.fleet import OwnFleet

OPENING = 32  # sockets at once
CONNECT_TIMEOUT_S = 30.0
# What is not answered by then is not waited for.
PATIENCE_S = 15.0


class Event(msgspec.Struct):
    type: str
    id: str | None = None
    turn: str | None = None
    data: dict[str, Any] = {}
    problem: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Event).decode


class Turn:
    """`first_s`: from the intended time to the first words; None until they come. `problem` is what it was
    refused with."""

    __slots__ = ("first_s", "intended", "late_s", "over", "problem", "tenant")

    def __init__(self, tenant: str, intended: float, sent: float) -> None:
        self.tenant = tenant
        self.intended = intended
        self.late_s = sent - intended  # the generator's own fault
        self.first_s: float | None = None
        self.problem: dict[str, Any] | None = None
        self.over = False


class Talker(WSListener):
    """One socket, with at most one turn under way."""

    def __init__(self, tenant: str, question: str, quiet: deque[Talker]) -> None:
        super().__init__()
        self._tenant = tenant
        self._question = question
        self._quiet = quiet
        self._transport: WSTransport | None = None
        self._number = 0
        self._turn: Turn | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._quiet.append(self)

    def ask(self, intended: float) -> Turn:
        self._number += 1
        turn = self._turn = Turn(self._tenant, intended, time.monotonic())
        body = {"type": "message", "id": f"m-{id(self)}-{self._number}", "text": self._question}
        assert self._transport is not None
        self._transport.send(WSMsgType.TEXT, msgspec.json.encode(body))
        return turn

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        turn = self._turn
        if frame.msg_type != WSMsgType.TEXT or turn is None:
            return
        event = _decode(frame.get_payload_as_bytes())
        if event.type == "reply.delta" and turn.first_s is None:
            turn.first_s = time.monotonic() - turn.intended
        elif event.type == "error":
            turn.problem = event.problem
            self._done(turn)
        elif event.type in ("reply.completed", "reply.failed", "reply.interrupted"):
            turn.problem = event.data.get("problem")
            self._done(turn)

    def _done(self, turn: Turn) -> None:
        turn.over, self._turn = True, None
        self._quiet.append(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()


class Crowd:
    """The conversations of one tenant."""

    def __init__(self, fleet: OwnFleet, tenant: str, key: str, question: str) -> None:
        self._fleet = fleet
        self._tenant, self._key, self._question = tenant, key, question
        self._quiet: deque[Talker] = deque()
        self._talkers: list[Talker] = []

    async def open(self, number: int, agent: str) -> None:
        gate = asyncio.Semaphore(OPENING)
        headers = {"Authorization": f"Bearer {self._key}"}
        limits = httpx2.Limits(max_connections=OPENING)
        async with httpx2.AsyncClient(
            base_url=self._fleet.url, headers=headers, timeout=60, limits=limits
        ) as http:
            await asyncio.gather(*(self._open(http, gate, agent) for _ in range(number)))

    async def _open(self, http: httpx2.AsyncClient, gate: asyncio.Semaphore, agent: str) -> None:
        async with gate:
            while (answer := await http.post("/v1/sessions", json={"agent": agent})).status_code == 503:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
            answer.raise_for_status()
            url = f"{self._fleet.url.replace('http', 'ws', 1)}/v1/sessions/{answer.json()['id']}/ws"
            _, talker = await ws_connect(
                lambda: Talker(self._tenant, self._question, self._quiet),
                url,
                extra_headers={"Authorization": f"Bearer {self._key}"},
                websocket_handshake_timeout=CONNECT_TIMEOUT_S,
            )
            assert isinstance(talker, Talker)
            self._talkers.append(talker)

    def ask(self, intended: float) -> Turn | None:
        """None if all conversations are being answered."""
        return self._quiet.popleft().ask(intended) if self._quiet else None

    def close(self) -> None:
        for talker in self._talkers:
            talker.close()


def arrivals(chance: random.Random, rate_per_s: float, seconds: float) -> list[float]:
    """A Poisson process: when each comes, in seconds from the beginning."""
    times: list[float] = []
    at = chance.expovariate(rate_per_s)
    while at < seconds:
        times.append(at)
        at += chance.expovariate(rate_per_s)
    return times


async def played(ask: Callable[[float], Turn | None], times: Sequence[float]) -> Heard:
    """Asks at those times, and waits until every turn is over or patience ends."""
    turns: list[Turn] = []
    missed, begin = 0, time.monotonic() + 0.05
    for at in times:
        if (wait_s := begin + at - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        turn = ask(begin + at)
        turns += [turn] if turn else []
        missed += turn is None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not all(turn.over for turn in turns):
        await asyncio.sleep(0.05)
    return Heard(turns, missed, times[-1] if times else 0.0)


class Heard:
    """What became of the turns of one span. `missed` were never asked, as nobody was left to ask them."""

    def __init__(self, turns: Sequence[Turn], missed: int, seconds: float) -> None:
        self.turns = turns
        self.missed = missed
        self.seconds = seconds

    def of(self, tenant: str) -> Heard:
        return Heard([turn for turn in self.turns if turn.tenant == tenant], 0, self.seconds)

    def good(self, slo_s: float) -> int:
        return sum(turn.first_s is not None and turn.first_s <= slo_s for turn in self.turns)

    def goodput(self, slo_s: float) -> float:
        """Turns a second whose first words came in time."""
        return self.good(slo_s) / max(self.seconds, 1e-9)

    @property
    def refusals(self) -> list[dict[str, Any]]:
        return [turn.problem for turn in self.turns if turn.problem is not None]

    @property
    def unfinished(self) -> int:
        return sum(not turn.over for turn in self.turns)

    def first_ms(self, percentile: float) -> float:
        firsts = [turn.first_s for turn in self.turns if turn.first_s is not None]
        return 1000 * float(np.percentile(firsts, percentile)) if firsts else float("inf")

    @property
    def generator_lag_ms(self) -> float:
        """99th percentile of how late turns were asked."""
        lags = [turn.late_s for turn in self.turns]
        return 1000 * float(np.percentile(lags, 99)) if lags else 0.0

    def __repr__(self) -> str:
        return (
            f"{len(self.turns)} turns in {self.seconds:.1f} s: {self.good(1.0)} in time, "
            f"{len(self.refusals)} refused, {self.unfinished} unfinished, {self.missed} missed, "
            f"first p50 {self.first_ms(50):.0f} p95 {self.first_ms(95):.0f} ms, "
            f"generator {self.generator_lag_ms:.0f} ms late"
        )
