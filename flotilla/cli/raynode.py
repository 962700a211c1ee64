"""Starts Ray's head on this machine, by its own command, in a folder and on ports of this fleet's own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from flotilla.cli import ingress
from flotilla.cli.local import MARK, Local, free_port
from flotilla.core.draining import DRAIN_S
from flotilla.core.errors import Unavailable
from flotilla.core.limits import LIMITS

OBJECT_STORE_BYTES = 100 << 20  # nothing large goes through it
START_TIMEOUT_S = 90
RESOURCES = {
    "host": 64,
    "dedicated": 1024,
    "gateway": 64,
    "librarian": 8,
    "embedder": 8,
    "model": 64,
    "controller": 2,
}
SOCKETS_MAX = 40_000
GRPC_STREAMS_MAX = 10_000  # of one connection
FILES_WANTED = 131_072
# HAProxy refuses to start without this many open files for each connection, and a few for itself.
FILES_PER_SOCKET = 2.0
FILES_SPARE = 200


def start_head(local: Local, *, bind: str) -> str:
    """Returns the address of the cluster. Raises `Unavailable` with what Ray said."""
    port = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
    options = {
        "port": str(port),
        "node-ip-address": "127.0.0.1",
        "temp-dir": str(local.sockets / "ray"),
        "include-dashboard": "false",
        "num-cpus": str(os.cpu_count() or 1),
        "object-store-memory": str(OBJECT_STORE_BYTES),
        "resources": json.dumps(RESOURCES),
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [*command, *words, "--disable-usage-stats"],
        env=environment(local),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    (local.logs / "ray-start.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise Unavailable(f"Ray does not start: {done.stderr.strip()[-500:]}", next=f"See {local.logs}.")
    return f"127.0.0.1:{port}"


def raise_files_limit() -> int:
    """Every socket is a file: lifts this process's limit, and so that of all it starts, as far as the
    system lets it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(hard, FILES_WANTED), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):  # only root may lift the hard limit
            continue
        return wanted
    return hard


def sockets_max(files: int) -> int:
    """How many connections the ingress can take with `files` open files."""
    return max(256, min(SOCKETS_MAX, int((files - FILES_SPARE) / FILES_PER_SOCKET)))


def environment(local: Local) -> dict[str, str]:
    """Of every process of the fleet."""
    return os.environ | {
        MARK: local.name,
        "FLOTILLA_HOME": str(local.home),
        "PYTHONUNBUFFERED": "1",
        # Whoever talks to this cluster shows the fleet's own token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": local.secret("ray"),
        # Ray starts its workers at niceness 15, so anything else on the machine would go before a customer.
        "RAY_worker_niceness": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        **_gateways(),
        **_haproxy(local),
    }


def _gateways() -> dict[str, str]:
    return {
        # One that goes away has the time to let its sockets go.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        # One loop for uvicorn, the routes and the links: a thread of its own for the routes would cost two
        # hand-overs for every event (docs/decisions/0025).
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(LIMITS.grpc_message_bytes_max),
        # Serve's proxies for what HAProxy can't answer; their ports would be those of all fleets here.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _haproxy(local: Local) -> dict[str, str]:
    """Serve reads HAProxy's settings from here: its defaults don't fit chat, and its files would be shared by all
    fleets of the machine."""
    folder = local.sockets / "h"
    folder.mkdir(parents=True, exist_ok=True)
    enabled = "1" if os.environ.get("FLOTILLA_HA_PROXY", "1") != "0" else "0"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": enabled,
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": enabled,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_MAXCONN": str(sockets_max(raise_files_limit())),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
        # A gateway that goes away is noticed within a second.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # Whoever is connected and says nothing is sent away; streams and sockets are kept alive by either side.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(LIMITS.client_silent_s),
        "RAY_SERVE_HAPROXY_BINARY_PATH": ingress.haproxy(folder),
        # A stream of gRPC is one of HTTP/2's, of which HAProxy lets a connection have 100, while the next
        # ones wait without a word.
        "RAY_SERVE_HAPROXY_H2_FE_MAX_CONCURRENT_STREAMS": str(GRPC_STREAMS_MAX),
    }


def wiring(local: Local, urls: dict[str, str], ray_address: str) -> dict[str, str]:
    """What a deployment has to know of this fleet, beyond the operator's settings."""
    return urls | {
        "FLOTILLA_RAY_ADDRESS": ray_address,
        "FLOTILLA_LISTEN": "127.0.0.1",
        "FLOTILLA_TOKEN": local.secret("link"),
        "FLOTILLA_SECRET": local.secret("visitors"),
    }


def logs(local: Local) -> Path:
    return local.sockets / "ray" / "session_latest" / "logs"
