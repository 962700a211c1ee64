"""What every model behind the `Model` door does, whatever makes its text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter

import msgspec
import pytest
import pytest_asyncio

from flotilla.core.errors import Refused
from flotilla.core.generation import Finished, Piece, Prompt
from flotilla.core.knowledge import Passage
from flotilla.core.policy.prompting import build
from models.paged import VllmModel
from models.scripted import ScriptedModel, ScriptSettings
from tests.contracts import abilities
from tests.contracts.abilities import ask, end_of, run, text_of
from tests.timing import within

Engine = ScriptedModel | VllmModel

ABORT_S_MAX = 0.05

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def scripted() -> AsyncIterator[ScriptedModel]:
    engine = ScriptedModel(ScriptSettings(first_token_s=0.005, token_s=0.001, tick_s=0.001))
    yield engine
    await engine.close()


@pytest.fixture(scope="session", params=["scripted", "vllm"])
def model(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


QUESTIONS = (
    "What is a savings account?",
    "Count from 1 to 30, separated by commas.",
    "Name three European capitals and say one thing about each.",
)


async def test_pieces_then_one_finished(model: Engine) -> None:
    out = await run(model, ask(QUESTIONS[0], tokens_max=40))
    assert len(out) > 3
    assert all(isinstance(g, Piece) and g.text and g.tokens > 0 for g in out[:-1])
    assert isinstance(out[-1], Finished)


async def test_usage_adds_up(model: Engine) -> None:
    out = await run(model, ask(QUESTIONS[0], tokens_max=40))
    end, shown = end_of(out), sum(g.tokens for g in out if isinstance(g, Piece))
    # A token that ends the turn has no text, so it is counted and never shown.
    assert 0 <= end.usage.completion_tokens - shown <= 1
    assert 0 < end.usage.completion_tokens <= 40
    assert 0 <= end.usage.cached_tokens <= end.usage.prompt_tokens
    assert 0 < end.first_token_ms <= end.total_ms


async def test_greedy_says_the_same_twice(model: Engine) -> None:
    first, second = [text_of(await run(model, ask(QUESTIONS[1], tokens_max=30))) for _ in range(2)]
    assert first == second


async def test_seed_decides_above_temperature_zero(model: Engine) -> None:
    def prompt(seed: int) -> Prompt:
        return ask("Tell me a story.", tokens_max=30, temperature=1.0, seed=seed)

    texts = [text_of(await run(model, prompt(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_stop_string_ends_the_reply_and_is_not_shown(model: Engine) -> None:
    whole = text_of(await run(model, ask(QUESTIONS[0], tokens_max=40)))
    stop = whole[len(whole) // 2 :][:5]
    out = await run(model, ask(QUESTIONS[0], tokens_max=40, stop=("not in there at all", stop)))
    assert text_of(out) == whole[: whole.index(stop)]
    assert end_of(out).reason == "stop"


async def test_tokens_max_ends_the_reply(model: Engine) -> None:
    out = await run(model, ask(QUESTIONS[1], tokens_max=5))
    assert end_of(out).reason == "length"
    assert end_of(out).usage.completion_tokens == 5


@pytest.mark.parametrize("question", QUESTIONS)
async def test_goes_on_from_any_character(model: Engine, question: str) -> None:
    prompt = ask(question, tokens_max=30)
    whole = text_of(await run(model, prompt))
    gate = asyncio.Semaphore(16)

    async def continued(at: int) -> str:
        async with gate:
            again = ask(question, tokens_max=30, said=whole[:at])
            return whole[:at] + text_of(await run(model, again))

    # Every third of them, as each costs a reply; and behind the whole.
    cuts = [*range(0, len(whole), 3), len(whole)]
    joined = await asyncio.gather(*map(continued, cuts))
    different = {at: text for at, text in zip(cuts, joined, strict=True) if text != whole}
    assert not different, (whole, different)


async def test_goes_on_from_any_word_of_an_answer_from_sources(model: Engine) -> None:
    """The layout that sessions use, whose sources steer an engine with a small model."""
    found = "A wire transfer costs $25 within the country.\nAbroad it costs $45 and takes 3 days."
    passage = Passage(id="fees#0", document="fees", title="Wire transfers", text=found)
    prompt = build("You work for a bank.", [passage], [], "How much is a wire transfer?", tokens_max=40)
    whole = text_of(await run(model, prompt))
    assert whole
    for at in range(0, len(whole), 7):
        again = msgspec.structs.replace(prompt, said=whole[:at])
        assert whole[:at] + text_of(await run(model, again)) == whole


async def test_nothing_follows_a_whole_reply(model: Engine) -> None:
    short = "Answer with one word: what is the capital of France?"
    whole = await run(model, ask(short, tokens_max=200))
    assert end_of(whole).reason == "stop"
    out = await run(model, ask(short, tokens_max=200, said=text_of(whole)))
    assert text_of(out) == ""
    assert end_of(out).reason == "stop"


async def test_goes_on_from_what_another_model_said(model: Engine) -> None:
    said = "Zürich — 日本語 👩‍👩‍👧 is where your acc"
    out = await run(model, ask(QUESTIONS[0], tokens_max=40, said=said))
    assert "\ufffd" not in text_of(out)
    assert end_of(out).usage.completion_tokens > 0


async def test_closing_the_iterator_aborts(model: Engine) -> None:
    async def close() -> float:
        async with aclosing(model.generate(ask("Write a long story.", tokens_max=200))) as stream:
            assert isinstance(await anext(stream), Piece)
            assert model.unfinished == 1
            closed_at = perf_counter()
        assert model.unfinished == 0
        return perf_counter() - closed_at

    await within(ABORT_S_MAX, close)


async def test_cancelling_the_reader_aborts(model: Engine) -> None:
    started = asyncio.Event()

    async def read() -> None:
        async for _ in model.generate(ask("Write a long story.", tokens_max=200)):
            started.set()

    reader = asyncio.create_task(read())
    await started.wait()
    reader.cancel()
    assert isinstance((await asyncio.gather(reader, return_exceptions=True))[0], asyncio.CancelledError)
    assert model.unfinished == 0


async def test_a_prompt_too_long_is_refused_with_the_next_move(model: Engine) -> None:
    with pytest.raises(Refused) as refused:
        await run(model, ask("word " * 20_000))
    assert refused.value.field == "messages"
    assert refused.value.next
    assert model.unfinished == 0


async def test_no_character_is_split(model: Engine) -> None:
    prompt = ask("Repeat: 👩‍👩‍👧 日本語 👍🏽 Zürich", tokens_max=60, said="👩‍👩‍👧 日本")
    texts = [g.text for g in await run(model, prompt) if isinstance(g, Piece)]
    assert texts
    assert "\ufffd" not in "".join(texts)
    assert all(text.encode() for text in texts)


async def test_sixteen_at_once(model: Engine) -> None:
    prompts = [ask(f"What is {n} plus {n}? Explain in detail.", tokens_max=24) for n in range(16)]
    outs = await asyncio.gather(*(run(model, prompt) for prompt in prompts))
    assert all(text_of(out) for out in outs)
    assert all(sum(isinstance(g, Finished) for g in out) == 1 for out in outs)
    assert model.unfinished == 0


async def test_ping_and_name(model: Engine) -> None:
    await model.ping()
    assert model.name
    assert model.name in repr(model)


ABILITIES: list[Callable[[Engine], Awaitable[None]]] = [
    abilities.fits_a_schema,
    abilities.refuses_what_is_no_schema,
    abilities.calls_the_tool_that_it_must,
    abilities.calls_none_that_it_may_not,
    abilities.refuses_a_choice_that_is_no_tool,
    abilities.goes_on_from_the_answer_of_a_tool,
    abilities.goes_on_from_raw_text,
    abilities.reports_logprobs,
    abilities.says_what_it_is_busy_with,
]


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.__name__)
async def test_it_can(model: Engine, ability: Callable[[Engine], Awaitable[None]]) -> None:
    await ability(model)
    assert model.unfinished == 0


async def test_half_of_many_cancelled(model: Engine) -> None:
    await abilities.ends_all_when_cancelled(model, 12)
    assert model.unfinished == 0
