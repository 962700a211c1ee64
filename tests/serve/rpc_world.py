"""The gateway's gRPC on a port of its own: Serve's own gRPC server before the same application as HTTP's.

What Ray Serve does between the two (ray/serve/_private/replica.py, `_direct_ingress_*`) is done here in a few
lines: the method by its bare name, the context of its own, which is sent when the method ends well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from fastapi import FastAPI
from ray.serve._private.grpc_util import enable_server_reflection, gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType
from ray.serve.grpc_util import RayServegRPCContext

from flotilla.rpc import v1_pb2_grpc as stubs
from serve.rpc import servicers
from serve.rpc.door import RpcDoor

KEY = (("authorization", "Bearer dev"),)


class Door(RpcDoor):
    """`open` counts the streams that are being answered."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.open = 0

    def handler(self, service_method: str, streaming_type: gRPCStreamingType) -> Callable[..., Any]:
        name = service_method.rsplit("/", maxsplit=1)[-1]

        async def unary(request: Any, context: Any) -> bytes:
            serves = RayServegRPCContext(context)
            answer = await getattr(self, name)(request, grpc_context=serves)
            serves._set_on_grpc_context(context)
            return answer.SerializeToString()

        async def stream(request: Any, context: Any) -> AsyncGenerator[bytes]:
            serves = RayServegRPCContext(context)
            self.open += 1
            try:
                async with aclosing(getattr(self, name)(request, grpc_context=serves)) as answers:
                    async for answer in answers:
                        yield answer.SerializeToString()
                serves._set_on_grpc_context(context)
            finally:
                self.open -= 1

        return stream if streaming_type is gRPCStreamingType.UNARY_STREAM else unary


class Rpc:
    """A client of the door: the stubs of its services."""

    def __init__(self, door: Door, channel: grpc.aio.Channel, address: str) -> None:
        self.door, self.channel, self.address = door, channel, address
        self.conversations: Any = stubs.ConversationsStub(channel)
        self.knowledge: Any = stubs.KnowledgeStub(channel)
        self.models: Any = stubs.ModelsStub(channel)

    async def emptied(self) -> None:
        """Once no stream is being answered any more."""
        async with asyncio.timeout(10):
            while self.door.open:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[Rpc]:
    door = Door(app)
    server = gRPCGenericServer(door.handler)
    port = server.add_insecure_port("127.0.0.1:0")
    for add in (servicers.add_flotilla, servicers.add_health):
        add(None, server)
    enable_server_reflection(server)
    await server.start()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address) as channel:
        yield Rpc(door, channel, address)
    await server.stop(None)
