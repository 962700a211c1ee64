"""What fuzzing and reading found at the WebSocket door, one by one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from flotilla.core.errors import Unauthenticated
from flotilla.core.limits import LIMITS
from serve.sockets.protocol import SocketProtocol
from tests.serve import wild_frames as wild
from tests.serve.test_sockets import World, close_code, message, running

PATH = "/v1/sessions/s/ws"


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with running() as one:
        yield one


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and says whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reading, self.closed = True, False

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def connected(world: World, greeting: bytes = b"") -> tuple[SocketProtocol, Wire]:
    socket, wire = SocketProtocol(world.sockets, world.state), Wire()
    socket.connection_made(wire)
    socket.data_received(greeting or wild.handshake(PATH, credential="good"))
    return socket, wire


async def begun(world: World) -> tuple[SocketProtocol, Wire]:
    before = len(world.fleet.watches)
    made = connected(world)
    await world.until(lambda: len(world.fleet.watches) > before)
    return made


@pytest.mark.parametrize("path", ["//[/v1/sessions/x/ws", "http://[::1/v1/sessions/x/ws"])
async def test_what_is_no_url_is_not_there(world: World, path: str) -> None:
    _, wire = connected(world, wild.handshake(path))
    assert wire.written.startswith(b"HTTP/1.1 404 ") and wire.closed


async def test_of_two_keys_the_first_counts(world: World) -> None:
    asked = wild.handshake(PATH, credential="good", headers=[("Authorization", "Bearer bad")])
    _, wire = connected(world, asked)
    await world.until(lambda: world.fleet.watches)
    assert wire.written.startswith(b"HTTP/1.1 101 ") and b"4401" not in wire.written


@pytest.mark.parametrize("place", ["1:" + "9" * 29, "9" * 30, "1:" + "9" * 19])
async def test_a_place_beyond_64_bits_is_refused(world: World, place: str) -> None:
    ws = await world.connect(f"{PATH}?after={place}")
    assert json.loads(await ws.recv())["problem"]["field"] == "after"
    assert await close_code(ws) == 4422


async def test_fragments_without_end_cost_neither_time_nor_memory(world: World) -> None:
    socket, _ = await begun(world)
    socket.data_received(wild.frame(wild.TEXT, b'{"type": "message", "id": "c", "text": "', fin=False))
    started = time.process_time()
    for _ in range(20):
        socket.data_received(wild.frame(wild.CONT, fin=False) * 2_000)
    socket.data_received(wild.frame(wild.CONT, b'Hello"}'))
    assert time.process_time() - started < 5.0  # each copied all before it
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].text == "Hello"


async def test_nothing_is_heard_of_a_revoked_key_any_more(world: World) -> None:
    socket, wire = await begun(world)
    world.guards.revoked[0](Unauthenticated("The key was revoked."))
    socket.data_received(wild.frame(wild.TEXT, message("late").encode()))
    socket.data_received(wild.frame(wild.PING, b"still there"))
    assert b"still there" in wire.written  # the connection is open until the client says goodbye
    socket.data_received(wild.frame(wild.CLOSE))
    assert wire.closed and not world.fleet.asked


async def test_what_was_heard_in_the_same_breath_as_the_goodbye_is_done(world: World) -> None:
    socket, wire = await begun(world)
    socket.data_received(wild.frame(wild.TEXT, message("last").encode()) + wild.frame(wild.CLOSE))
    assert wire.closed
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].id == "last"


async def test_who_does_not_read_is_not_read(world: World) -> None:
    socket, wire = await begun(world)
    socket.pause_writing()
    assert not wire.reading
    socket.hold()
    socket.resume_writing()
    assert not wire.reading  # for the other reason
    socket.go_on()
    assert wire.reading


async def test_who_is_not_known_yet_is_not_read_on(world: World) -> None:
    socket, wire = connected(world)
    socket.data_received(wild.frame(wild.TEXT, message("early").encode()))
    assert not wire.reading
    await world.until(lambda: world.fleet.asked)
    assert wire.reading and world.fleet.asked[0].id == "early"


async def test_who_is_turned_away_is_read_until_it_says_goodbye(world: World) -> None:
    socket, wire = connected(world, wild.handshake(PATH, credential="bad"))
    socket.data_received(wild.frame(wild.TEXT, message("early").encode()))
    await world.until(lambda: b"error" in wire.written)
    assert wire.reading and not wire.closed
    socket.data_received(wild.frame(wild.CLOSE))
    assert wire.closed and not world.fleet.asked


async def test_a_bug_at_the_beginning_leaves_no_socket_that_nobody_listens_to(world: World) -> None:
    async def broken(_: str) -> Any:
        raise RuntimeError("a bug")

    doors: Any = world.sockets.doors
    logged: list[str] = []

    def log(event: str, **_: Any) -> None:
        logged.append(event)

    doors.keys, doors.log = SimpleNamespace(of=broken), SimpleNamespace(error=log)
    assert await close_code(await world.connect()) == 1011
    assert logged == ["socket.not_begun"]
    await world.until(lambda: not world.sockets)


async def test_a_client_that_vanishes_without_a_word_is_noticed_and_all_is_given_back(world: World) -> None:
    socket, wire = await begun(world)
    now = world.sockets.now()
    world.sockets.sweep(now + LIMITS.socket_ping_after_s + 1)
    assert bytes(Frame(Opcode.PING, b"").serialize(mask=False)) in bytes(wire.written)
    aborted: list[bool] = []
    wire.abort = lambda: aborted.append(True)  # type: ignore[method-assign]
    world.sockets.sweep(now + LIMITS.socket_dead_s + 1)
    assert aborted
    socket.connection_lost(None)
    assert not len(world.sockets) and not world.guards.open and not world.guards.revoked
    assert all(watch.closed for watch in world.fleet.watches)


async def test_one_byte_at_a_time_is_a_message_too(world: World) -> None:
    socket, _ = await begun(world)
    for byte in wild.frame(wild.TEXT, message("slow").encode()):
        socket.data_received(bytes([byte]))
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].id == "slow"
