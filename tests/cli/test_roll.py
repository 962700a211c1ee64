"""Rolling that can't be done as asked, or stops in the middle: said before anything is changed, or where it stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from flotilla.cli import roll
from flotilla.cli.local import Local, Run
from flotilla.core.errors import FlotillaError, Misconfigured, NotFound, Refused, Unavailable
from serve.settings import read_settings

STORES = {"DATABASE_URL": "postgresql://elsewhere/db", "REDIS_URL": "redis://elsewhere"}


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was started, with the environment that it got."""
    monkeypatch.setenv("FLOTILLA_HOME", str(tmp_path))
    for name in STORES:
        monkeypatch.delenv(name, raising=False)
    found: list[dict[str, Any]] = []

    def run(command: list[str], **options: Any) -> Any:
        found.append({"command": command, **options})
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(roll.subprocess, "run", run)
    monkeypatch.setattr(roll.raynode, "environment", _environment)
    return found


def _environment(_: Local) -> dict[str, str]:
    return {}


def up(*, embedded: bool, bind: str = "127.0.0.1") -> None:
    local = Local()
    local.logs.mkdir(parents=True, exist_ok=True)
    local.remember(
        Run(
            name=local.name,
            address=f"http://{bind}:8080",
            grpc=f"{bind}:8090",
            ray_address="127.0.0.1:2",
            embedded_postgres=embedded,
            embedded_valkey=embedded,
        )
    )


@pytest.mark.parametrize("missing", STORES)
def test_gateways_are_not_rolled_onto_other_stores_than_the_hosts(
    missing: str, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    up(embedded=False)
    for name, url in STORES.items():
        if name != missing:
            monkeypatch.setenv(name, url)
    with pytest.raises(Misconfigured) as refused:
        roll.roll(["gateways"])
    assert refused.value.field == missing and not started
    monkeypatch.setenv(missing, STORES[missing])
    roll.roll(["gateways"])
    (done,) = started
    assert {name: done["env"][name] for name in STORES} == STORES
    assert not any("elsewhere" in word for word in done["command"])  # anybody may read those


@pytest.mark.parametrize("set", STORES)
def test_nor_from_the_fleets_own_stores_to_others(
    set: str, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    up(embedded=True)
    monkeypatch.setenv(set, STORES[set])
    with pytest.raises(Misconfigured) as refused:
        roll.roll(["gateways"])
    assert refused.value.field == set and not started


def test_gateways_believe_that_they_listen_where_they_do(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve goes on listening where `up` had it. A gateway that believed it was on loopback would take the key
    `dev` from anybody."""
    up(embedded=True, bind="0.0.0.0")
    for name in ("FLOTILLA_BIND", "FLOTILLA_PORT", "FLOTILLA_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    roll.roll(["gateways"])
    environ = started[0]["env"]
    assert environ["FLOTILLA_BIND"] == "0.0.0.0"
    assert (environ["FLOTILLA_PORT"], environ["FLOTILLA_GRPC_PORT"]) == ("8080", "8090")
    assert not read_settings(environ).on_loopback


def test_gateways_that_do_not_come_are_an_error_with_a_log(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    up(embedded=True)

    def late(command: list[str], **_: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 1.0, output=b"half-way", stderr=b"waiting")

    monkeypatch.setattr(roll.subprocess, "run", late)
    with pytest.raises(Unavailable, match="could not be rolled"):
        roll.roll(["gateways"])
    assert "waiting" in (Local().logs / "roll.log").read_text()


def test_without_a_fleet_nothing_is_started(started: list[dict[str, Any]]) -> None:
    with pytest.raises(NotFound):
        roll.roll(["gateways"])
    with pytest.raises(Refused) as refused:
        roll.roll(["gateways", "nonsense"])
    assert refused.value.field == "WHAT" and not started


class Operator:
    """A gateway that drains what it is told to, at once."""

    def __init__(self, hosts: list[str], gone: str = "") -> None:
        self.hosts, self.gone, self.drained = hosts, gone, list[str]()

    def call(self, method: str, path: str) -> dict[str, Any]:
        if method == "GET":
            return {"hosts": [{"name": name, "state": "up", "role": "host"} for name in self.hosts]}
        name = path.split("/")[-2]
        self.drained.append(name)
        self.hosts = [f"new-{name}" if host == name else host for host in self.hosts]
        if name == self.gone:
            raise NotFound("There is no such host.")
        return {}


def test_a_host_that_went_by_itself_does_not_stop_the_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(["a", "b", "c"], gone="b")
    monkeypatch.setattr(roll, "Client", lambda: operator)
    roll.roll(["hosts"])
    assert operator.drained == ["a", "b", "c"] and operator.hosts == ["new-a", "new-b", "new-c"]


def test_what_can_not_be_drained_stops_it_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(["a", "b"])

    def refused(method: str, path: str) -> Any:
        if method == "POST":
            raise Unavailable("Not now.")
        return Operator.call(operator, method, path)

    monkeypatch.setattr(operator, "call", refused)
    monkeypatch.setattr(roll, "Client", lambda: operator)
    with pytest.raises(FlotillaError):
        roll.roll(["hosts"])
    assert operator.hosts == ["a", "b"]
