"""A socket that begins, is revoked, falls behind or breaks at the wrong moment, on a transport that is a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from flotilla.core.errors import Unauthenticated
from flotilla.core.limits import LIMITS
from serve import gateway
from serve.principals import Principal
from serve.sockets.protocol import SocketProtocol
from tests.serve.test_sockets import World, message

NOTE = b'5\n{"seq":5,"type":"note.added","data":{"text":"secret"}}'


class Transport:
    """The kernel takes nothing once it is `jammed`."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.unsent = 0
        self.jammed = self.paused = self.closed = False

    def write(self, data: bytes) -> None:
        self.out += data
        self.unsent += len(data) if self.jammed else 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Client:
    """The other end. It sends as long as it is read, as a kernel's buffer would have it."""

    def __init__(self, world: World, key: str = "good") -> None:
        self.transport = Transport()
        self.socket = SocketProtocol(world.sockets, world.state)
        self.socket.connection_made(self.transport)  # type: ignore[arg-type]
        self.socket.data_received(
            b"GET /v1/sessions/s/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer " + key.encode() + b"\r\n\r\n"
        )
        self._read = len(self.transport.out)

    def send(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> bool:
        """False if it is not read."""
        if not self.transport.paused:
            self.socket.data_received(Frame(opcode, data, fin).serialize(mask=True))
        return not self.transport.paused

    def say(self, text: str) -> bool:
        return self.send(Opcode.TEXT, text.encode())

    def jam(self) -> None:
        self.transport.jammed = True
        self.socket.pause_writing()

    def unjam(self) -> None:
        self.transport.jammed, self.transport.unsent = False, 0
        self.socket.resume_writing()

    def got(self) -> list[Frame]:
        wire = Protocol(CLIENT)
        wire.receive_data(bytes(self.transport.out[self._read :]))
        return [event for event in wire.events_received() if isinstance(event, Frame)]

    def codes(self) -> list[int]:
        return [int.from_bytes(f.data[:2], "big") for f in self.got() if f.opcode is Opcode.CLOSE]


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    one = World()
    log: Any = one.sockets.doors.log
    log.error = _unsaid
    yield one


def _unsaid(*_: Any, **__: Any) -> None:
    return None


async def begun(world: World, key: str = "good") -> Client:
    client = Client(world, key)
    await world.until(lambda: world.fleet.watches)
    return client


def gated(world: World) -> asyncio.Event:
    """Nobody knows whose key it is before the event is set."""
    gate, of = asyncio.Event(), world.guards.of

    async def later(credential: str) -> Principal:
        await gate.wait()
        return await of(credential)

    world.guards.of = later  # type: ignore[method-assign]
    return gate


async def test_a_visitor_from_whom_much_is_hidden_goes_on_getting_what_is_not(world: World) -> None:
    """What is not sent is taken all the same: it would fill the window, and nothing would come any more."""
    await begun(world, "visit")
    for _ in range(LIMITS.link_window_items):
        world.fleet.say(NOTE)
    assert world.fleet.watches[0].taken == LIMITS.link_window_items


async def test_what_is_hidden_takes_nothing_for_a_reader_who_is_behind(world: World) -> None:
    client = await begun(world, "visit")
    client.jam()
    world.fleet.say(b'5\n{"seq":5,"type":"reply.started","data":{}}')
    world.fleet.say(NOTE)
    assert world.fleet.watches[0].taken == 0
    client.unjam()
    world.fleet.say(NOTE)
    assert world.fleet.watches[0].taken == 2


async def test_a_revoked_key_says_nothing_more_on_a_socket_that_is_still_being_closed(world: World) -> None:
    client = await begun(world)
    world.fleet.gate.clear()
    for n in range(3):
        client.say(message(f"c-{n}"))
    await asyncio.sleep(0)
    for gone in list(world.guards.revoked):
        gone(Unauthenticated("This key was revoked."))
    client.say(message("late"))
    client.say('{"type": "typing"}')
    world.fleet.gate.set()
    await world.until(lambda: world.fleet.asked)
    await asyncio.sleep(0)
    assert [post.id for post in world.fleet.asked] == ["c-0"]  # it was on its way before
    assert not world.fleet.told and client.codes() == [4401]


async def test_a_key_revoked_while_its_socket_begins_opens_nothing(world: World) -> None:
    describing = asyncio.Event()
    ask = world.fleet.ask

    async def slow(actor: Any, message: Any, call: Any = None) -> Any:
        await describing.wait()
        return await ask(actor, message, call)

    world.fleet.ask = slow  # type: ignore[method-assign]
    client = Client(world)
    await world.until(lambda: world.guards.revoked)
    for gone in list(world.guards.revoked):
        gone(Unauthenticated("This key was revoked."))
    describing.set()
    await world.until(lambda: not world.sockets._spawned)  # type: ignore[reportPrivateUsage]
    assert client.codes() == [4401]
    client.say(message("late"))
    client.socket.connection_lost(None)
    await asyncio.sleep(0)
    assert not world.fleet.asked and world.guards.open == 0 and not world.guards.revoked
    assert all(watch.closed for watch in world.fleet.watches)


async def test_a_beginning_that_fails_half_way_leaves_nothing_and_is_said(world: World) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a bug")

    world.fleet.watch = broken  # type: ignore[method-assign]
    client = Client(world)
    await world.until(client.codes)
    assert client.codes() == [1011]
    assert world.guards.open == 0 and not world.guards.revoked


async def test_one_that_is_cut_off_while_it_begins_leaves_nothing(world: World) -> None:
    gate = gated(world)
    client = Client(world)
    client.transport.closed = True
    client.socket.connection_lost(None)
    gate.set()
    await world.until(lambda: not world.sockets._spawned)  # type: ignore[reportPrivateUsage]
    assert world.guards.open == 0 and not world.guards.revoked and not world.sockets
    assert all(watch.closed for watch in world.fleet.watches)


async def test_one_that_drains_while_it_begins_is_closed_with_1012(world: World) -> None:
    gate = gated(world)
    client = Client(world)
    await world.sockets.drain(0.0, 0.0)
    gate.set()
    await world.until(lambda: not world.sockets._spawned)  # type: ignore[reportPrivateUsage]
    world.fleet.say(NOTE)
    assert client.codes() == [1012]
    client.socket.connection_lost(None)
    assert world.guards.open == 0 and world.fleet.watches[0].closed


async def test_one_socket_that_breaks_does_not_keep_the_others_from_being_told_or_looked_after(
    world: World,
) -> None:
    class Broken:
        heard_at = 0.0
        stuck_at = None

        def __getattr__(self, _: str) -> Any:
            raise RuntimeError("a bug")

    client = await begun(world)
    world.sockets._open = {Broken(), client.socket}  # type: ignore[reportPrivateUsage, assignment]
    client.socket.heard_at = 0.0
    world.sockets.sweep(LIMITS.socket_dead_s + 1)
    assert client.transport.closed
    client.transport.closed = False
    await world.sockets.drain(0.0, 0.0)
    assert client.codes() == [1012]


async def test_a_gateway_that_never_began_has_nothing_to_let_go(world: World) -> None:
    """Serve would not be able to end it if this failed."""
    gateway._go(FastAPI(), world.sockets)  # type: ignore[reportPrivateUsage]
    assert not world.sockets.draining
