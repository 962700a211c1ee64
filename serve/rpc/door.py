"""The gateway's methods for gRPC. Serve calls them by the RPC's bare name, with the request as it came."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import grpc
import msgspec
from fastapi import FastAPI
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from flotilla.core.errors import FlotillaError, Forbidden, Problem
from flotilla.rpc import errors
from serve.doors import Doors
from serve.rpc import conversations, health, inside, knowledge, models
from serve.rpc.calls import Unary
from serve.rpc.reading import read
from serve.rpc.servicers import Incoming

UNARY = conversations.UNARY | knowledge.UNARY | models.UNARY
STREAMS = conversations.STREAMS | models.STREAMS | health.STREAMS


class Context(Protocol):
    """What is used of Serve's `RayServegRPCContext`."""

    def invocation_metadata(self) -> Any: ...
    def peer(self) -> str: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


class RpcDoor:
    """Mixed into the gateway, whose `app` is the application behind all doors.

    An error is set on the context and nothing is raised: Serve sends the details of those calls only that end
    well for it.
    """

    app: FastAPI

    async def _call(self, incoming: Incoming, grpc_context: Context) -> Message:
        try:
            self._check_peer(grpc_context)
            if incoming.method in health.DIRECT:
                request, answer = health.DIRECT[incoming.method]
                return await answer(self.app, read(request, incoming.body))
            return await self._over_http(UNARY[incoming.method], incoming.body, grpc_context)
        except Exception as error:
            _refuse(grpc_context, self._problem(incoming, error))
            return Empty()

    async def _over_http(self, unary: Unary, body: bytes, context: Context) -> Message:
        http = unary.http(read(unary.request, body, unary.bytes_max))
        answer = await inside.request(self.app, http, context.invocation_metadata(), context.peer())
        if answer.status >= 400:
            _refuse(context, msgspec.json.decode(answer.body, type=Problem), answer.told())
            return Empty()
        context.set_trailing_metadata(answer.told())
        return unary.answer(json.loads(answer.body))

    async def _stream(self, incoming: Incoming, grpc_context: Context) -> AsyncGenerator[Message]:
        stream = STREAMS[incoming.method]
        connection = inside.connection(self.app, grpc_context.invocation_metadata(), grpc_context.peer())
        try:
            self._check_peer(grpc_context)
            request = read(stream.request, incoming.body)
            async with aclosing(stream.events(connection, request)) as events:
                async for event in events:
                    yield event
            grpc_context.set_trailing_metadata(inside.standings(connection))
        except Exception as error:
            _refuse(grpc_context, self._problem(incoming, error), inside.standings(connection))
            if not self._doors.settings.ha_proxy:
                # Serve's own proxy hears of the context with the next message alone: an empty one.
                yield Empty()

    def _check_peer(self, context: Context) -> None:
        """Serve's gRPC servers listen on every address, whatever it is told: a fleet on loopback stays there."""
        if self._doors.settings.on_loopback and not inside.is_local(context.peer()):
            raise Forbidden(
                "This fleet listens on loopback only.", next="Set FLOTILLA_BIND to serve other machines."
            )

    def _problem(self, incoming: Incoming, error: Exception) -> Problem:
        if isinstance(error, FlotillaError):
            return error.problem()
        self._doors.log.error("rpc.broke", method=incoming.method, exc_info=error)
        return FlotillaError("The call could not be answered.", next="Try again.").problem()

    @property
    def _doors(self) -> Doors:
        return self.app.state.doors

    # Each name once, whatever the number of services that have it: a request carries its full name.
    Open = Get = List = ListEvents = Interrupt = Close = RenewToken = Search = Swap = Steer = Check = _call
    Send = Follow = Watch = _stream


def _refuse(context: Context, problem: Problem, told: list[tuple[str, str]] | None = None) -> None:
    context.set_code(errors.code_of(problem.status))
    context.set_details(errors.message_of(problem))
    context.set_trailing_metadata([*(told or []), (errors.DETAILS, errors.details_of(problem))])
