"""WebSockets as a gateway serves them: a real client and real connections, and what is behind them made up."""

from __future__ import annotations

import asyncio
import json
import socket as sockets_of_the_system
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import FlotillaError, LimitReached, NotFound, Overloaded, Unauthenticated
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.scopes import OF_A_TENANT, OF_A_VISITOR
from flotilla.views import events
from serve.principals import Principal
from serve.sockets.open import Sockets
from serve.sockets.protocol import SocketProtocol


class Watch:
    def __init__(self, viewer: Any, after: int) -> None:
        self.viewer, self.after = viewer, after
        self.taken = 0
        self.closed = False

    def take(self) -> None:
        self.taken += 1

    def close(self) -> None:
        self.closed = True


class Fleet:
    """Takes what is asked, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.told: list[Any] = []
        self.watches: list[Watch] = []
        self.refusals: dict[str, FlotillaError] = {}
        self.overloaded: FlotillaError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, actor: ActorId, message: Any, call: Any = None) -> Any:
        if isinstance(message, signals.Describe):
            if actor.name == "unknown":
                raise NotFound("There is no such session.")
            return SimpleNamespace(seq=3)
        return await self.ask_checked(actor, message)

    def check(self, actor: ActorId) -> None:
        if self.overloaded is not None:
            raise self.overloaded

    async def ask_checked(self, actor: ActorId, message: Any, call: Any = None) -> Any:
        await self.gate.wait()
        if refusal := self.refusals.get(getattr(message, "id", "")):
            raise refusal
        self.asked.append(message)
        return signals.Accepted(seq=4, turn="t")

    def tell(self, actor: ActorId, message: Any) -> None:
        self.told.append(message)

    def watch(self, actor: ActorId, after: int, offset: int, viewer: Any) -> Watch:
        self.watches.append(Watch(viewer, after))
        return self.watches[-1]

    def say(self, frame: bytes) -> None:
        for watch in self.watches:
            watch.viewer.frame(events.parse_frame(frame))


class Guards:
    """Keys, limits and revocations of a gateway."""

    def __init__(self) -> None:
        self.open = 0
        self.revoked: list[Callable[[FlotillaError], None]] = []
        self.full = False

    async def of(self, credential: str) -> Principal:
        if credential == "good":
            return Principal(tenant="t", scopes=OF_A_TENANT, key="k")
        if credential == "visit":
            return Principal(tenant="t", scopes=OF_A_VISITOR, key="k", session="s")
        raise Unauthenticated("This key is not known.")

    async def message(self, who: Principal) -> None:
        if self.full:
            raise LimitReached("Too many messages.", retry_after_s=2.0)

    async def socket(self, who: Principal) -> Callable[[], None]:
        self.open += 1

        def leave() -> None:
            self.open -= 1

        return leave

    def watch(self, who: Principal, gone: Callable[[FlotillaError], None]) -> Callable[[], None]:
        self.revoked.append(gone)
        return lambda: self.revoked.remove(gone)


class Traces:
    @contextmanager
    def call(self, name: str, actor: ActorId):
        yield None


class World:
    """One gateway's sockets, with the hands of their clock."""

    def __init__(self) -> None:
        self.fleet, self.guards = Fleet(), Guards()
        doors: Any = SimpleNamespace(
            fleet=self.fleet,
            keys=self.guards,
            limits=self.guards,
            revocations=self.guards,
            traces=Traces(),
            log=SimpleNamespace(error=print),
            clock=SystemClock(),
        )
        self.sockets = Sockets(lambda: doors)
        self.state = SimpleNamespace(connections=set[Any]())
        self.port = 0

    def connect(self, path: str = "/v1/sessions/s/ws", key: str = "good", **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"ws://127.0.0.1:{self.port}{path}"
        return connect(url, additional_headers=headers, compression=None, **options)

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.001)

    async def connected(self, **options: Any) -> ClientConnection:
        before = len(self.fleet.watches)
        ws = await self.connect(**options)
        await self.until(lambda: len(self.fleet.watches) > before)
        return ws


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with running() as one:
        yield one


