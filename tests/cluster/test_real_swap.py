"""Swaps with real weights in vLLM, while people talk: each reply is whole, and of the version that it names.

A version is known by the probabilities of its tokens: those of other weights differ by much more than those
of the same weights in another batch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.asking import Answer, Broken, OpenAI, openai
from benchmarks.operating import Operator, serves, stage
from benchmarks.solo import Asked
from benchmarks.talking import Talk, talking
from models.variants import adapted, rounded, squeezed
from models.weights import prepare
from tests.fleet import QUESTION, TestFleet, join, receive

MODEL = "smollm2"
TIMEOUT_S = 240.0
TOKENS = 16
SAME, OTHER = 2e-3, 1e-2
"""Logprobs of the same weights differ by less than the first, those of others by more than the second."""
QUESTIONS = [
    Asked(messages=[{"role": "user", "content": text}], tokens_max=TOKENS)
    for text in ("What does a bank do?", "Tell me about the sea.", "How do I bake bread?")
]
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


Words = list[list[tuple[str, float]]]
"""Tokens and their logprobs, by question."""


async def words_of(fleet: TestFleet, version: str) -> Words:
    """What a version says when nobody else asks."""
    async with openai(fleet.url) as client:
        return [(await client.ask(asked, version, logprobs=True)).logprobs for asked in QUESTIONS]


def distance(answer: Answer, words: list[tuple[str, float]]) -> float:
    """The largest difference of two logprobs, as far as both say the same; endless if they begin apart."""
    pairs = list(zip(answer.logprobs, words, strict=False))
    same = next((n for n, (mine, theirs) in enumerate(pairs) if mine[0] != theirs[0]), len(pairs))
    return max((abs(mine[1] - theirs[1]) for mine, theirs in pairs[:same]), default=float("inf"))


def assert_honest(talk: Talk, known: dict[str, Words]) -> dict[str, int]:
    """Nobody was failed or cut, and each reply is of the version that it names, from its first token to its
    last, and of no other. How many each made."""
    made = dict.fromkeys(known, 0)
    for said in talk.said:
        assert not said.problem and said.answer is not None, said
        assert said.answer.reply.tokens == len(said.answer.logprobs) > 0
        apart = {version: distance(said.answer, words[said.question]) for version, words in known.items()}
        assert apart.pop(said.answer.version) < SAME, (said, apart)
        assert min(apart.values()) > OTHER, (said, apart)
        made[said.answer.version] += 1
    return made


# -- in the order in which an operator does it: each test goes on from where the one before it ended


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


async def until_known(client: OpenAI, version: str, timeout_s: float = 10) -> Answer:
    """A gateway reads of a new version with its next look at the plans."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await client.ask(QUESTIONS[0], version, logprobs=True)
            except Broken as broken:
                if not str(broken).startswith("404"):
                    raise
