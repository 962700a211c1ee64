"""Conversations over gRPC: a call of `Conversations.Send` for each turn, all on one channel of the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import msgspec
from google.rpc import error_details_pb2, status_pb2
from grpc_status.rpc_status import from_call

from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import Data, Event, timed
from benchmarks.load.notes import Turn
from benchmarks.load.sockets import Lost
from benchmarks.load.tasks import Tasks
from benchmarks.load.texts import TEXTS
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc.v1_pb2_grpc import ConversationsStub

AGAIN_AFTER_S = 0.2
TRIES = 10
_data = msgspec.json.Decoder(Data).decode
STATUS = {grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.UNAVAILABLE: 503}


class Rpc:
    """The channel of one process. `target` is HOST:PORT."""

    def __init__(self, target: str, key: str) -> None:
        self._target = target
        self.metadata = (("authorization", f"Bearer {key}"),)
        self._channel: grpc.aio.Channel | None = None
        self.tasks = Tasks()

    def door(self, conversation: Conversation, _: Lost) -> RpcDoor:
        return RpcDoor(self, conversation)

    def send(self, request: pb.SendRequest) -> AsyncIterator[pb.Event]:
        """Opened in the loop in which it is first used."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target)
        stub: Any = ConversationsStub(self._channel)
        return cast(AsyncIterator[pb.Event], stub.Send(request, metadata=self.metadata))

    async def close(self) -> None:
        await self.tasks.cancel()
        if self._channel is not None:
            await self._channel.close()


class RpcDoor:
    def __init__(self, rpc: Rpc, conversation: Conversation) -> None:
        self._rpc = rpc
        self._conversation = conversation
        self.open = False

    async def connect(self) -> None:
        self.open = True
        self._conversation.connected()

    def post(self, turn: Turn) -> None:
        self._rpc.tasks.start(self._talk(turn))

    async def _talk(self, turn: Turn) -> None:
        """A call that breaks is made again with the same id: it starts nothing and tells the same events."""
        for _ in range(TRIES):
            try:
                return await self._send(turn)
            except grpc.aio.AioRpcError as error:
                if _told(error) or error.code() != grpc.StatusCode.UNAVAILABLE:
                    return self._refused(turn, error)
            turn.resent = True
            self._conversation.notes.counts["resent"] += 1
            await asyncio.sleep(AGAIN_AFTER_S)
        return self._conversation.failed("unreachable", f"gave up after {TRIES} tries")

    async def _send(self, turn: Turn) -> None:
        request = pb.SendRequest(session=self._conversation.session, id=turn.id, text=TEXTS[turn.text])
        first = True
        async for event in self._rpc.send(request):
            if first:
                self._conversation.begins(event.seq)
                first = False
            self._conversation.take(plain(event))

    def _refused(self, turn: Turn, error: grpc.aio.AioRpcError) -> None:
        if self._conversation.turn is turn:
            status = STATUS.get(error.code(), 500)
            self._conversation.refused(
                status, f"{error.code().name}: {error.details()}", _retry_after_s(error)
            )

    def cut(self) -> bool:
        return False

    async def close(self) -> None:
        self.open = False


def plain(event: pb.Event) -> Event:
    """As the other ways have it."""
    match event.WhichOneof("body"):
        case "delta":
            data = Data(offset=event.delta.offset, text=event.delta.text)
        case "reply":
            data = Data(text=event.reply.text, timing=timed(event.reply.timing))
        case _ if event.type == "message.accepted":
            return Event(event.type, event.seq, event.turn, data=_data(event.data))
        case _:
            data = Data()
    return Event(event.type, event.seq, event.turn, data=data)


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    return cast("status_pb2.Status | None", from_call(cast(Any, error)))


def _told(error: grpc.aio.AioRpcError) -> bool:
    """Whether the fleet itself has refused, rather than nobody having been reached."""
    return _details(error) is not None


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    details = _details(error)
    for detail in details.details if details else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return None