@asynccontextmanager
async def running() -> AsyncGenerator[World]:
    world = World()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SocketProtocol(world.sockets, world.state), "127.0.0.1", 0)
    world.port = server.sockets[0].getsockname()[1]
    yield world
    server.close()


async def close_code(ws: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await ws.recv()
    assert ws.close_code is not None
    return ws.close_code


async def problem(ws: ClientConnection) -> dict[str, Any]:
    frame = json.loads(await ws.recv())
    assert frame["type"] == "error", frame
    return frame | frame["problem"]


def message(id: str, text: str = "Hello") -> str:
    return json.dumps({"type": "message", "id": id, "text": text})


async def test_messages_come_in_in_their_order_and_events_go_out(world: World) -> None:
    ws = await world.connected(path="/v1/sessions/s/ws?after=2")
    assert world.fleet.watches[0].after == 2
    for n in range(20):
        await ws.send(message(f"c-{n}"))
    await world.until(lambda: len(world.fleet.asked) == 20)
    assert [post.id for post in world.fleet.asked] == [f"c-{n}" for n in range(20)]
    world.fleet.say(events.delta_frame(4, "t", 0, "Grüße 👋"))
    assert json.loads(await ws.recv())["data"] == {"offset": 0, "text": "Grüße 👋"}
    assert world.fleet.watches[0].taken == 1


async def test_what_is_said_before_the_conversation_has_begun_is_not_lost(world: World) -> None:
    ws = await world.connect()
    await ws.send(message("early"))
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].id == "early"


async def test_an_interrupt_a_ping_and_typing(world: World) -> None:
    ws = await world.connected(key="visit")
    await ws.send('{"type": "ping"}')
    assert json.loads(await ws.recv()) == {"type": "pong"}
    await ws.send('{"type": "typing"}')
    await ws.send('{"type": "interrupt"}')
    await world.until(lambda: world.fleet.asked)
    assert isinstance(world.fleet.asked[0], signals.Interrupt)
    assert world.fleet.told == [signals.Typing(visitor=True)]


async def test_typing_goes_on_once_a_second_however_often_it_is_said(world: World) -> None:
    ws = await world.connected(key="visit")
    for _ in range(5):
        await ws.send('{"type": "typing"}')
    await ws.send('{"type": "ping"}')
    assert json.loads(await ws.recv()) == {"type": "pong"}
    assert len(world.fleet.told) == 1


async def test_typing_that_nobody_can_be_told_of_leaves_the_socket_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[FlotillaError] = []

    def full(*_: Any) -> None:
        raise Overloaded("Too much waits to be sent.")

    def counted(_: ActorId, error: FlotillaError) -> None:
        lost.append(error)

    monkeypatch.setattr(world.fleet, "tell", full)
    monkeypatch.setattr(world.fleet, "lost", counted, raising=False)
    ws = await world.connected(key="visit")
    await ws.send('{"type": "typing"}')
    await ws.send('{"type": "ping"}')
    assert json.loads(await ws.recv()) == {"type": "pong"}
    assert len(lost) == 1


async def test_a_refused_message_is_named_and_the_socket_stays_open(world: World) -> None:
    ws = await world.connected()
    world.fleet.refusals["c-1"] = LimitReached("Too many.", retry_after_s=1.0)
    await ws.send(message("c-1"))
    refused = await problem(ws)
    assert refused["id"] == "c-1" and refused["status"] == 429 and refused["retry_after_s"] == 1.0
    world.guards.full = True
    await ws.send(message("c-2"))
    assert (await problem(ws))["id"] == "c-2"
    world.guards.full = False
    world.fleet.overloaded = Overloaded("Full.", retry_after_s=2.0)
    await ws.send(message("c-3"))
    refused = await problem(ws)
    assert refused["id"] == "c-3" and refused["status"] == 503 and refused["retry_after_s"] == 2.0
    world.fleet.overloaded = None
    await ws.send(message("c-4"))
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].id == "c-4"


