"""The places from which a client asks for an SSE stream, right and wrong: each is answered with all that came
behind it, or with a problem that names its field, and nothing stays behind.
FLOTILLA_FUZZ_CASES makes it longer, FLOTILLA_FUZZ_SEED another one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import example, given, seed
from hypothesis import strategies as st

from tests.actors.cluster import FAST, Cluster
from tests.serve.conftest import Gateway, _serving
from tests.serve.test_socket_fuzz import PATIENCE_S, SEED, quickly, until
from tests.serve.wild_frames import places

QUESTION = {"id": "m-1", "text": "What does the Silver card cost?"}
PASSING = {"reply.delta", "reply.rewound"}
PLACE = re.compile(r"(\d{1,18})(?::\d{0,18})?")


class Door:
    """A gateway on a real port and a session with one turn; what breaks is kept in `broken`."""

    def __init__(self) -> None:
        self.broken: list[Any] = []

    async def open(self, stack: AsyncExitStack) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.broken.append(context))
        self.gateway: Gateway = await stack.enter_async_context(_serving(Cluster(script=FAST)))
        path = f"/v1/sessions/{await self.gateway.session()}"
        told = await self.gateway.desk.post(f"{path}/messages?wait=true", json=QUESTION)
        self.path, self.last = f"{path}/stream", int(told.json()["seq"])

    async def asked(self, query: str, header: bytes | None) -> tuple[int, bytes]:
        """The status, and the problem or, as far as any come, the events."""
        host, port = self.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request(self.path + query, header))
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ")[1])
                return status, await self._body(reader, head, seq_of(query, header))
        finally:
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, head: bytes, seq: int | None) -> bytes:
        if length := re.search(rb"content-length: (\d+)", head):
            return await reader.readexactly(int(length[1]))
        if seq is None or seq >= self.last:
            return b""
        events = await reader.readuntil(b"id: %d\ndata: " % self.last)
        return events + await reader.readuntil(b"\n\n")

    async def check(self, query: str, header: bytes | None) -> None:
        seq = seq_of(query, header)
        status, said = await self.asked(query, header)
        if seq is None or seq > self.last:
            problem = json.loads(said)
            assert (status, problem["status"], problem["field"]) == (422, 422, field_of(header)), said
            assert problem["next"] and field_of(header) in problem["detail"], said
        else:
            assert status == 200, said
            assert durable(said) == list(range(seq + 1, self.last + 1)), said
        await self.settled()

    async def settled(self) -> None:
        """Nothing is open any more, in any book."""
        doors = self.gateway.app.state.doors
        await until(lambda: not any(slots.used for slots in doors.limits._slots.values()))
        await until(lambda: not any(map(len, doors.revocations._watches.values())))
        assert not self.broken, self.broken


def request(path: str, header: bytes | None) -> bytes:
    last = b"" if header is None else b"Last-Event-ID: " + header + b"\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev\r\n".encode() + last + b"\r\n"


def given_by(header: bytes | None) -> str:
    """As the gateway reads it; empty counts as not given."""
    return (header or b"").strip(b" \t").decode("latin-1")


def field_of(header: bytes | None) -> str:
    return "Last-Event-ID" if given_by(header) else "after"


def seq_of(query: str, header: bytes | None) -> int | None:
    """The `seq` that is asked for; none if it can't be read."""
    found = dict(parse_qsl(query.partition("#")[0].removeprefix("?"), keep_blank_values=True))
    place = given_by(header) or found.get("after", "")
    if not place:
        return 0
    read = PLACE.fullmatch(place)
    return int(read[1]) if read else None


def durable(stream: bytes) -> list[int]:
    events = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [event["seq"] for event in events if event["type"] not in PASSING]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def door(runner: asyncio.Runner) -> Iterator[Door]:
    made, stack = Door(), AsyncExitStack()
    runner.run(made.open(stack))
    yield made
    runner.run(stack.aclose())


near = st.integers(-2, 12).map(str)
numbers = (
    near | st.integers(-(2**70), 2**70).map(str) | st.sampled_from(["007", "+1", "1_0", "1e3", "9" * 18])
)
pairs = st.builds("{}:{}".format, numbers, numbers | st.sampled_from(["", "9" * 19, "x"]))
odd = st.sampled_from(["", " ", ":", "1:2:3", ":1", "1 ", "\t3", "٣", "²", "1,2", "null", "x" * 300])
words = st.one_of(near, numbers, pairs, odd, st.text(max_size=12))
bytes_ = st.lists(st.integers(0x20, 0xFF).filter(lambda byte: byte != 0x7F), max_size=12).map(bytes)
queries = st.one_of(
    words.map(lambda word: f"?after={quote(word, safe=':', errors='replace')}"),
    places.map(lambda query: quote(query, safe="?&=%:;#")),
)
headers = st.one_of(st.none(), near.map(str.encode), pairs.map(str.encode), bytes_)


@seed(SEED)
@quickly
@example(query="?after=1", header=b"99")
@example(query="?after=99", header=b"1")
@example(query="?after=x", header=b"\xff\xfe")
@given(query=queries, header=headers)
def test_every_place_has_its_events_or_a_problem(
    runner: asyncio.Runner, door: Door, query: str, header: bytes | None
) -> None:
    runner.run(door.check(query, header))
