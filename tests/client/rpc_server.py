"""The small fleet over gRPC, with the same mischief."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from flotilla.core.errors import FlotillaError, Overloaded, Unauthenticated
from flotilla.rpc import errors
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc.events import packed
from flotilla.rpc.v1_pb2_grpc import ConversationsServicer, add_ConversationsServicer_to_server
from tests.client.server import SmallFleet


class SmallDoor(ConversationsServicer):
    def __init__(self, fleet: SmallFleet) -> None:
        self._fleet = fleet

    async def Open(self, request: Any, context: Any) -> Any:
        await self._check(context)
        name = self._fleet.open(_metadata(context)["idempotency-key"])
        await self._maybe_cut(context)  # it was done, and nobody hears of it
        return pb.Session(id=name, token=self._fleet.visits.issue(name))

    async def Send(self, request: Any, context: Any) -> AsyncGenerator[Any]:
        await self._check(context)
        session = self._fleet.sessions[request.session]
        accepted = session.post(request.id, request.text)
        async for event in self._told(session.follow(accepted["seq"] - 1, 0, accepted["turn"]), context):
            yield event

    async def Follow(self, request: Any, context: Any) -> AsyncGenerator[Any]:
        await self._check(context)
        self._fleet.places.append(f"{request.after}:{request.offset}")
        session = self._fleet.sessions[request.session]
        async for event in self._told(session.follow(request.after, request.offset), context):
            yield event

    async def ListEvents(self, request: Any, context: Any) -> Any:
        await self._check(context)
        page = self._fleet.sessions[request.session].record[request.after :]
        return pb.ListEventsResponse(events=[packed(json.dumps(event).encode()) for event in page])

    async def RenewToken(self, request: Any, context: Any) -> Any:
        await self._check(context, f"/v1/sessions/{request.session}/token")
        return pb.Session(id=request.session, token=self._fleet.visits.renew(request.session))

    async def _told(self, events: AsyncGenerator[dict[str, Any]], context: Any) -> AsyncGenerator[Any]:
        guarded = self._fleet.visits.guarded(events, _metadata(context)["authorization"])
        async for event in self._fleet.mischief.spoilt(guarded):
            await self._maybe_cut(context)
            yield packed(json.dumps(event).encode())
            if self._fleet.mischief.reset:
                (code, message), self._fleet.mischief.reset = self._fleet.mischief.reset, None
                await context.abort(code, message)
        await self._check(context)  # a stream whose token has ended says so

    async def _check(self, context: Any, path: str = "") -> None:
        if not self._fleet.visits.admits(_metadata(context).get("authorization", ""), path):
            await _end(context, Unauthenticated("This key is not known."))
        if self._fleet.mischief.happens(self._fleet.mischief.shed):
            await _end(
                context, Overloaded("Too much at once.", retry_after_s=self._fleet.mischief.retry_after_s)
            )

    async def _maybe_cut(self, context: Any) -> None:
        if self._fleet.mischief.happens(self._fleet.mischief.cut):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def _metadata(context: Any) -> dict[str, str]:
    return dict(context.invocation_metadata())


async def _end(context: Any, error: FlotillaError) -> None:
    problem = error.problem()
    trailers = ((errors.DETAILS, errors.details_of(problem)),)
    await context.abort(errors.code_of(problem.status), errors.message_of(problem), trailers)


@asynccontextmanager
async def serving_rpc(fleet: SmallFleet) -> AsyncIterator[str]:
    """The address of `fleet`'s gRPC, for as long as the context lives."""
    server = grpc.aio.server()
    add_ConversationsServicer_to_server(SmallDoor(fleet), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
