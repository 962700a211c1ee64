"""`flotilla up`: a fleet on this machine, from nothing to an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from flotilla.cli import knowledge, raynode
from flotilla.cli.client import Client
from flotilla.cli.local import Local, Run, wait_port_free
from flotilla.cli.screen import console
from flotilla.core.agents import FLOTILLA
from flotilla.core.errors import FlotillaError, Misconfigured, Unavailable

DISK_FREE_MIN = 2 << 30
READY_TIMEOUT_S = 60.0
DOCS = ("README.md", "ARCHITECTURE.md", "docs")


class _Steps:
    """A line a step, with a spinner and its time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def begin(self, step: str) -> None:
        if step not in self._tasks:  # a check is made before Ray is started, and by whoever deploys, too
            self._tasks[step] = self._progress.add_task(step, total=1)

    def end(self, step: str) -> None:
        self._progress.update(self._tasks[step], completed=1)

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        self.begin(name)
        yield
        self.end(name)


def up(
    *, docs: Annotated[bool, typer.Option(help="Let it know Flotilla's own documents, too.")] = True
) -> None:
    """Start a fleet on this machine: embedded PostgreSQL and Valkey, Ray, a gateway, a host, a model."""
    began, local = time.monotonic(), Local()
    if (run := local.run) and _is_ready(run):
        console.print("The fleet is already up.")
        return _show(local, run.address, None)
    local.prepare()
    _check_disk(local)
    local.stop_ray()  # what is left of a fleet that died
    bind, port = os.environ.get("FLOTILLA_BIND", "127.0.0.1"), int(os.environ.get("FLOTILLA_PORT", "8080"))
    grpc_port = int(os.environ.get("FLOTILLA_GRPC_PORT", port + 1))
    wait_port_free(bind, port)
    if grpc_port:
        wait_port_free(bind, grpc_port, "FLOTILLA_GRPC_PORT")
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            steps = _Steps(progress)
            address = _start(local, bind, port, grpc_port, steps)
            if docs:
                _load_docs(Client(address), steps)
    except BaseException:  # also when a person presses Ctrl-C: half a fleet is no use
        local.stop()
        raise
    return _show(local, address, time.monotonic() - began)


def _start(local: Local, bind: str, port: int, grpc_port: int, steps: _Steps) -> str:
    urls = _stores(local, steps)
    _run("serve.checks", local, raynode.wiring(local, urls, ""), steps)
    with steps.step("Ray"):
        ray_address = raynode.start_head(local, bind=bind)
    address = f"http://{bind}:{port}"
    run = Run(
        name=local.name,
        address=address,
        ray_address=ray_address,
        grpc=f"{bind}:{grpc_port}" if grpc_port else "",
        embedded_postgres="DATABASE_URL" not in os.environ,
        embedded_valkey="REDIS_URL" not in os.environ,
    )
    local.remember(run)
    _run("serve.deploy", local, raynode.wiring(local, urls, ray_address), steps)
    with steps.step("everything answers (/readyz)"):
        _wait_ready(Client(address), local)
    return address


def _stores(local: Local, steps: _Steps) -> dict[str, str]:
    """The URLs of the stores: the operator's, or those of servers that are started here."""
    urls: dict[str, str] = {}
    servers: list[tuple[str, str, Callable[[], None], str]] = [
        ("PostgreSQL", "DATABASE_URL", local.postgres.start, local.postgres.url),
        ("Valkey", "REDIS_URL", local.valkey.start, local.valkey.url),
    ]
    for what, variable, start, url in servers:
        with steps.step(what):
            if variable not in os.environ:
                start()
            urls[variable] = os.environ.get(variable) or url
    return urls


