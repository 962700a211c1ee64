"""`flotilla chat` against a small fleet that misbehaves."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from flotilla.cli import app
from tests.client.server import Mischief, SmallFleet, serving


async def chat(monkeypatch: pytest.MonkeyPatch, fleet: SmallFleet, *words: str, typed: str = "") -> str:
    async with serving(fleet) as url:
        monkeypatch.setenv("FLOTILLA_URL", url)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["chat", *words], input=typed)
    assert done.exception is None, done.exception
    return " ".join(done.output.split())


async def test_a_question_is_answered_over_broken_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet(Mischief(4, cut=0.1, again=0.2))
    said = await chat(monkeypatch, fleet, "How much?", "--agent", "bank")
    (session,) = fleet.sessions.values()
    assert " ".join(session.record[-1]["data"]["text"].split()) in said
    assert "5 ms, of which" in said


async def test_a_conversation_ends_with_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SmallFleet()
    said = await chat(monkeypatch, fleet, typed="One?\nTwo?\n\n")
    (session,) = fleet.sessions.values()
    replies = [event["data"]["text"] for event in session.record if event["type"] == "reply.completed"]
    assert len(replies) == 2 and all(" ".join(reply.split()) in said for reply in replies)


async def test_where_there_is_no_fleet_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(SmallFleet()) as url:
        pass
    monkeypatch.setenv("FLOTILLA_URL", url)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["chat", "Hello?"])
    assert f"No fleet answers at {url}" in str(done.exception)
