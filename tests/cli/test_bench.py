"""`flotilla bench` hands its words on to the load fleet, which stands above it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flotilla.cli import app


def test_the_scenarios_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "list"]).exit_code == 0
    said = capfd.readouterr().out
    assert "sockets" in said
    assert "10,000 open WebSocket conversations" in said


def test_an_unknown_scenario_ends_with_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "run", "nothing"]).exit_code == 2
    said = capfd.readouterr().out
    assert "no scenario 'nothing'" in said
    assert "sockets" in said


def test_an_unknown_client_ends_with_those_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "run", "mini", "--client", "browser"]).exit_code == 2
    said = capfd.readouterr().err
    assert "lean" in said
    assert "library" in said


def test_an_unknown_run_is_named() -> None:
    assert CliRunner().invoke(app, ["bench", "report", "nothing-of-that-name"]).exit_code != 0
