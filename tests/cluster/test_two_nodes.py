"""The same wiring on two Ray nodes: a host on each, and a node that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from flotilla.cli import raynode
from flotilla.cli.local import free_port
from tests.fleet import BANK, QUESTION, ROOT, TestFleet, join, receive

HEAD = {"host": 1, "gateway": 1, "librarian": 1, "model": 1, "controller": 1}
WORKER = {"host": 1}


class TwoNodes(TestFleet):
    """Puts the processes where `cluster.yaml` would: by the resources of the nodes, stores by URL."""

    def up(self) -> TwoNodes:
        self.local.prepare()
        self.local.postgres.start()
        self.local.valkey.start()
        os.environ.update({k: v for k, v in self._environ.items() if k.startswith("FLOTILLA_")})
        environ = raynode.environment(self.local) | {
            "DATABASE_URL": self.local.postgres.url,
            "REDIS_URL": self.local.valkey.url,
            "FLOTILLA_TOKEN": "t" * 32,
            "FLOTILLA_SECRET": "s" * 32,
            "FLOTILLA_HOSTS": "2",
            # Two nodes of a cluster have two ports 8080; these two share a machine.
            "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(free_port()),
        }
        address = self._ray(environ, HEAD, "--head", f"--port={free_port()}", "--include-dashboard=false")
        self._ray(environ, WORKER, f"--address={address}")
        environ["FLOTILLA_RAY_ADDRESS"] = address
        done = subprocess.run(
            [sys.executable, "-m", "serve.deploy"],
            env=environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return self

    def _ray(self, environ: dict[str, str], resources: dict[str, int], *words: str) -> str:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", *words]
        options = [
            f"--resources={json.dumps(resources)}",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]
        if "--head" in words:
            options.append(f"--temp-dir={self.local.sockets / 'ray'}")
        subprocess.run([*command, *options], env=environ, check=True, capture_output=True, timeout=120)
        port = next((word.partition("=")[2] for word in words if word.startswith("--port=")), "")
        return f"127.0.0.1:{port}"


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    before = dict(os.environ)
    nodes = TwoNodes(FLOTILLA_SCRIPTED_TOKEN_S="0.15")
    try:
        nodes.up().know("bank", BANK)
        yield nodes
    finally:
        nodes.down()
        os.environ.clear()
        os.environ.update(before)


def raylet_of(host: psutil.Process) -> psutil.Process:
    return next(parent for parent in host.parents() if parent.name() == "raylet")


def test_conversations_live_on_both_nodes_and_outlive_one(nodes: TwoNodes) -> None:
    hosts = [p for p in nodes.local.processes() if "ray::Host" in " ".join(p.cmdline())]
    raylets = {raylet_of(host).pid for host in hosts}
    assert len(hosts) == 2 and len(raylets) == 2
    sessions = [nodes.session() for _ in range(8)]
    with ExitStack() as stack:
        sockets = [stack.enter_context(nodes.socket(session)) for session in sessions]
        for socket in sockets:
            socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = [list(receive(socket, until="reply.delta")) for socket in sockets]
        kill_node(next(host for host in hosts if "librarian" not in " ".join(raylet_of(host).cmdline())))
        for events, socket in zip(seen, sockets, strict=True):
            events.extend(receive(socket, until="reply.completed"))
    for events in seen:
        durable = [event for event in events if event["type"] != "reply.delta"]
        assert [event["seq"] for event in durable] == [1, 2, 3, 4]
        assert join(events) == durable[-1]["data"]["text"]


def kill_node(host: psutil.Process) -> None:
    raylet = raylet_of(host)
    for process in (*raylet.children(recursive=True), raylet):
        process.kill()