@pytest.mark.parametrize(
    "frame", [b"\x00binary", "no json", '{"type": "nonsense"}', '{"type": "message", "id": 3}', "[]"]
)
async def test_what_cannot_be_read_is_said_and_five_in_a_row_close(world: World, frame: str | bytes) -> None:
    ws = await world.connected()
    for _ in range(LIMITS.unreadable_frames_max - 1):
        await ws.send(frame)
        assert (await problem(ws))["status"] == 422
    await ws.send('{"type": "ping"}')
    assert json.loads(await ws.recv()) == {"type": "pong"}
    for _ in range(LIMITS.unreadable_frames_max):
        await ws.send(frame)
    assert await close_code(ws) == 1008


async def test_text_in_fragments_is_one_message(world: World) -> None:
    ws = await world.connected()
    text = message("c-1", "Ä" * 1000)

    async def pieces() -> AsyncGenerator[str]:
        for at in range(0, len(text), 100):
            yield text[at : at + 100]

    await ws.send(pieces())
    await world.until(lambda: world.fleet.asked)
    assert world.fleet.asked[0].text == "Ä" * 1000


async def test_text_that_is_no_utf8_closes(world: World) -> None:
    ws = await world.connected()
    await ws.send(b"\xff\xfe", text=True)
    assert await close_code(ws) == 1007


async def test_a_frame_too_large_is_an_error_and_one_beyond_all_bounds_closes(world: World) -> None:
    ws = await world.connected()
    await ws.send(message("c-1", "x" * (LIMITS.message_bytes_max + 1)))
    refused = await problem(ws)
    assert refused["status"] == 413 and refused["id"] == "c-1"
    await ws.send("x" * (LIMITS.body_bytes_max + 1))
    assert (await problem(ws))["status"] == 413
    await ws.send("x" * (2 * LIMITS.body_bytes_max + 1))
    assert await close_code(ws) == 1009


@pytest.mark.parametrize(
    ("path", "key", "code"),
    [
        ("/v1/sessions/s/ws", "bad", 4401),
        ("/v1/sessions/s/ws", "", 4401),
        ("/v1/sessions/other/ws", "visit", 4401),
        ("/v1/sessions/unknown/ws", "good", 4422),
        ("/v1/sessions/s/ws?after=99", "good", 4422),
        ("/v1/sessions/s/ws?after=x", "good", 4422),
        ("/v1/sessions/a%20b/ws", "good", 4422),
    ],
)
async def test_who_is_turned_away_hears_why(world: World, path: str, key: str, code: int) -> None:
    ws = await world.connect(path=path, key=key)
    said = await problem(ws)
    assert said["detail"] and said["title"]
    assert await close_code(ws) == code
    await world.until(lambda: not world.state.connections)
    assert not world.sockets and not world.fleet.watches and world.guards.open == 0


async def test_a_token_may_come_as_a_subprotocol(world: World) -> None:
    ws = await world.connected(key="", subprotocols=["bearer.visit"])
    assert ws.subprotocol == "bearer.visit"


async def test_there_is_no_socket_elsewhere(world: World) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await world.connect(path="/v1/nothing")
    assert refused.value.response.status_code == 404


async def test_nothing_is_left_of_a_socket_that_was_closed(world: World) -> None:
    ws = await world.connected()
    assert len(world.sockets) == world.guards.open == len(world.guards.revoked) == 1
    await ws.close()
    await world.until(lambda: not world.sockets)
    assert world.fleet.watches[0].closed
    assert world.guards.open == 0 and not world.guards.revoked and not world.state.connections


