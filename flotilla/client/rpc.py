"""The same vocabulary over gRPC: open, send, ask, follow. It comes back by the same mechanism."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from flotilla.client.closing import closed, is_cancelled
from flotilla.client.conversing import Conversing, Outgoing
from flotilla.client.credential import Credential
from flotilla.client.events import Event, Known, Other, convert
from flotilla.client.limits import LIMITS, PATIENCE, ClientLimits
from flotilla.client.trying import OnRetry, Trying, untold
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import FlotillaError, LimitReached, Overloaded, Unauthenticated, Unavailable
from flotilla.core.ids import new_id
from flotilla.core.policy.retry import Patience
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc.errors import from_rpc
from flotilla.rpc.events import as_dict
from flotilla.rpc.v1_pb2_grpc import ConversationsStub

R = TypeVar("R")
_NOTHING_DONE = (Overloaded, LimitReached, Unauthenticated)
DEFAULT_ADDRESS = "127.0.0.1:8081"


class _Rpc:
    """One channel, and what every call on it has in common."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        key: str,
        *,
        limits: ClientLimits,
        patience: Patience,
        clock: Clock,
        random: Random,
        on_retry: OnRetry,
    ) -> None:
        self.stub: Any = ConversationsStub(channel)
        self.credential = Credential(key, self._renewed, clock)
        self._channel = channel
        self._address = address
        self._limits = limits
        self._patient = partial(Trying, patience, clock, random, on_retry=on_retry)
        self._closed = False

    def trying(self) -> Trying:
        return self._patient(self.credential, self._limits.dead_s)

    async def aclose(self) -> None:
        self._closed = True
        await self.credential.aclose()
        await self._channel.close()

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
        return await self._tried(method, request, self.trying(), again, headers or {})

    async def _tried(
        self,
        method: Callable[..., Awaitable[R]],
        request: Any,
        trying: Trying,
        again: bool,
        headers: Mapping[str, str],
    ) -> R:
        while True:
            metadata = (*self._metadata(), *headers.items())
            try:
                with self._translated():
                    return await method(request, metadata=metadata, timeout=self._limits.answer_s)
            except FlotillaError as error:
                if not again and not isinstance(error, _NOTHING_DONE):
                    raise
                await trying.pause(error)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Raises `Refused` for a client that was closed."""
        if self._closed:
            raise closed()
        return (("authorization", self.credential.bearer()),)

    async def _renewed(self, session: str) -> str:
        """Another token for the session. One that is refused is not renewed again: there is no end to that."""
        request = pb.RenewTokenRequest(session=session)
        return (await self._tried(self.stub.RenewToken, request, self._patient(), True, {})).token

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Event]:
        """One connection's events. Tries nothing again."""
        call = method(request, metadata=self._metadata())
        try:
            with self._translated():
                async for event in call:
                    if event.type:  # one without only keeps the line open
                        yield convert(as_dict(event))
        finally:
            call.cancel()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._error(error) from None
        except asyncio.CancelledError:
            if not self._closed or is_cancelled():
                raise
            raise closed() from None  # the channel's end cancels its calls, and nobody this task

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
    def __init__(self, id: str, rpc: _Rpc, token: str = "", seq: int = 0) -> None:
        super().__init__(id, _RpcWire(rpc))
        self.token = token
        self.seq = seq
        self._rpc = rpc

    async def events(self, after: int = 0, limit: int | None = None) -> list[Known | Other]:
        """A page of the record behind `after`, in order."""
        request = pb.ListEventsRequest(session=self.id, after=after, limit=limit)
        page = await self._rpc.call(self._rpc.stub.ListEvents, request, again=True)
        return [convert(as_dict(event)) for event in page.events]

    async def renew_token(self) -> str:
        """Another token for the session's visitor, by a key or by a token that is still good."""
        request = pb.RenewTokenRequest(session=self.id)
        self.token = (await self._rpc.call(self._rpc.stub.RenewToken, request, again=True)).token
        return self.token

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
        return RpcSession(session.id, self._rpc, session.token, session.seq)

    def at(self, id: str) -> RpcSession:
        """A session that is open already. Nothing is sent."""
        return RpcSession(id, self._rpc)


class RpcClient:
    """`address` is HOST:PORT of the fleet's gRPC door: the port behind that of HTTP, unless it was set. `key` is an
    API key or a visitor's token, which is renewed by itself."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        key: str = "dev",
        *,
        patience: Patience = PATIENCE,
        limits: ClientLimits = LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
        on_retry: OnRetry = untold,
    ) -> None:
        clock, random = clock or SystemClock(), random or Random()
        channel = grpc.aio.insecure_channel(address, options=_options(limits))
        self._rpc = _Rpc(
            channel,
            address,
            key,
            limits=limits,
            patience=patience,
            clock=clock,
            random=random,
            on_retry=on_retry,
        )
        self.sessions = RpcSessions(self._rpc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._rpc.aclose()


def _options(limits: ClientLimits) -> list[tuple[str, int]]:
    """gRPC's own back-off is kept below ours, so that ours is the one that counts."""
    return [
        ("grpc.max_receive_message_length", limits.event_bytes_max),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", int(limits.ping_every_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.ping_every_s * 1000)),
    ]
