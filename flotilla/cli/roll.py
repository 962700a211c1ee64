"""`flotilla roll`: processes of a running fleet are replaced, one after the other, and no turn fails by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

import typer

from flotilla.cli import raynode
from flotilla.cli.client import Client
from flotilla.cli.local import Local, Run
from flotilla.cli.screen import console
from flotilla.core.errors import FlotillaError, Misconfigured, NotFound, Refused, Unavailable

REPLACED_WITHIN_S = 240.0
GATEWAYS_WITHIN_S = 300.0
LOOK_EVERY_S = 0.5


def roll(
    what: Annotated[list[str], typer.Argument(metavar="gateways|hosts|models …", help="In this order.")],
) -> None:
    """Replace gateways, hosts or model replicas one by one, with what lies on the disk now. Wants an
    operator's key. Gateways take the settings of this environment, too, but for where they listen."""
    for kind in what:
        if kind not in _ROLLS:
            raise Refused(f"Nothing is called {kind!r}.", field="WHAT", next=f"Choose {', '.join(_ROLLS)}.")
    for kind in what:
        _ROLLS[kind]()
        console.print(f"[green]✓[/] {kind}")


def _gateways() -> None:
    local = Local()
    run = local.run
    if run is None:
        raise NotFound("No fleet runs here.", field="FLOTILLA_HOME", next="Start one: `flotilla up`.")
    urls = {
        "DATABASE_URL": _store("DATABASE_URL", embedded=run.embedded_postgres) or local.postgres.url,
        "REDIS_URL": _store("REDIS_URL", embedded=run.embedded_valkey) or local.valkey.url,
    }
    log = local.logs / "roll.log"
    failed = Unavailable("The gateways could not be rolled.", next=f"See {log}.")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "serve.roll"],
            env=raynode.environment(local) | raynode.wiring(local, urls, run.ray_address) | _addresses(run),
            capture_output=True,
            timeout=GATEWAYS_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        log.write_bytes((late.stdout or b"") + (late.stderr or b""))
        raise failed from None
    if done.returncode:
        log.write_bytes(done.stdout + done.stderr)
        raise failed


def _addresses(run: Run) -> dict[str, str]:
    """Serve goes on listening there. Gateways that believed they were on loopback would take the key `dev`."""
    bind, _, port = run.address.removeprefix("http://").rpartition(":")
    return {
        "FLOTILLA_BIND": bind,
        "FLOTILLA_PORT": port,
        "FLOTILLA_GRPC_PORT": run.grpc.rpartition(":")[2] or "0",
    }


def _store(name: str, *, embedded: bool) -> str:
    """Its URL; "" for the fleet's own. Gateways on another store than the hosts would know no session."""
    url = os.environ.get(name, "")
    if embedded == (not url):
        return url
    how = "with its own store" if embedded else f"with another {name}"
    raise Misconfigured(
        f"The fleet was started {how}.",
        field=name,
        next=f"Unset {name}, or start the fleet again." if embedded else f"Set {name} as it was for `up`.",
    )


def _hosts() -> None:
    _each("hosts", lambda one: one["state"] == "up" and one["role"] == "host")


def _models() -> None:
    _each("replicas", lambda one: one["state"] == "up")


def _each(path: str, up: Callable[[dict[str, Any]], bool]) -> None:
    """Drains those that are up now, and waits each time until it is gone and as many are up as before."""
    client = Client()
    before = _names(client, path, up)
    for name in before:
        with contextlib.suppress(NotFound):  # it has gone by itself
            client.call("POST", f"/v1/{path}/{quote(name, safe='')}/drain")
        _wait(client, path, up, name, len(before))


def _wait(client: Client, path: str, up: Callable[[dict[str, Any]], bool], name: str, count: int) -> None:
    until = time.monotonic() + REPLACED_WITHIN_S
    while time.monotonic() < until:
        try:
            now = _names(client, path, up)
            if name not in now and len(now) >= count:
                return
        except FlotillaError:  # the one that was asked may be the one that goes
            pass
        time.sleep(LOOK_EVERY_S)
    raise Unavailable(
        f"{name} was not replaced in {REPLACED_WITHIN_S:g} s.", next="See `flotilla status` and its log."
    )


def _names(client: Client, path: str, up: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [one["name"] for one in client.call("GET", f"/v1/{path}")[path] if up(one)]


_ROLLS: dict[str, Callable[[], None]] = {"gateways": _gateways, "hosts": _hosts, "models": _models}