async def test_a_visitor_sees_no_notes_and_hears_that_it_is_over(world: World) -> None:
    ws = await world.connected(key="visit")
    world.fleet.say(b'5\n{"seq":5,"type":"note.added","data":{"text":"secret"}}')
    world.fleet.say(b'6\n{"seq":6,"type":"session.closed","data":{}}')
    assert json.loads(await ws.recv())["type"] == "session.closed"
    assert await close_code(ws) == 1000


async def test_a_revoked_key_closes_its_sockets(world: World) -> None:
    ws = await world.connected()
    for gone in list(world.guards.revoked):
        gone(Unauthenticated("This key was revoked."))
    assert (await problem(ws))["status"] == 401
    assert await close_code(ws) == 4401


async def test_a_draining_gateway_closes_with_1012_behind_what_was_said_and_takes_nobody(
    world: World,
) -> None:
    open_ = [await world.connected() for _ in range(5)]
    world.fleet.say(events.delta_frame(4, "t", 0, "the last"))
    await world.sockets.drain(0.0, 0.1)
    for ws in open_:
        assert json.loads(await ws.recv())["data"]["text"] == "the last"
        assert await close_code(ws) == 1012
    with pytest.raises(InvalidStatus) as refused:
        await world.connect()
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "1"
    await world.until(lambda: not world.sockets)


async def test_the_dead_are_pinged_and_then_cut_off(world: World) -> None:
    ws = await world.connected()
    now = world.sockets.now()
    pings: list[bool] = []
    (open_,) = world.state.connections
    ping = open_.ping
    world.sockets._open = {Pinged(open_, pings)}  # type: ignore[reportPrivateUsage, assignment]
    world.sockets.sweep(now + LIMITS.socket_ping_after_s - 1)
    assert not pings
    world.sockets.sweep(now + LIMITS.socket_ping_after_s + 1)
    assert pings
    world.sockets._open = {open_}  # type: ignore[reportPrivateUsage]
    ping()
    await world.until(lambda: open_.heard_at > now)  # the client's library has answered
    world.sockets.sweep(open_.heard_at + LIMITS.socket_dead_s + 1)
    assert await close_code(ws) == 1006


class Pinged:
    """A socket whose pings are counted."""

    def __init__(self, socket: Any, pings: list[bool]) -> None:
        self._socket, self._pings = socket, pings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def ping(self) -> None:
        self._pings.append(True)


async def test_a_reader_that_does_not_read_is_let_go_with_what_it_needs_to_come_back(world: World) -> None:
    small = sockets_of_the_system.socket()
    small.setsockopt(sockets_of_the_system.SOL_SOCKET, sockets_of_the_system.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", world.port))
    ws = await world.connected(sock=small, max_queue=1)
    (open_,) = world.state.connections
    taken = 0
    while open_.stuck_at is None:
        taken += 1
        world.fleet.say(events.delta_frame(4, "t", 0, "x" * 10_000))
        await asyncio.sleep(0)
    assert world.fleet.watches[0].taken < taken  # the host is told that it is behind
    world.sockets.sweep(open_.stuck_at + LIMITS.socket_stuck_s + 1)
    last: dict[str, Any] = {}
    with pytest.raises(ConnectionClosed):
        while True:
            last = json.loads(await ws.recv())
    assert last["type"] == "error" and last["problem"]["retry_after_s"] and ws.close_code == 1013


async def test_who_says_too_much_at_once_is_not_read_until_it_is_done(world: World) -> None:
    ws = await world.connected()
    world.fleet.gate.clear()
    count = 3 * LIMITS.socket_inbox_max
    sending = asyncio.create_task(_send_all(ws, count))
    await asyncio.sleep(0.05)
    world.fleet.gate.set()
    await sending
    await world.until(lambda: len(world.fleet.asked) == count)
    assert [post.id for post in world.fleet.asked] == [f"c-{n}" for n in range(count)]


async def _send_all(ws: ClientConnection, count: int) -> None:
    for n in range(count):
        await ws.send(message(f"c-{n}"))
