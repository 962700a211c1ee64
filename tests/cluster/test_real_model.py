"""The whole thing on real parts: real weights in vLLM, real passages, real citations, over every door; then swaps
of them while people talk, where each reply is whole, and of the version that it names."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.asking import Broken, openai
from benchmarks.operating import Operator, serves, stage
from benchmarks.talking import talking
from models.variants import adapted, rounded, squeezed
from models.weights import prepare
from tests.browser.page_probe import (
    ask,
    browser_page,
    open_citation,
    open_page,
    screenshot,
    wait_completed,
)
from tests.cluster.words import OTHER, QUESTIONS, SAME, Words, assert_honest, distance, until_known, words_of
from tests.fleet import BANK, QUESTION, TestFleet, join, receive

TEXTS = {document["id"]: document["text"] for document in BANK}
MODEL = "smollm2"
TIMEOUT_S = 240.0
# The engines share two cores: what is tested is whole replies, not their times.
BUDGETS = {"first_token_ratio_max": 1000.0}
STEPS = [{"canary": {"percent": 50.0}, "hold_s": 1.0, "replies_min": 1, "hold_max_s": 20.0}]
ADAPTERS = {"adapters_max": 2, "adapter_rank_max": 8}
ACME, OTHERS = "acme-key-0123456789", "others-key-0123456789"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def real() -> Iterator[TestFleet]:
    keys = f"acme:{ACME},others:{OTHERS}"
    fleet = TestFleet(FLOTILLA_MODEL=MODEL, FLOTILLA_API_KEYS=keys, FLOTILLA_MODEL_THREADS="1")
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()


# -- replies


def assert_quoted(reply: dict[str, Any]) -> None:
    """Whatever a small model says: quotes are verbatim, and what is unsupported says so."""
    assert reply["model"] == "smollm2@1" and reply["usage"]["completion_tokens"] > 0
    for citation in reply["citations"]:
        assert citation["quote"] in TEXTS[citation["document"]]
        assert 0 <= citation["start"] < citation["end"] <= len(reply["text"])
    assert bool(reply["citations"]) != reply["offers_person"]


def test_over_http(real: TestFleet) -> None:
    reply = real.ask(real.session(), "How much does the Gold Card cost a year?")["data"]
    assert_quoted(reply)
    assert reply["citations"], f"the model quotes its passages here: {reply['text']}"


def test_a_team_answers_with_quotes(real: TestFleet) -> None:
    """A router, two desks and a reviewer, each an actor (examples/team.py), on the same model."""
    reply = real.ask(real.session("team"), "How much does the Gold Card cost a year?")["data"]
    assert reply["model"] == "team:router" and reply["citations"], reply["text"]
    for citation in reply["citations"]:
        assert citation["quote"] in TEXTS[citation["document"]]


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


def until_it_answers_itself(real: TestFleet) -> None:
    """Right after an outage somebody else may answer new questions, and plainer."""
    until = time.monotonic() + 60
    while real.ask(real.session(), QUESTION)["data"]["model"] != "smollm2@1":
        assert time.monotonic() < until


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
    assert_quoted(seen[-1]["data"])
    until_it_answers_itself(real)


# -- swaps, in the order in which an operator does it: each test goes on from where the one before it ended


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def operator(real: TestFleet) -> AsyncIterator[Operator]:
    operator = Operator(real.url, MODEL)
    weights = prepare(real.home / "cache")
    await operator.add("2", source=str(squeezed(weights)), settings=ADAPTERS)
    await operator.add("3", source=str(rounded(weights)))
    yield operator
    await operator.close()


@pytest.fixture(scope="module")
def known() -> dict[str, Words]:
    """What each version says, once it has been asked."""
    return {}


async def test_a_swap_beside_under_load(real: TestFleet, operator: Operator, known: dict[str, Words]) -> None:
    known["smollm2@1"] = await words_of(real, "smollm2@1")
    async with talking(real.url, MODEL, QUESTIONS, 3, logprobs=True) as talk:
        await talk.until_more(3)
        await operator.swap("2", steps=STEPS, budgets=BUDGETS, keep_s=3600)
        await operator.until(lambda view: stage(view) == "promoted", TIMEOUT_S)
        await talk.until_more(6)
    known["smollm2@2"] = await words_of(real, "smollm2@2")
    assert min(assert_honest(talk, known).values()) >= 3
    assert talk.said[-1].answer and talk.said[-1].answer.version == "smollm2@2"


async def test_an_adapter_of_one_tenant(real: TestFleet, operator: Operator, known: dict[str, Words]) -> None:
    folder = adapted(prepare(real.home / "cache"))
    await operator.add("tone", adapter=str(folder), base="smollm2@2", tenants=["acme"])
    async with openai(real.url, ACME) as acme, openai(real.url, OTHERS) as others:
        toned = await until_known(acme, "smollm2@tone")
        assert toned.version == "smollm2@tone"
        assert distance(toned, known["smollm2@2"][0]) > OTHER
        for client in (acme, others):  # its base is what it was
            plain = await client.ask(QUESTIONS[0], MODEL, logprobs=True)
            assert plain.version == "smollm2@2" and distance(plain, known["smollm2@2"][0]) < SAME
        with pytest.raises(Broken, match=r"404.*smollm2@tone"):
            await others.ask(QUESTIONS[0], "smollm2@tone")
    shown = await operator.until(lambda view: any(r["adapters"] for r in view["replicas"]), 10)
    assert [r["adapters"] for r in shown["replicas"] if r["adapters"]] == [["smollm2@tone"]]


async def test_back_under_load(real: TestFleet, operator: Operator, known: dict[str, Words]) -> None:
    async with talking(real.url, MODEL, QUESTIONS, 3, logprobs=True) as talk:
        await talk.until_more(3)
        await operator.steer("rollback")
        await operator.until(lambda view: view["serving"]["stable"] == "smollm2@1", 5)
        await operator.until(lambda view: not view["swap"] and not serves(view, "2"), TIMEOUT_S)
        await talk.until_more(3)
    assert min(assert_honest(talk, known).values()) >= 3
    assert talk.said[-1].answer and talk.said[-1].answer.version == "smollm2@1"


async def test_in_place_while_somebody_talks(
    real: TestFleet, operator: Operator, known: dict[str, Words]
) -> None:
    session, seen = real.session(), list[list[dict[str, Any]]]()

    def turn(number: int) -> None:
        with real.socket(session, after=str(seen[-1][-1]["seq"] if seen else 1)) as socket:
            socket.send(json.dumps({"type": "message", "id": f"m-{number}", "text": QUESTION}))
            seen.append(list(receive(socket, until="reply.completed", timeout_s=120)))

    async with talking(real.url, MODEL, QUESTIONS, 2, logprobs=True) as talk:
        await talk.until_more(2)
        first = asyncio.create_task(asyncio.to_thread(turn, 1))
        await operator.swap("3", in_place=True, budgets=BUDGETS, keep_s=1)
        await first
        await operator.until(lambda view: not view["swap"] and serves(view, "3"), TIMEOUT_S)
        await talk.until_more(4)
        await asyncio.to_thread(turn, 2)
    del known["smollm2@2"]
    known["smollm2@3"] = await words_of(real, "smollm2@3")
    assert min(assert_honest(talk, known).values()) >= 2
    for events in seen:
        assert join(events) == events[-1]["data"]["text"]
        assert not [event for event in events if event["type"] in ("reply.rewound", "reply.failed")]
    durable = [event["seq"] for events in seen for event in events if event["type"] != "reply.delta"]
    assert durable == list(range(2, 8))
    assert [events[-1]["data"]["model"] for events in seen][1] == "smollm2@3"
