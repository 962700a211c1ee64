"""Each error on a WebSocket names the request that opened it, as problem documents do over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from flotilla.core.errors import NotFound, Overloaded, Unauthenticated
from flotilla.core.ids import is_name
from serve.request_ids import HEADER, RequestIds
from tests.serve.conftest import Gateway
from tests.serve.test_sockets import World, message, running

PATH = "/v1/sessions/s/ws"
KEY = ("Authorization", "Bearer good")
MINE = (HEADER, "mine-1")


@pytest.fixture
async def sockets() -> AsyncGenerator[World]:
    async with running() as one:
        yield one


async def opened(world: World, *headers: tuple[str, str]) -> ClientConnection:
    before = len(world.fleet.watches)
    url = f"ws://127.0.0.1:{world.port}{PATH}"
    ws = await connect(url, additional_headers=[KEY, *headers], compression=None)
    await world.until(lambda: len(world.fleet.watches) > before)
    return ws


async def named(ws: ClientConnection) -> str:
    """The request that the next frame, an error, names."""
    frame: dict[str, Any] = json.loads(await ws.recv())
    assert frame["type"] == "error", frame
    return frame["problem"]["request_id"]


async def test_every_error_of_a_socket_names_the_request_that_opened_it(sockets: World) -> None:
    ws = await opened(sockets, MINE)
    assert ws.response is not None and ws.response.headers[HEADER] == "mine-1"
    await ws.send("no json")
    assert await named(ws) == "mine-1"
    sockets.fleet.refusals["c-1"] = NotFound("It is gone.")
    await ws.send(message("c-1"))
    assert await named(ws) == "mine-1"
    sockets.fleet.overloaded = Overloaded("Full.", retry_after_s=1.0)
    await ws.send(message("c-2"))
    assert await named(ws) == "mine-1"
    sockets.fleet.watches[0].viewer.failed(Overloaded("Too slow.", retry_after_s=1.0))
    assert await named(ws) == "mine-1"


async def test_so_does_what_ends_it(sockets: World) -> None:
    ws = await opened(sockets, MINE)
    for gone in list(sockets.guards.revoked):
        gone(Unauthenticated("This key was revoked."))
    assert await named(ws) == "mine-1"
    url = f"ws://127.0.0.1:{sockets.port}/v1/sessions/unknown/ws"
    ws = await connect(url, additional_headers=[KEY, MINE], compression=None)
    assert await named(ws) == "mine-1"


@pytest.mark.parametrize("given", [[], [""], ["no name"], ["ü"], ["x" * 200]])
async def test_one_is_made_where_none_came_that_is_a_name(sockets: World, given: list[str]) -> None:
    ws = await opened(sockets, *((HEADER, value) for value in given))
    assert ws.response is not None
    told = ws.response.headers[HEADER]
    await ws.send("no json")
    assert await named(ws) == told and is_name(told) and told.startswith("req_")


async def test_of_two_the_first_counts(sockets: World) -> None:
    ws = await opened(sockets, MINE, (HEADER, "mine-2"))
    await ws.send("no json")
    assert await named(ws) == "mine-1"


async def test_a_handshake_that_is_refused_has_its_id_too(sockets: World) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{sockets.port}/v1/nothing", additional_headers=[KEY, MINE])
    assert refused.value.response.headers[HEADER] == "mine-1"


@pytest.mark.parametrize("told", [True, False])
async def test_an_accepted_handshake_has_it_whatever_the_server_adds(told: bool) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "headers": []})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "headers": [(b"x-request-id", b"mine-1")]}
    await RequestIds(app, told=told)(scope, receive, send)
    assert sent[0]["headers"] == [(b"x-request-id", b"mine-1")]


@pytest.mark.parametrize("session", ["theirs", "unknown"])
async def test_the_same_without_a_proxy_in_front(gateway: Gateway, session: str) -> None:
    name = await gateway.session() if session == "theirs" else session
    headers = [("Authorization", "Bearer dev"), MINE]
    async with connect(f"ws://{gateway.address}/v1/sessions/{name}/ws", additional_headers=headers) as ws:
        assert ws.response is not None and ws.response.headers[HEADER] == "mine-1"
        if session == "theirs":
            assert json.loads(await ws.recv())["type"] == "session.opened"
            await ws.send("no json")
        assert await named(ws) == "mine-1"
