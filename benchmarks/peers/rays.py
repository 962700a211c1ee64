"""What the peers on Ray have in common: a Ray of their own, with one application of Serve, which
`python -m benchmarks.peers.rays MODULE ADDRESS PORT` deploys: the `app` of that module.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import psutil
import ray
from pydantic import BaseModel
from ray import serve

from benchmarks.fleet import ROOT
from benchmarks.peers.servers import running
from flotilla.cli import raynode
from flotilla.cli.local import MARK, Local, free_port

HEAD_TIMEOUT_S = 120
OBJECT_STORE_BYTES = 100 << 20  # nothing large goes through it
OPTIONS: dict[str, Any] = {
    # The default of 5 would have 300 replies wait for each other; the access log is off as ours is.
    "max_ongoing_requests": 1_000,
    "ray_actor_options": {"num_cpus": 0},
    "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
}
"""Of every deployment; everything else is as Serve has it."""


class Ask(BaseModel):
    """What a client of these peers posts."""

    text: str
    pace_s: float = 0.0


def event(token: str) -> bytes:
    """As a Server-Sent Event."""
    return b"data: %b\n\n" % msgspec.json.encode({"text": token})


@contextmanager
def own_ray(module: str, port: int, *, ha_proxy: bool, tuned: bool = False) -> Generator[Local]:
    """`tuned` is RAY_SERVE_THROUGHPUT_OPTIMIZED, which the page on high throughput goes with HAProxy:
    https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html."""
    home = Path(tempfile.mkdtemp(prefix="flotilla-peer-"))
    local = Local(home)
    local.prepare()
    environ = _environment(local) | {
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(ha_proxy)),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": str(int(tuned)),
    }
    try:
        address = _start_head(local, environ)
        words = [sys.executable, "-m", __name__, module, address, str(port)]
        url = f"http://127.0.0.1:{port}/openapi.json"
        with running(words, url, home / "app.log", cwd=ROOT, environ=environ):
            yield local
    finally:
        local.stop_ray()
        for folder in (local.sockets, home):
            shutil.rmtree(folder, ignore_errors=True)


def processes(local: Local) -> list[psutil.Process]:
    return list(local.processes())


def _environment(local: Local) -> dict[str, str]:
    """What keeps it apart from other Rays of this machine, and nothing that tunes it: a fleet's own settings
    (`flotilla.cli.raynode`) are made for ours. Without the niceness the client would go before the server."""
    haproxy = local.sockets / "h"
    haproxy.mkdir(parents=True, exist_ok=True)
    raynode.raise_files_limit()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FLOTILLA_"))}
    return clean | {
        MARK: local.name,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": local.secret("ray"),
        "RAY_worker_niceness": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _start_head(local: Local, environ: dict[str, str]) -> str:
    """The address of the cluster. Raises `RuntimeError` with what Ray said."""
    port = free_port()
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"]
    words += ["--node-ip-address=127.0.0.1", f"--temp-dir={local.sockets / 'ray'}"]
    words += [
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]
    done = subprocess.run(
        words, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=HEAD_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"Ray doesn't start:\n{done.stderr}")
    return f"127.0.0.1:{port}"


def _app(module: str, address: str, port: str) -> None:
    ray.init(address=address, namespace="peer", log_to_driver=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(import_module(module).app, route_prefix="/")
    signal.pause()


if __name__ == "__main__":
    _app(*sys.argv[1:])
