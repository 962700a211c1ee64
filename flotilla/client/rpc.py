"""The same vocabulary over gRPC: open, send, ask, follow. It comes back by the same mechanism."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from flotilla.client.conversing import Conversing, Outgoing
from flotilla.client.events import Event, Known, Other, convert
from flotilla.client.limits import LIMITS, PATIENCE, ClientLimits
from flotilla.client.trying import Trying
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import FlotillaError, LimitReached, Overloaded, Unavailable
from flotilla.core.ids import new_id
from flotilla.core.policy.retry import Patience
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc.errors import from_rpc
from flotilla.rpc.events import as_dict
from flotilla.rpc.v1_pb2_grpc import ConversationsStub

R = TypeVar("R")
DEFAULT_ADDRESS = "127.0.0.1:8081"


class _Rpc:
    """One channel, and what every call on it has in common."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        key: str,
        limits: ClientLimits,
        trying: Callable[[], Trying],
    ) -> None:
        self.stub: Any = ConversationsStub(channel)
        self.trying = trying
        self._address = address
        self._limits = limits
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def call(
        self,
        method: Callable[..., Awaitable[R]],
        request: Any,
        *,
        again: bool,
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """The answer. `again` says that doing it twice is doing it once; anything else is only tried again if the
        fleet has done nothing."""
        metadata, trying = (*self._metadata, *(headers or {}).items()), self.trying()
        while True:
            try:
                return await method(request, metadata=metadata, timeout=self._limits.answer_s)
            except grpc.RpcError as broken:
                error = self._error(broken)
                if not again and not isinstance(error, Overloaded | LimitReached):
                    raise error from None
                await trying.pause(error)

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Event]:
        """One connection's events. Tries nothing again."""
        call = method(request, metadata=self._metadata)
        try:
            async for event in call:
                yield convert(as_dict(event))
        except grpc.RpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    def _error(self, broken: grpc.RpcError) -> FlotillaError:
        """Without a problem of the fleet's it is the way there that is broken."""
        error = from_rpc(broken)
        if type(error) is Unavailable and error.next is None:
            return Unavailable(
                f"No fleet answers at {self._address} over gRPC: {error.detail}.",
                next="Start one with `make up`, or check the address and FLOTILLA_GRPC_PORT.",
            )
        return error


class _RpcWire:
    def __init__(self, rpc: _Rpc) -> None:
        self._rpc = rpc

    def trying(self) -> Trying:
        return self._rpc.trying()

    def send(self, session: str, message: Outgoing) -> AsyncGenerator[Event]:
        request = pb.SendRequest(
            session=session, id=message.id, text=message.text, while_talking=message.while_talking
        )
        return self._rpc.stream(self._rpc.stub.Send, request)

    def follow(self, session: str, place: str) -> AsyncGenerator[Event]:
        seq, _, offset = place.partition(":")
        request = pb.FollowRequest(session=session, after=int(seq), offset=int(offset or 0))
        return self._rpc.stream(self._rpc.stub.Follow, request)


class RpcSession(Conversing):
    def __init__(self, id: str, rpc: _Rpc, token: str = "") -> None:
        super().__init__(id, _RpcWire(rpc))
        self.token = token
        self._rpc = rpc

    async def events(self, after: int = 0, limit: int | None = None) -> list[Known | Other]:
        """A page of the record behind `after`, in order."""
        request = pb.ListEventsRequest(session=self.id, after=after, limit=limit)
        page = await self._rpc.call(self._rpc.stub.ListEvents, request, again=True)
        return [convert(as_dict(event)) for event in page.events]

    async def interrupt(self) -> str | None:
        """Stops the running reply; its turn, None if nothing was running."""
        request = pb.InterruptRequest(session=self.id)
        return (await self._rpc.call(self._rpc.stub.Interrupt, request, again=False)).turn or None

    async def close(self) -> None:
        await self._rpc.call(self._rpc.stub.Close, pb.CloseRequest(session=self.id), again=True)


class RpcSessions:
    def __init__(self, rpc: _Rpc) -> None:
        self._rpc = rpc

    async def open(
        self,
        agent: str | None = None,
        *,
        channel: str = "api",
        customer: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> RpcSession:
        """Opens a session, once for each `key` in 24 h; without one, once for this call."""
        request = pb.OpenRequest(agent=agent, channel=channel, customer=customer, model=model)
        request.metadata.update(dict(metadata or {}))
        headers = {"idempotency-key": key or new_id("k")}
        session = await self._rpc.call(self._rpc.stub.Open, request, again=True, headers=headers)
        return RpcSession(session.id, self._rpc, session.token)

    def at(self, id: str) -> RpcSession:
        """A session that is open already. Nothing is sent."""
        return RpcSession(id, self._rpc)


class RpcClient:
    """`address` is HOST:PORT of the fleet's gRPC door: the port behind that of HTTP, unless it was set."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        key: str = "dev",
        *,
        patience: Patience = PATIENCE,
        limits: ClientLimits = LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        clock, random = clock or SystemClock(), random or Random()
        self._channel = grpc.aio.insecure_channel(address, options=_options(limits))
        rpc = _Rpc(self._channel, address, key, limits, lambda: Trying(patience, clock, random))
        self.sessions = RpcSessions(rpc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._channel.close()


def _options(limits: ClientLimits) -> list[tuple[str, int]]:
    """gRPC's own back-off is kept below ours, so that ours is the one that counts."""
    return [
        ("grpc.max_receive_message_length", limits.event_bytes_max),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", int(limits.ping_every_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.ping_every_s * 1000)),
    ]
