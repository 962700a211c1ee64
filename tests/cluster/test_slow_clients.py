"""Clients that are slow, or silent, on purpose or not: each is sent away in time, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import psutil

from flotilla.core.limits import LIMITS
from tests.fleet import TestFleet

MANY = 100
# Beyond the time that a client has: a busy machine, and HAProxy's own rounding.
SPARE_S = 6.0
HEAD = "POST /v1/sessions HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer dev\r\nContent-Type: application/json\r\n"


async def nothing_more() -> AsyncIterator[bytes]:
    return
    yield b""


async def dripping(drop: str) -> AsyncIterator[bytes]:
    number = 0
    while True:
        await asyncio.sleep(0.5)
        number += 1
        yield drop.format(number).encode()


async def talked(
    fleet: TestFleet, first: str, then: AsyncIterator[bytes], *, to_the_end: bool = False
) -> tuple[bytes, float]:
    """The answer, `to_the_end` of the connection or not, and how long that took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
    writer.write(first.encode())
    dropping = asyncio.create_task(_drop(writer, then))
    try:
        async with asyncio.timeout(LIMITS.client_silent_s):
            answer = await (reader.read() if to_the_end else _answer(reader))
    except ConnectionError:
        answer = b""
    finally:
        dropping.cancel()
        writer.close()
    return answer, time.monotonic() - began


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.partition(b":")[2]))


async def _drop(writer: asyncio.StreamWriter, then: AsyncIterator[bytes]) -> None:
    async for drop in then:
        writer.write(drop)


def problem(answer: bytes) -> dict[str, object]:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def connected(fleet: TestFleet) -> int:
    """Connections that the ingress holds open."""
    return sum(
        c.status == psutil.CONN_ESTABLISHED and c.laddr.port == fleet.port
        for process in fleet.local.processes()
        for c in process.net_connections("tcp")
    )


async def test_a_head_that_does_not_come_is_not_waited_for(fleet: TestFleet) -> None:
    """Slowloris, with and without drops, and connections on which nothing is ever said; the others are served
    meanwhile."""
    before = connected(fleet)
    slow = [talked(fleet, HEAD, nothing_more(), to_the_end=True) for _ in range(MANY)]
    slow += [talked(fleet, HEAD, dripping("X-{}: a\r\n"), to_the_end=True) for _ in range(MANY)]
    slow += [talked(fleet, "", nothing_more(), to_the_end=True) for _ in range(MANY)]
    talking = [asyncio.create_task(one) for one in slow]
    assert await asyncio.to_thread(lambda: fleet.http.get("/healthz").status_code) == 200
    ends = await asyncio.gather(*talking)
    assert all(answer == b"" or answer.startswith(b"HTTP/1.1 408") for answer, _ in ends)
    assert max(took_s for _, took_s in ends) < LIMITS.request_head_s + SPARE_S
    assert await settled(fleet, before + 1) <= before + 1  # that of the fixture's own client


async def test_a_body_that_does_not_come_is_not_waited_for(fleet: TestFleet) -> None:
    before = connected(fleet)
    body = f"{HEAD}Content-Length: 200\r\n\r\n" + '{"agent": "bank"'
    slow = [talked(fleet, body, nothing_more()) for _ in range(MANY)]
    slow += [talked(fleet, body, dripping(" ")) for _ in range(MANY)]
    ends = await asyncio.gather(*slow)
    for answer, took_s in ends:
        assert answer.startswith(b"HTTP/1.1 408"), answer[:100]
        assert problem(answer)["field"] == "body" and took_s < LIMITS.body_s + SPARE_S
    assert await settled(fleet, before) <= before


async def test_a_body_in_chunks_is_refused_once_it_is_too_large(fleet: TestFleet) -> None:
    chunk = "8000\r\n" + " " * 0x8000 + "\r\n"
    chunks = LIMITS.body_bytes_max // 0x8000 + 2
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    answer, _ = await talked(fleet, head + chunk * chunks, nothing_more())
    assert answer.startswith(b"HTTP/1.1 413") and problem(answer)["field"] == "body"


def test_the_ingress_has_the_time_outs_of_the_limits(fleet: TestFleet) -> None:
    (config,) = (fleet.local.sockets / "h").rglob("haproxy.cfg.flotilla")
    lines = [line.strip() for line in config.read_text().splitlines()]
    assert f"timeout http-request {LIMITS.request_head_s}s" in lines
    assert f"timeout client {LIMITS.client_silent_s}s" in lines
    assert any(line.startswith("timeout http-keep-alive") for line in lines)


async def settled(fleet: TestFleet, wanted: int) -> int:
    """Connections left once no more than `wanted` are, or patience ends."""
    until = time.monotonic() + SPARE_S
    while (left := connected(fleet)) > wanted and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return left
