"""HAProxy as `flotilla up` has Serve start it: what it says by itself is what the fleet would say."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig

from flotilla.cli import ingress
from flotilla.client.calls import error_from
from flotilla.core.errors import FlotillaError, Problem, Unavailable
from flotilla.core.limits import LIMITS

PATIENCE_S = 20.0
ASKED = b"GET /v1/sessions HTTP/1.1\r\nHost: here\r\n\r\n"


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


class Ingress:
    """HAProxy alone, with the configuration that Serve writes for one gateway."""

    def __init__(self, folder: Path, gateway: int) -> None:
        self.port, self.config = free_port(), folder / "haproxy.cfg"
        self.script = ingress.haproxy(folder)
        settings: Any = HAProxyConfig(socket_path=str(folder / "admin.sock"), metrics_port=free_port())
        settings.stats_port = free_port()
        settings.http_options.host, settings.http_options.port = "127.0.0.1", self.port
        server = ServerConfig(name="gateway", host="127.0.0.1", port=gateway)
        fleet = BackendConfig(
            name="fleet", path_prefix="/", protocol=RequestProtocol.HTTP, servers=[server], app_name="fleet"
        )
        HAProxyApi(settings, {"fleet": fleet}, str(self.config))._generate_config_file_internal()

    def command(self, *words: str) -> list[str]:
        return [self.script, "-db", "-f", str(self.config), *words]

    @property
    def lines(self) -> list[str]:
        """Of the configuration that HAProxy reads."""
        written = self.config.with_name("haproxy.cfg.flotilla")
        return [line.strip() for line in written.read_text().splitlines()]

    def said(self, asked: bytes) -> tuple[bytes, FlotillaError]:
        """The head of the answer, and what our client makes of it."""
        found = bytearray()
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as raw:
            raw.sendall(asked)
            while not found.endswith(b"}") and (data := raw.recv(65536)):
                found += data
        head, _, body = bytes(found).partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        assert msgspec.json.decode(body, type=Problem).status == status
        return head, error_from(status, body, {})


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fh-", dir="/tmp"))  # short, as it holds a socket
    yield made
    shutil.rmtree(made)


@contextmanager
def running(made: Ingress) -> Iterator[Ingress]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(made.command(), stdout=quiet, stderr=quiet)
    try:
        until(lambda: process.poll() is not None or listens(made.port))
        yield made
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S):
        return True
    return False


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_configuration_is_taken(folder: Path) -> None:
    made = Ingress(folder, free_port())
    subprocess.run(made.command("-c"), check=True, capture_output=True, timeout=PATIENCE_S)
    assert made.lines.count(f"timeout http-request {LIMITS.request_head_s}s") == 1
    pages = [line.split()[1] for line in made.lines if line.startswith("errorfile ")]
    assert pages == [str(status) for status in ingress.PAGES]
    assert not [line for line in made.lines if line.startswith("option splice-")]


@pytest.mark.parametrize("status", ingress.PAGES)
def test_a_page_is_a_whole_problem_document(folder: Path, status: int) -> None:
    ingress.haproxy(folder)
    head, _, body = (folder / f"problem-{status}.http").read_bytes().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in rest)
    problem = msgspec.json.decode(body, type=Problem)
    assert first.split()[1] == str(problem.status) == str(status) and headers["Content-Length"] == str(
        len(body)
    )
    assert headers["Content-Type"] == "application/problem+json" and problem.next
    assert headers.get("Retry-After") == ("1" if status > 500 else None)


def test_no_gateway_is_a_problem_that_says_when_to_come_back(folder: Path) -> None:
    with running(Ingress(folder, free_port())) as made:
        head, error = made.said(ASKED)
    assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1" in head.lower()
    assert type(error) is Unavailable and error.retry_after_s == 1.0


def test_so_is_a_gateway_that_goes_away(folder: Path) -> None:
    with hangs_up() as gateway, running(Ingress(folder, gateway)) as made:
        head, error = made.said(ASKED)
    assert head.startswith(b"HTTP/1.1 502 ") and type(error) is Unavailable
    assert "went away" in error.detail


@contextmanager
def hangs_up() -> Iterator[int]:
    """The port of a gateway that is well, and has no answer to any request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _hang_up(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            taken, _ = server.accept()
            with taken:
                if taken.recv(65536).startswith(b"GET /-/healthz "):
                    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
