"""The client over gRPC, synchronous: each method waits for that of the asynchronous one, which says what it does."""

from __future__ import annotations

from random import Random
from types import TracebackType
from typing import Any, Self

from flotilla.client import conversing, rpc
from flotilla.client.limits import LIMITS, PATIENCE, ClientLimits
from flotilla.client.portal import Blocking, Portal, iterates, waits
from flotilla.client.trying import OnRetry, untold
from flotilla.core.clock import Clock
from flotilla.core.policy.retry import Patience


class BlockingRpcSession(Blocking[rpc.RpcSession]):
    send = iterates(conversing.Conversing.send)
    ask = waits(conversing.Conversing.ask)
    follow = iterates(conversing.Conversing.follow)
    events = waits(rpc.RpcSession.events)
    renew_token = waits(rpc.RpcSession.renew_token)
    interrupt = waits(rpc.RpcSession.interrupt)
    close = waits(rpc.RpcSession.close)

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def token(self) -> str:
        return self.inner.token


class BlockingRpcSessions(Blocking[rpc.RpcSessions]):
    _open = waits(rpc.RpcSessions.open)

    def open(self, agent: str | None = None, **options: Any) -> BlockingRpcSession:
        return BlockingRpcSession(self._open(agent, **options), self.portal)

    def at(self, id: str) -> BlockingRpcSession:
        return BlockingRpcSession(self.inner.at(id), self.portal)


class BlockingRpcClient(Blocking[rpc.RpcClient]):
    """As `RpcClient`, for programs without a loop."""

    def __init__(
        self,
        address: str = rpc.DEFAULT_ADDRESS,
        key: str = "dev",
        *,
        patience: Patience = PATIENCE,
        limits: ClientLimits = LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
        on_retry: OnRetry = untold,
    ) -> None:
        async def made() -> rpc.RpcClient:
            """In the loop: a channel belongs to that in which it was made."""
            return rpc.RpcClient(
                address,
                key,
                patience=patience,
                limits=limits,
                clock=clock,
                random=random,
                on_retry=on_retry,
            )

        portal = Portal()
        try:
            super().__init__(portal.run(made()), portal)
        except BaseException:
            portal.close()
            raise
        self.sessions = BlockingRpcSessions(self.inner.sessions, portal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what other threads wait for, too. Closing again changes nothing."""
        self.portal.close(self.inner.aclose())