def _run(module: str, local: Local, wiring: dict[str, str], steps: _Steps) -> None:
    """One that says its steps (`serve.steps`)."""
    environment = raynode.environment(local) | wiring
    log = local.logs / "deploy.log"
    with log.open("wb") as errors:
        command = [sys.executable, "-m", module]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        for line in process.stdout:
            _follow(json.loads(line), steps, local)
    if process.wait():
        raise Unavailable("The fleet could not be deployed.", next=f"See {log}.")


def _follow(said: dict[str, str], steps: _Steps, local: Local) -> None:
    match said["state"]:
        case "begun":
            steps.begin(said["step"])
        case "done":
            steps.end(said["step"])
        case _ if said.get("field") == "FLOTILLA_SECRET":
            raise _other_secret(local, os.environ.get("DATABASE_URL", ""))
        case _:
            raise Unavailable(said["detail"], next=f"See {local.logs / 'deploy.log'} and `flotilla doctor`.")


def _other_secret(local: Local, database: str) -> Misconfigured:
    """The secret is in the home, and the record may lie elsewhere: who removes one has the other still."""
    file = local.home / "visitors.secret"
    place = "DATABASE_URL" if database else str(local.postgres.data)
    anew = "set DATABASE_URL to an empty database" if database else f"remove it: `rm -r {place}`"
    return Misconfigured(
        f"The record in {place} was sealed under another secret than that of {file}.",
        field="FLOTILLA_HOME",
        next=f"Put the {file.name} back that was there when the record was begun. If it is lost, nothing can "
        f"read that record any more: {anew}, and start again.",
    )


def _is_ready(run: Run) -> bool:
    try:
        return Client(run.address).ready()["status"] == "ok"
    except FlotillaError:
        return False


def _wait_ready(client: Client, local: Local) -> None:
    until, said = time.monotonic() + READY_TIMEOUT_S, ""
    while time.monotonic() < until:
        try:
            answer = client.ready()
            if answer["status"] == "ok":
                return
            said = str({name: word for name, word in answer["dependencies"].items() if word != "ok"})
        except FlotillaError as error:
            said = error.detail
        time.sleep(0.2)
    raise Unavailable(f"The fleet is not ready: {said}", next=f"See the logs in {raynode.logs(local)}.")


def _load_docs(client: Client, steps: _Steps) -> None:
    root = Path(__file__).parents[2]
    with steps.step("Flotilla's own documents, so that it can answer questions about itself"):
        for path in (root / name for name in DOCS):
            if path.exists():
                knowledge.load(client, FLOTILLA.collection, path)


def _check_disk(local: Local) -> None:
    free = psutil.disk_usage(str(local.home)).free
    if free < DISK_FREE_MIN:
        raise Misconfigured(
            f"{free >> 20} MB are free at {local.home}; the fleet wants {DISK_FREE_MIN >> 20}.",
            field="FLOTILLA_HOME",
            next="Free disk space, or set FLOTILLA_HOME to another disk.",
        )


def _show(local: Local, address: str, took_s: float | None) -> None:
    took = f" after {took_s:.0f} s" if took_s is not None else ""
    console.print(f"\n[bold green]Ready[/]{took}: [bold]{address}[/]  (open it in a browser)\n")
    if local.run and local.run.grpc:
        console.print(f"gRPC: {local.run.grpc}  (see docs/doors.md)\n", style="dim")
    console.print("Ask it something:\n", style="dim")
    console.print(_curl(address), markup=False, soft_wrap=True)
    console.print(f"\nLogs: {raynode.logs(local)} and {local.logs}", style="dim", soft_wrap=True)
    console.print("Stop it with `make down`.", style="dim")


def _curl(address: str) -> str:
    key = '-H "Authorization: Bearer dev"'
    return (
        f"S=$(curl -s {address}/v1/sessions {key} -d '{{}}' | "
        """python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')\n"""
        f"curl -N {address}/v1/sessions/$S/messages {key} -H 'Accept: text/event-stream' \\\n"
        """  -d '{"id": "m-1", "text": "What happens when a host is killed while it answers?"}'"""
    )
