"""The whole thing on real parts: real weights in vLLM, real passages, real citations, over every door."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page_probe import (
    ask,
    browser_page,
    open_citation,
    open_page,
    screenshot,
    wait_completed,
)
from tests.fleet import BANK, TestFleet, join, receive

TEXTS = {document["id"]: document["text"] for document in BANK}


@pytest.fixture(scope="module")
def real() -> Iterator[TestFleet]:
    fleet = TestFleet(FLOTILLA_MODEL="smollm2")
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()


def assert_honest(reply: dict[str, Any]) -> None:
    """Whatever a small model says: quotes are verbatim, and what is unsupported says so."""
    assert reply["model"] == "smollm2@1" and reply["usage"]["completion_tokens"] > 0
    for citation in reply["citations"]:
        assert citation["quote"] in TEXTS[citation["document"]]
        assert 0 <= citation["start"] < citation["end"] <= len(reply["text"])
    assert bool(reply["citations"]) != reply["offers_person"]


def test_over_http(real: TestFleet) -> None:
    reply = real.ask(real.session(), "How much does the Gold Card cost a year?")["data"]
    assert_honest(reply)
    assert reply["citations"], f"the model quotes its passages here: {reply['text']}"


def test_a_team_answers_with_quotes(real: TestFleet) -> None:
    """A router, two desks and a reviewer, each an actor (examples/team.py), on the same model."""
    reply = real.ask(real.session("team"), "How much does the Gold Card cost a year?")["data"]
    assert reply["model"] == "team:router" and reply["citations"], reply["text"]
    for citation in reply["citations"]:
        assert citation["quote"] in TEXTS[citation["document"]]


def test_over_a_socket_whose_host_and_model_are_killed(real: TestFleet) -> None:
    session = real.session()
    with real.socket(session) as socket:
        socket.send(
            json.dumps({"type": "message", "id": "m-1", "text": "How do I dispute a card transaction?"})
        )
        seen = list(receive(socket, until="reply.delta"))
        real.process("ray::Host").kill()
        real.process("VLLM::EngineCore").kill()
        seen += receive(socket, until="reply.completed", timeout_s=120)
    assert join(seen) == seen[-1]["data"]["text"]
    assert [event["seq"] for event in seen if event["type"] != "reply.delta"] == [1, 2, 3, 4]
    assert_honest(seen[-1]["data"])


async def test_in_a_browser(real: TestFleet, tmp_path: Path) -> None:
    """The picture is the one in the README: `SCREENSHOTS=docs/images` puts it there."""
    picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "page.png"
    async with browser_page(size=(1280, 860)) as page:
        await open_page(page, f"{real.url}/?agent=bank")
        await ask(page, "How much does the Gold Card cost a year?")
        reply = await wait_completed(page)
        assert reply["text"] and reply["timing"]["generation"] > 0
        assert len(reply["citations"]) == len(reply["sources"]) > 0
        await page.get_by_test_id("timing").last.click()
        await open_citation(page)
        await screenshot(page, picture)
    assert picture.stat().st_size > 10_000
