"""A fleet of its own: started as a user starts it, in a folder and on a port of its own.

Benchmarks and tests run on it; both then see what a user sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import psutil
from websockets.sync.client import ClientConnection, connect

from flotilla.cli.local import Local, free_port
from flotilla.core.ids import new_id

ROOT = Path(__file__).parents[1]
UP_TIMEOUT_S = 300
DIRECT_PORTS = range(30000, 31000)
"""Where Serve's replicas listen for HTTP, unless told otherwise."""


class OwnFleet:
    """Settings beyond the defaults go in by the environment, as an operator's would."""

    def __init__(self, **settings: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="flotilla-own-"))
        self.home.chmod(0o755)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc = f"127.0.0.1:{(grpc_port := free_port())}"
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith(("FLOTILLA_", "RAY_"))}
        self._environ |= {
            "FLOTILLA_HOME": str(self.home),
            "FLOTILLA_PORT": str(self.port),
            "FLOTILLA_GRPC_PORT": str(grpc_port),
            "FLOTILLA_MODEL": "scripted",
            **settings,
        }
        self.local = Local(self.home)
        self.http = httpx2.Client(base_url=self.url, headers={"Authorization": "Bearer dev"}, timeout=60)

    def flotilla(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the command line as a user would."""
        done = subprocess.run(
            [sys.executable, "-m", "flotilla.cli", *words],
            env=self._environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"flotilla {' '.join(words)}:\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done

    def up(self) -> OwnFleet:
        # The folder of the packaged weights' conversion is shared, so that it is made once.
        shared = ROOT / ".flotilla" / "cache"
        shared.mkdir(parents=True, exist_ok=True)
        (self.home / "cache").symlink_to(shared)
        self.flotilla("up", "--no-docs")  # to embed them takes as long as all else
        return self

    def down(self) -> None:
        self.flotilla("down", check=False)
        self.local.stop()
        self.local.postgres.remove()
        shutil.rmtree(self.local.sockets, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def logs(self, characters: int = 3000) -> str:
        """The ends of the logs, for whoever reads a failure."""
        files = sorted((self.local.sockets / "ray" / "session_latest" / "logs").glob("worker*.err"))
        files.append(self.local.logs / "deploy.log")
        return "\n".join(f"== {f.name}\n{f.read_text()[-characters:]}" for f in files if f.exists())

    # -- what it knows and says

    def know(self, collection: str, documents: list[dict[str, str]]) -> None:
        answer = self.http.post(f"/v1/knowledge/{collection}/documents", json={"documents": documents})
        answer.raise_for_status()

    def session(self, agent: str = "bank") -> str:
        return self.http.post("/v1/sessions", json={"agent": agent}).json()["id"]

    def ask(self, session: str, text: str, id: str | None = None) -> dict[str, Any]:
        """The finished reply, as `reply.completed`."""
        path = f"/v1/sessions/{session}/messages?wait=true"
        answer = self.http.post(path, json={"id": id or new_id("m"), "text": text})
        answer.raise_for_status()
        return answer.json()

    def events(self, session: str, after: int = 0) -> list[dict[str, Any]]:
        return self.http.get(f"/v1/sessions/{session}/events", params={"after": after}).json()["events"]

    def socket(self, session: str, after: str = "0") -> ClientConnection:
        url = f"{self.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws?after={after}"
        return connect(url, additional_headers={"Authorization": "Bearer dev"}, open_timeout=30)

    # -- what it runs on

    @property
    def sockets_max(self) -> int:
        """How many connections its HAProxy carries: the limit of open files decides."""
        gateway = self.process("ServeReplica:flotilla:gateway")
        return int(gateway.environ().get("RAY_SERVE_HAPROXY_MAXCONN", "0"))

    @property
    def gateway_url(self) -> str:
        """The port of a gateway's own, behind HAProxy (Serve's direct ingress)."""
        gateway = self.process("ServeReplica:flotilla:gateway")
        ports = [c.laddr.port for c in gateway.net_connections("tcp4") if c.status == psutil.CONN_LISTEN]
        return f"http://127.0.0.1:{next(port for port in sorted(ports) if port in DIRECT_PORTS)}"

    def process(self, title: str) -> psutil.Process:
        """The process whose title contains `title` (Ray names its workers by their actor)."""
        found = [p for p in self.local.processes() if title in " ".join(p.cmdline())]
        if not found:
            raise LookupError(f"No process {title!r} among {[p.name() for p in self.local.processes()]}.")
        return found[0]
