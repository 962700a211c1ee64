"""The WebSocket door under bytes that no client of ours sends: each is answered as RFC 6455 has it or with a
close, nothing breaks in the loop, nothing stays behind, and a well-behaved neighbour goes on."""

from __future__ import annotations

import asyncio
import json
import os
import socket as sockets_of_the_system
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from serve.sockets.open import Sockets
from serve.sockets.protocol import SocketProtocol
from tests.actors.cluster import FAST, Cluster
from tests.serve import wild_frames as wild
from tests.serve.conftest import Doors
from tests.timing import PATIENCE_S, until

CASES = int(os.environ.get("FLOTILLA_FUZZ_CASES", "150"))
SEED = int(os.environ.get("FLOTILLA_FUZZ_SEED", "0"))
SESSION = "s_fuzz"
PATH = f"/v1/sessions/{SESSION}/ws"
STATUSES = {101, 400, 404, 405, 414, 426, 431, 505}
CODES = {1000, 1002, 1003, 1007, 1008, 1009, 1013, 4401, 4422}
quickly = settings(
    max_examples=CASES,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)


class Counted(SocketProtocol):
    """Says how many bytes it has taken, and when it is over."""

    heard = 0
    lost = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.heard += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True

    @property
    def begun(self) -> bool:
        """Or will not begin by itself."""
        return self._held is None or self.lost or self._wire.state is not OPEN

    @property
    def idle(self) -> bool:
        conversation: Any = self._conversation
        return self.lost or conversation is None or conversation._worker is None


class Door:
    """A gateway's sockets on a real port, before a real host; what breaks is kept in `broken`."""

    def __init__(self) -> None:
        self.broken: list[Any] = []
        self.latest: Counted | None = None
        self.state = SimpleNamespace(connections=set[Any]())

    async def open(self, stack: AsyncExitStack) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.broken.append(context))
        self.cluster = Cluster(script=FAST)
        await self.cluster.add("a")
        stack.push_async_callback(self.cluster.aclose)
        await self.cluster.open(SESSION)
        await self.cluster.open("s_neighbour")
        doors = self.doors = cast(Any, Doors(self.cluster))
        doors.log = SimpleNamespace(error=self._logged)
        self.sockets = Sockets(lambda: doors)
        serving = await asyncio.get_running_loop().create_server(self._made, "127.0.0.1", 0)
        stack.callback(serving.close)
        self.port: int = serving.sockets[0].getsockname()[1]
        self.neighbour = await self.client("s_neighbour")
        self.latest = None

    async def client(self, session: str) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.port}/v1/sessions/{session}/ws"
        return await connect(url, additional_headers={"Authorization": "Bearer dev"}, compression=None)

    def _logged(self, event: str, **more: Any) -> None:
        self.broken.append((event, more))

    def _made(self) -> Counted:
        made = self.latest = Counted(self.sockets, self.state)
        return made

    @property
    def held(self) -> int:
        """Slots that are taken for open sockets."""
        return max((slots.used for slots in self.doors.limits._slots.values()), default=0)

    @property
    def watched(self) -> int:
        return sum(map(len, self.doors.revocations._watches.values()))

    async def settled(self) -> None:
        """Only the neighbour is there, in every book."""
        await until(lambda: {len(self.sockets), len(self.state.connections), self.held, self.watched} == {1})
        assert not self.broken, self.broken
        await self.neighbour.send('{"type": "ping"}')
        async with asyncio.timeout(PATIENCE_S):
            while json.loads(await self.neighbour.recv())["type"] != "pong":
                pass


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def door(runner: asyncio.Runner) -> Iterator[Door]:
    made, stack = Door(), AsyncExitStack()
    runner.run(made.open(stack))
    yield made
    runner.run(made.neighbour.close())
    runner.run(stack.aclose())


# -- one client


async def say(door: Door, greeting: bytes, *pieces: bytes, early: bool = False, reset: bool = False) -> bytes:
    """What the door answers to these bytes until it hangs up, which it does once we have; nothing if we vanish.
    `early` if nobody waits for the conversation to begin."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        await _send(door, writer, greeting, *pieces, early=early)
        if reset:
            _linger(writer, 0)
            return b""
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except TimeoutError:
        raise
    except OSError:  # it was closed over what we still had to say
        return b""
    finally:
        writer.transport.abort()


async def _send(
    door: Door, writer: asyncio.StreamWriter, greeting: bytes, *pieces: bytes, early: bool
) -> None:
    """Until all was heard, and what was heard is done."""
    await until(lambda: door.latest is not None)
    socket, door.latest = cast(Counted, door.latest), None
    writer.write(greeting)
    await until(lambda: socket.lost or socket.heard)
    await until(lambda: early or socket.begun)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    expected = len(greeting) + sum(map(len, pieces))
    await until(lambda: socket.lost or (socket.heard == expected and socket.begun and socket.idle))


def _linger(writer: asyncio.StreamWriter, seconds: int) -> None:
    """With 0 the connection is reset, not closed."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(
        sockets_of_the_system.SOL_SOCKET, sockets_of_the_system.SO_LINGER, struct.pack("ii", 1, seconds)
    )


def check_answer(answer: bytes) -> list[dict[str, Any]]:
    """Asserts that it is HTTP, and after a 101 nothing but frames that a server may send. The events in it."""
    if not answer:
        return []
    head, ended, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert head.startswith(b"HTTP/1.1 ") and ended and status in STATUSES, answer
    return frames_of(rest) if status == 101 else []


def frames_of(data: bytes) -> list[dict[str, Any]]:
    client = Protocol(CLIENT, state=OPEN, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None, client.parser_exc
    found: list[dict[str, Any]] = []
    closed = False
    for frame in cast("list[Frame]", client.events_received()):
        assert not closed, "something comes after the close"
        if frame.opcode is Opcode.TEXT:
            found.append(json.loads(bytes(frame.data)))
            assert isinstance(found[-1]["type"], str)
        elif frame.opcode is Opcode.CLOSE:
            closed = True
            check_close(Close.parse(frame.data))
        else:
            assert frame.opcode is Opcode.PONG
    return found


def check_close(close: Close) -> None:
    """Ours, or the client's own said back."""
    close.check() if close.code != 1005 else None
    assert close.code in CODES or close.code == 1005 or 1000 <= close.code < 5000


def problems(events: list[dict[str, Any]]) -> list[int]:
    return [event["problem"]["status"] for event in events if event["type"] == "error"]


# -- what may come


@seed(SEED)
@quickly
@given(st.data())
def test_no_handshake_breaks_the_door(runner: asyncio.Runner, door: Door, data: st.DataObject) -> None:
    asked = data.draw(wild.handshakes(SESSION))
    answer = runner.run(say(door, asked))
    assert 500 not in problems(check_answer(answer)), answer
    runner.run(door.settled())


@seed(SEED)
@quickly
@given(
    stream=wild.streams,
    cut=st.integers(0, 500),
    manner=st.sampled_from([{}, {}, {"early": True}, {"reset": True}]),
)
def test_no_frames_break_the_door(
    runner: asyncio.Runner, door: Door, *, stream: bytes, cut: int, manner: dict[str, bool]
) -> None:
    pieces = [wild.handshake(PATH), stream[:cut], stream[cut:]]
    answer = runner.run(say(door, *pieces, **manner))
    assert 500 not in problems(check_answer(answer)), answer
    runner.run(door.settled())
