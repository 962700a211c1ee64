"""The gateway as a Ray Serve deployment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve._private.replica import Replica
from ray.serve.schema import LoggingConfig
from uvicorn.config import WS_PROTOCOLS

from flotilla.core.draining import DEREGISTERED_S, GONE_S, SPREAD_S
from serve.app import create_app
from serve.doors import Doors
from serve.rpc.door import RpcDoor
from serve.rpc.ports import own_ports
from serve.rpc.servicers import FUNCTIONS
from serve.settings import Settings
from serve.sockets.open import Sockets
from serve.sockets.protocol import SocketProtocol

APP = "flotilla"
# Requests and streams at a gateway at once; WebSockets have their own bound (`LIMITS.sockets_max`).
ONGOING_MAX = 20_000


class Gateway(RpcDoor):
    """`life` is another one for each time that the gateways are rolled: so Serve sees that they changed."""

    def __init__(self, settings: Settings, life: str = "") -> None:
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(self._settings, told_ids=True)
        sockets = Sockets(lambda: app.state.doors)
        _take_upgrades(sockets)
        own_ports()
        _on_going(lambda: _go(app, sockets))
        return app


def _take_upgrades(sockets: Sockets) -> None:
    """uvicorn, which Serve runs in this process with its defaults, hands WebSockets to us."""

    def made(config: object, server_state: Any, app_state: object) -> SocketProtocol:
        return SocketProtocol(sockets, server_state)

    protocols: dict[str, Any] = WS_PROTOCOLS
    protocols["auto"] = made


def _go(app: FastAPI, sockets: Sockets) -> None:
    doors: Doors | None = getattr(app.state, "doors", None)
    if doors is None:  # it never came to anything, and Serve ends it all the same
        return
    doors.log.info("gateway.going", sockets=len(sockets))
    sockets.spawn(sockets.drain(DEREGISTERED_S, SPREAD_S))
    doors.going.begin()


def _on_going(begin: Callable[[], object]) -> None:
    """Serve tells a replica's process that it is to end, and not the code in it (Ray 2.60): it is heard where
    Serve begins. From then on HAProxy is told to send nobody here; after `DRAIN_S` no connection is taken, and
    what is still open when `GONE_S` is over is cut."""
    perform: Any = Replica._perform_graceful_shutdown  # type: ignore[reportPrivateUsage]

    async def performing(self: Replica) -> None:
        begin()
        await perform(self)

    Replica._perform_graceful_shutdown = performing  # type: ignore[method-assign, reportPrivateUsage]


def run(settings: Settings, life: str = "") -> None:
    """Deploys the gateways and returns when they answer. With another `life` than before each is replaced:
    the new one first, then the old one goes (`flotilla.core.draining`)."""
    serve.start(
        http_options={"host": settings.bind, "port": settings.port, "location": "EveryNode"},
        grpc_options=_grpc(settings),
    )
    deployment: Any = serve.deployment(
        serve.ingress()(Gateway),
        name="gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": 0, "resources": {"gateway": 1}},
        graceful_shutdown_timeout_s=GONE_S,
        health_check_period_s=5,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    serve.run(deployment.bind(settings, life), name=APP, route_prefix="/", logging_config=None)


def _grpc(settings: Settings) -> dict[str, Any] | None:
    """Serve opens no port for gRPC unless there are services."""
    return {"port": settings.grpc_port, "grpc_servicer_functions": FUNCTIONS} if settings.grpc_port else None


def stop() -> None:
    serve.delete(APP)
