"""The gateway as a Ray Serve deployment."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.schema import LoggingConfig

from serve.app import create_app
from serve.settings import Settings

APP = "flotilla"
# Sockets are requests that last: as many as a gateway may hold, and as many again that wait to be let in.
ONGOING_MAX = 20_000


class Gateway:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._settings)


def run(settings: Settings) -> None:
    """Deploys the gateways and returns when they answer."""
    serve.start(http_options={"host": settings.bind, "port": settings.port, "location": "EveryNode"})
    deployment: Any = serve.deployment(
        serve.ingress()(Gateway),
        name="gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": 0, "resources": {"gateway": 1}},
        graceful_shutdown_timeout_s=20,
        health_check_period_s=5,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    serve.run(deployment.bind(settings), name=APP, route_prefix="/", logging_config=None)


def stop() -> None:
    serve.delete(APP)
