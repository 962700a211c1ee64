"""A fleet on two Ray nodes of this machine, put where `cluster.yaml` would put it: by the nodes' resources."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil

from benchmarks.fleet import ROOT, OwnFleet
from flotilla.cli import raynode
from flotilla.cli.local import free_port

HEAD = {"host": 2, "gateway": 1, "librarian": 1, "model": 1, "controller": 1}
SECOND = {"host": 1, "second": 1}
STORE_BYTES = 80_000_000
RAY_TIMEOUT_S = 120


class TwoNodes(OwnFleet):
    """`head` and `second` are the resources of the nodes; the second one's name it, so it has "second"."""

    def __init__(self, head: dict[str, int] = HEAD, second: dict[str, int] = SECOND, **settings: str) -> None:
        hosts = head["host"] + second["host"]
        super().__init__(**{"FLOTILLA_HOSTS": str(hosts), **settings})
        self._head, self._second = head, second
        self._address = ""
        self._ray_environ: dict[str, str] = {}

    def up(self) -> TwoNodes:
        self.local.prepare()
        self.local.postgres.start()
        self.local.valkey.start()
        self._ray_environ = raynode.environment(self.local) | self._settings()
        port = free_port()
        self._ray(self._head, "--head", f"--port={port}", "--include-dashboard=false")
        self._address = f"127.0.0.1:{port}"
        self.start_second()
        self._deploy()
        return self

    def _settings(self) -> dict[str, str]:
        return {name: value for name, value in self._environ.items() if name.startswith("FLOTILLA_")} | {
            "DATABASE_URL": self.local.postgres.url,
            "REDIS_URL": self.local.valkey.url,
            "FLOTILLA_TOKEN": "t" * 32,
            "FLOTILLA_SECRET": "s" * 32,
            # Two nodes of a cluster have two ports 8080; these two share a machine.
            "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(free_port()),
        }

    def start_second(self) -> None:
        self._ray(self._second, f"--address={self._address}")

    @property
    def second(self) -> psutil.Process | None:
        """The second node's raylet; None if it is dead."""
        found = (p for p in self.local.processes() if p.name() == "raylet" and ",second," in _command(p))
        return next(found, None)

    def _deploy(self) -> None:
        environ = self._ray_environ | {"FLOTILLA_RAY_ADDRESS": self._address}
        command = [sys.executable, "-m", "serve.deploy"]
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr + self.logs())

    def _ray(self, resources: dict[str, int], *words: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", *words]
        options = [
            f"--resources={json.dumps(resources)}",
            f"--object-store-memory={STORE_BYTES}",
            "--disable-usage-stats",
        ]
        if "--head" in words:
            options.append(f"--temp-dir={self.local.sockets / 'ray'}")
        done = subprocess.run(
            [*command, *options],
            env=self._ray_environ,
            capture_output=True,
            text=True,
            timeout=RAY_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Ray does not start: {done.stdout}\n{done.stderr}")


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
