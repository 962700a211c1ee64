"""The engines without weights as engines: structure, tools, adapters, reloading, load, and misbehaving for
drills. What they do as models is in `test_model.py` and `tests/core/test_scripted.py`."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.errors import AdapterMissing, Misconfigured, Refused, Unavailable, Unsupported
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, ToolSpec
from flotilla.core.knowledge import Passage
from flotilla.core.policy.prompting import build
from flotilla.core.ports import Engine
from flotilla.core.versions import Version
from models.engines import open_engine
from models.extract import ExtractModel
from models.instances import instance
from models.quoting import NOTHING_TO_QUOTE
from models.scripted import ScriptedModel

QUICK = {"first_token_s": 0, "token_s": 0}


async def scripted(folder: str = "", **more: Any) -> ScriptedModel:
    engine = await open_engine(version("scripted", **(QUICK | more)), folder, threads=1)
    assert isinstance(engine, ScriptedModel)
    return engine


async def extract(**more: Any) -> Engine:
    return await open_engine(version("extract", **more), "", threads=1)


def version(engine: Any, **given: Any) -> Version:
    return Version(model="talker", name="1", engine=engine, settings=given)


def ask(text: str = "What is a fee?", **more: Any) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text=text),), **more)


async def run(model: Engine, prompt: Prompt) -> list[Generated]:
    return [generated async for generated in model.generate(prompt)]


def text_of(out: list[Generated]) -> str:
    return "".join(g.text for g in out if isinstance(g, Piece))


def end_of(out: list[Generated]) -> Finished:
    assert isinstance(out[-1], Finished)
    return out[-1]


async def say(model: Engine, prompt: Prompt) -> str:
    return text_of(await run(model, prompt))


# -- opening


async def test_an_engine_is_opened_by_name_and_named_by_its_version() -> None:
    for engine in (await scripted(), await extract()):
        assert engine.name == "talker@1"
        await engine.ping()
        await engine.close()
        with pytest.raises(Unavailable):
            await engine.ping()


@pytest.mark.parametrize(
    ("engine", "given", "field"),
    [
        ("scripted", {"tempo": 3}, "settings.tempo"),
        ("scripted", {"seed": "seven"}, "settings.seed"),
        ("scripted", {"mode": "sings"}, "settings.mode"),
        ("extract", {"weights": "w"}, "settings.weights"),
        ("no-such-engine", {}, "engine"),
    ],
)
async def test_settings_that_do_not_fit_are_named(engine: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(Misconfigured) as unfit:
        await open_engine(version(engine, **given), "", threads=1)
    assert (unfit.value.field, bool(unfit.value.next)) == (field, True)


# -- structure


NODE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
    "required": ["next"],
}
TREE = {
    "type": "object",
    "properties": {"leaves": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "required": ["leaves"],
}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "number", "minimum": 3, "maximum": 4}, "minItems": 2},
    {"type": "integer", "exclusiveMinimum": 5, "maximum": 6},
    {"type": "integer", "maximum": -10, "multipleOf": 7},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    {"type": "boolean"},
    {"type": ["string", "null"], "minLength": 40, "maxLength": 41},
    {"type": "string", "format": "date-time"},
    {"enum": ["yes", "no", 3, None]},
    {"const": {"kind": [1, 2]}},
    {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 2},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "maxItems": 2},
    {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    {
        "$defs": {"tree": TREE},
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/tree"}, "a/b": {"type": "string"}},
        "required": ["tree", "a/b"],
        "additionalProperties": False,
    },
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_replies_fit_their_schema(schema: dict[str, Any]) -> None:
    model = await scripted()
    for seed in range(5):
        prompt = ask(schema=json.dumps(schema), temperature=1.0, seed=seed, tokens_max=1000)
        out = await run(model, prompt)
        jsonschema.validate(json.loads(text_of(out)), schema)
        assert end_of(out).reason == "stop"
        assert text_of(await run(model, prompt)) == text_of(out)


leaves = st.one_of(
    st.fixed_dictionaries({"type": st.just("integer"), "minimum": st.integers(-50, 50)}),
    st.fixed_dictionaries({"type": st.just("string"), "minLength": st.integers(0, 30)}),
    st.fixed_dictionaries({"enum": st.lists(st.integers(), min_size=1, max_size=3)}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "number", "maximum": -3}, True]),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            inner,
            st.integers(0, 3),
        ),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)},
            st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ),
    ),
    max_leaves=8,
)


@given(schema=schemas, seed=st.binary(max_size=4))
@settings(max_examples=150)
def test_whatever_the_schema_an_instance_fits(schema: Any, seed: bytes) -> None:
    root = {"allOf": [schema]} if schema is True else schema
    jsonschema.validate(instance(root, seed), root)


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        '{"type": "fish"}',
        '{"enum": []}',
        '{"type": "integer", "minimum": 3, "maximum": 2}',
        '{"$ref": "#/$defs/nowhere"}',
        '{"$ref": "https://example.com/schema"}',
        '{"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}',
        '{"type": "string", "pattern": "^a+$"}',
        '{"type": "array", "minItems": 100000000}',
        '{"type": "array", "minItems": "three"}',
        '{"type": "integer", "minimum": [1]}',
        '{"properties": [], "required": 7}',
        '{"properties": {"a": 3}, "required": ["a"]}',
    ],
)
async def test_a_schema_that_makes_no_sense_is_refused(schema: str) -> None:
    with pytest.raises(Refused) as refused:
        await run(await scripted(), ask(schema=schema))
    assert (refused.value.field, bool(refused.value.next)) == ("schema", True)


CARD = ToolSpec(
    name="block_card",
    description="Blocks a card that was lost.",
    parameters='{"type":"object","properties":{"days":{"type":"integer"}},"required":["days"]}',
)
RATES = ToolSpec(name="rates", description="Interest rates of savings.")


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("I lost my card.", "auto", "block_card"),
        ("What are the rates?", "auto", "rates"),
        ("Hello!", "auto", ""),
        ("I lost my card.", "none", ""),
        ("Hello!", "required", "block_card"),
        ("I lost my card.", "rates", "rates"),
    ],
)
async def test_tools_are_called_when_they_fit(text: str, choice: str, called: str) -> None:
    out = await run(await scripted(), ask(text, tools=(CARD, RATES), tool_choice=choice))
    assert [call.name for call in end_of(out).calls] == ([called] if called else [])
    assert (end_of(out).reason == "tools", text_of(out) == "") == (bool(called), bool(called))
    if called == "block_card":
        jsonschema.validate(json.loads(end_of(out).calls[0].arguments), json.loads(CARD.parameters))
        assert end_of(out).usage.completion_tokens > 0


async def test_it_speaks_when_a_tool_has_answered() -> None:
    model, asked = await scripted(), ChatMessage(role="user", text="I lost my card.")
    calls = end_of(await run(model, Prompt(messages=(asked,), tools=(CARD,)))).calls
    called = ChatMessage(role="assistant", text="", calls=calls)
    answered = ChatMessage(role="tool", text="Blocked.", answers=calls[0].id)
    out = await run(model, Prompt(messages=(asked, called, answered), tools=(CARD,)))
    assert (end_of(out).reason, bool(text_of(out))) == ("stop", True)


async def test_a_tool_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        await run(await scripted(), ask(tools=(CARD,), tool_choice="sing"))
    assert refused.value.field == "tool_choice"


@pytest.mark.parametrize("alternatives", [0, 1, 20])
async def test_logprobs_are_the_same_each_time(alternatives: int) -> None:
    model = await scripted()
    one, two = [await run(model, ask(logprobs=alternatives)) for _ in range(2)]
    assert one[:-1] == two[:-1]
    found = [logprob for g in one if isinstance(g, Piece) for logprob in g.logprobs]
    assert "".join(logprob.token for logprob in found) == text_of(one)
    for logprob in found:
        assert len(logprob.top) == alternatives
        values = [other.logprob for other in logprob.top]
        assert values == sorted(values, reverse=True)
        assert all(value <= 0 for value in (*values, logprob.logprob))


async def test_raw_text_is_gone_on_with() -> None:
    model = await scripted()
    one, other = [await say(model, Prompt(raw=raw)) for raw in ("Once upon", "Twice upon")]
    assert (one != other, bool(one)) == (True, True)
    assert one[:9] + await say(model, Prompt(raw="Once upon", said=one[:9])) == one


# -- adapters and reloading


async def test_an_adapter_can_be_seen_and_the_oldest_goes(tmp_path: Path) -> None:
    model = await scripted(adapters_max=2)
    with pytest.raises(AdapterMissing):
        await run(model, ask(adapter="a@1"))
    plain = await say(model, ask())
    for id in ("a@1", "b@1"):
        await model.load_adapter(id, str(tmp_path))
    told = await say(model, ask(adapter="a@1"))
    assert told.startswith("(a@1) ")
    assert told != await say(model, ask(adapter="b@1")) != plain
    await say(model, ask(adapter="a@1"))
    await model.load_adapter("c@1", str(tmp_path))  # b was used longest ago
    assert set(model.load().adapters) == {"a@1", "c@1"}
    await model.unload_adapter("a@1")
    await model.unload_adapter("a@1")
    with pytest.raises(AdapterMissing):
        await run(model, ask(adapter="a@1"))
    assert await say(model, ask()) == plain


async def test_a_broken_adapter_changes_nothing(tmp_path: Path) -> None:
    model = await scripted()
    with pytest.raises(Misconfigured) as missing:
        await model.load_adapter("a@1", str(tmp_path / "nowhere"))
    assert missing.value.field == "adapter"
    assert model.load().adapters == ()


async def test_other_weights_have_other_words(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    model = await scripted(str(one))
    before = await say(model, ask())
    await model.reload(str(two), "talker@2")
    assert model.name == "talker@2"
    assert await say(model, ask()) != before
    assert await say(model, ask()) == await say(await scripted(str(two)), ask())
    await model.reload(str(one), "talker@1")
    assert await say(model, ask()) == before
    with pytest.raises(Misconfigured) as missing:
        await model.reload(str(tmp_path / "three"), "talker@3")
    assert (missing.value.field, model.name) == ("source", "talker@1")


async def test_replies_name_the_version_that_makes_them() -> None:
    model = await scripted(mode="replies", replies=["I am {model}."])
    assert await say(model, ask()) == "I am talker@1."
    await model.reload("", "talker@2")
    assert await say(model, ask()) == "I am talker@2."


# -- load, prefill, capacity


async def test_prompts_are_read_one_after_the_other() -> None:
    model = await scripted(prefill_tokens_per_s=1000)
    started = asyncio.get_running_loop().time()
    tasks = [asyncio.create_task(run(model, ask("word " * 49 + f"{n}"))) for n in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    load = model.load()
    assert (load.running, load.waiting, load.queued_tokens) == (0, 4, 200)
    outs = await asyncio.gather(*tasks)
    assert asyncio.get_running_loop().time() - started >= 0.2
    firsts = sorted(end_of(out).first_token_ms for out in outs)
    assert firsts[0] >= 50
    assert firsts[-1] >= 200
    load = model.load()
    assert (load.running, load.waiting, load.queued_tokens) == (0, 0, 0)
    assert load.first_token_ms == pytest.approx(firsts[-1])


async def test_what_was_read_before_is_not_read_again() -> None:
    model = await scripted(prefill_tokens_per_s=2000, cache_tokens_max=1000)
    first = ask("word " * 200)
    out = await run(model, first)
    assert end_of(out).usage.cached_tokens == 0
    assert end_of(out).first_token_ms >= 100
    answer = ChatMessage(role="assistant", text=text_of(out))
    out = await run(
        model, Prompt(messages=(*first.messages, answer, ChatMessage(role="user", text="And then?")))
    )
    usage = end_of(out).usage
    assert usage.cached_tokens == usage.prompt_tokens - 2
    assert 0.2 < model.load().cache_used <= 1
    for n in range(10):
        await run(model, ask(f"{n} " * 150))
    assert end_of(await run(model, first)).usage.cached_tokens == 0  # let go since
    assert model.load().cache_used <= 1
    await model.reload("", "talker@2")
    assert model.load().cache_used == 0


async def test_a_reader_that_goes_leaves_the_queue() -> None:
    model = await scripted(prefill_tokens_per_s=100)
    slow = asyncio.create_task(run(model, ask("word " * 1000)))
    while not model.load().waiting:
        await asyncio.sleep(0)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert (model.load().queued_tokens, model.unfinished) == (0, 0)
    async with asyncio.timeout(2):  # nobody waits for the one that went
        assert await run(model, ask("short"))


async def test_replies_share_the_capacity() -> None:
    model = await scripted(capacity_tokens_per_s=400, tokens_spread=0, tokens_median=20)

    async def timed(count: int) -> float:
        started = asyncio.get_running_loop().time()
        outs = await asyncio.gather(*(run(model, ask(f"{count} {n}")) for n in range(count)))
        assert all(end_of(out).usage.completion_tokens == 20 for out in outs)
        return asyncio.get_running_loop().time() - started

    alone, eight = await timed(1), await timed(8)
    assert alone >= 20 / 400
    assert eight >= 8 * 20 / 400


# -- misbehaving


async def test_a_share_of_the_replies_breaks_off() -> None:
    def failing(share: float) -> Any:
        return scripted(fail_share=share, seed=3)

    async def outcomes(model: ScriptedModel) -> list[bool]:
        return [await breaks(model, ask(f"{n}")) for n in range(60)]

    async def breaks(model: ScriptedModel, prompt: Prompt) -> bool:
        shown = 0
        try:
            async with aclosing(model.generate(prompt)) as stream:
                async for generated in stream:
                    shown += isinstance(generated, Piece)
        except Unavailable:
            assert shown > 0
            return True
        return False

    one, two = [await outcomes(await failing(0.5)) for _ in range(2)]
    assert one == two
    assert 15 <= sum(one) <= 45
    assert not any(await outcomes(await failing(0)))
    assert all(await outcomes(await failing(1)))


async def test_slow_is_slow_to_the_first_token() -> None:
    model = await scripted(slow_ms=60)
    assert end_of(await run(model, ask())).first_token_ms >= 60
    assert model.load().first_token_ms >= 60


def answered_from(text: str = "A wire transfer costs $25.\nCards are free.", said: str = "") -> Prompt:
    passage = Passage(id="fees#0", document="fees", title="Fees", text=text)
    return build("You work for a bank.", [passage], [], "How much is a wire transfer?", said=said)


async def test_garbled_answers_are_in_no_source() -> None:
    assert await say(await scripted(mode="quote"), answered_from()) == "A wire transfer costs $25."
    garbled = await scripted(mode="quote", garble_share=1.0)
    text = await say(garbled, answered_from())
    assert text
    assert not any(source in text for source in answered_from().sources)
    assert text[:7] + await say(garbled, answered_from(said=text[:7])) == text


# -- the plainest engine


async def test_extract_quotes_the_sentence_that_fits() -> None:
    model = await extract()
    out = await run(model, answered_from())
    assert text_of(out) == "A wire transfer costs $25."
    assert end_of(out).reason == "stop"
    assert end_of(out).usage.completion_tokens == 5
    assert await say(model, answered_from("Nothing of the kind.")) == NOTHING_TO_QUOTE
    assert end_of(out).first_token_ms < 50


async def test_extract_goes_on_from_any_character_and_from_others_words() -> None:
    model = await extract()
    whole = "A wire transfer costs $25."
    for at in range(len(whole) + 1):
        assert whole[:at] + await say(model, answered_from(said=whole[:at])) == whole
    assert await say(model, answered_from(said="Well, you see,")) == " " + whole
    assert await say(model, answered_from(said=f"Yes. {whole} ")) == ""


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("schema", {"schema": "{}"}),
        ("tools", {"tools": (CARD,), "tool_choice": "required"}),
        ("logprobs", {"logprobs": 0}),
    ],
)
async def test_extract_says_what_it_can_not_do(field: str, more: dict[str, Any]) -> None:
    model = await extract()
    with pytest.raises(Unsupported) as unsupported:
        await run(model, ask(**more))
    assert (unsupported.value.field, bool(unsupported.value.next)) == (field, True)
    assert await say(model, ask(tools=(CARD,)))  # that may be called: it just answers
    for change in (model.reload("", "x"), model.load_adapter("a@1", "")):
        with pytest.raises(Unsupported):
            await change
    with pytest.raises(AdapterMissing):
        await run(model, ask(adapter="a@1"))
    assert isinstance(model, ExtractModel)
