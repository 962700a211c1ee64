"""HTTP calls inside the process: straight to the application, with the metadata of a gRPC call as headers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlencode

import msgspec
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Message

from serve.limits.headers import rate_headers

# All that a gRPC client may say to the routes: framing and content are ours.
_HEADERS = ("authorization", "idempotency-key", "traceparent", "tracestate", "x-request-id", "user-agent")
# What the routes say beside the body that is for gRPC clients, too.
_TOLD = ("ratelimit", "ratelimit-policy", "retry-after", "x-request-id")

Metadata = Iterable[tuple[str, str | bytes]]


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """A call to a route. `body` is its JSON; None for none."""

    method: str
    path: str
    query: dict[str, Any] = {}
    body: dict[str, Any] | None = None


class Answer(msgspec.Struct, kw_only=True):
    status: int = 500
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""

    def told(self) -> list[tuple[str, str]]:
        """The headers that go to a gRPC client, as metadata."""
        named = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self.headers]
        return [(name, value) for name, value in named if name in _TOLD]


def connection(app: FastAPI, metadata: Metadata, peer: str) -> HTTPConnection:
    """A gRPC call as the routes' helpers know connections: its headers, and the application."""
    return HTTPConnection(_scope(metadata, peer, "GET", "/") | {"app": app})


def standings(connection: HTTPConnection) -> list[tuple[str, str]]:
    """Where the caller stands with its limits, as the routes' headers say it."""
    headers = rate_headers(getattr(connection.state, "standings", ()))
    return [(name.lower(), value) for name, value in headers.items()]


async def request(app: FastAPI, http: Http, metadata: Metadata, peer: str) -> Answer:
    """The route's answer, whatever its status."""
    body = b"" if http.body is None else msgspec.json.encode(http.body)
    scope = _scope(metadata, peer, http.method, http.path)
    scope["query_string"] = urlencode(http.query).encode()
    scope["headers"] += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    answer, sent = Answer(), False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message["headers"])
        else:
            answer.body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:  # of a bug: it is logged and answered by then, and raised for servers that want to know
        if not answer.headers:
            raise
    return answer


def _scope(metadata: Metadata, peer: str, method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "flotilla.inside": True,  # no server adds anything to the answer
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), _latin(value)) for name, value in metadata if name in _HEADERS],
        "client": (address(peer), 0),
        "server": ("grpc", 0),
        "state": {},
    }


def _latin(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


# -- peers


def address(peer: str) -> str:
    """The host of a gRPC peer: `ipv4:HOST:PORT`, `ipv6:[HOST]:PORT`."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def is_local(peer: str) -> bool:
    """Whether a call comes from this machine: also by the name that Ray gives it, as HAProxy's calls do."""
    return peer.startswith("unix:") or _is_mine(address(peer))


@lru_cache(maxsize=1024)
def _is_mine(host: str) -> bool:
    """An address that can be bound is one of this machine's."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (ValueError, OSError):
        return False
    return True
