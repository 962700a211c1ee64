"""What the gateway's routes need of the world, kept on the application."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from serve.wiring import Doors


def doors_of(connection: HTTPConnection) -> Doors:
    return connection.app.state.doors
