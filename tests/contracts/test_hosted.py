"""What every hosted engine does, against a real server on this machine that speaks its provider's protocol."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any

import jsonschema
import pytest

from flotilla.core.errors import (
    AdapterMissing,
    FlotillaError,
    Misconfigured,
    Overloaded,
    RateLimited,
    Refused,
    Unavailable,
    Unsupported,
)
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, ToolCall, ToolSpec
from flotilla.core.versions import Version
from models.engines import open_engine
from models.hosted.model import HostedModel
from tests.models.providers.completions import CompletionsServer
from tests.models.providers.gemini import SIGNATURE, GeminiServer
from tests.models.providers.messages import MessagesServer
from tests.models.providers.server import ARGUMENTS, KEY, Server, serving, whole
from tests.timing import until, within

CANCEL_S_MAX = 0.05
VARIABLE = "FLOTILLA_TEST_PROVIDER_KEY"
SERVERS: dict[str, type[Server]] = {
    "openai": CompletionsServer,
    "anthropic": MessagesServer,
    "google": GeminiServer,
}
PATHS = {"openai": "/v1"}
QUESTION = "What is a savings account?"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["name", "days"],
    "additionalProperties": False,
}
WEATHER = ToolSpec(
    name="weather",
    description="The weather of a city.",
    parameters='{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}}}',
)


class Setup:
    def __init__(self, provider: str, server: Server) -> None:
        self.provider, self.server = provider, server
        self.opened: list[HostedModel] = []

    async def open(self, **settings: Any) -> HostedModel:
        common = {
            "model": "m",
            "base_url": self.server.url + PATHS.get(self.provider, ""),
            "api_key_env": VARIABLE,
        }
        version = Version(model="talker", name="1", engine=self.provider, settings=common | settings)  # type: ignore[arg-type]
        engine = await open_engine(version, "", threads=1)
        assert isinstance(engine, HostedModel)
        self.opened.append(engine)
        return engine


@pytest.fixture(params=list(SERVERS))
async def setup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setenv(VARIABLE, KEY)
    async with serving(SERVERS[request.param]()) as server:
        made = Setup(request.param, server)
        yield made
        for engine in made.opened:
            await engine.close()


@pytest.fixture
async def model(setup: Setup) -> HostedModel:
    return await setup.open()


def ask(text: str = QUESTION, **settings: Any) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text=text),), **settings)


async def run(model: HostedModel, prompt: Prompt) -> list[Generated]:
    return [generated async for generated in model.generate(prompt)]


def text_of(generated: Sequence[Generated]) -> str:
    return "".join(g.text for g in generated if isinstance(g, Piece))


def end_of(generated: Sequence[Generated]) -> Finished:
    assert isinstance(generated[-1], Finished)
    return generated[-1]


# -- a reply


async def test_pieces_then_one_finished(model: HostedModel) -> None:
    out = await run(model, ask())
    assert len(out) > 10
    assert all(isinstance(g, Piece) and g.text and g.tokens > 0 for g in out[:-1])
    assert text_of(out) == whole(QUESTION)
    assert end_of(out).reason == "stop"


async def test_usage_is_the_providers(model: HostedModel) -> None:
    out = await run(model, ask())
    end = end_of(out)
    assert (end.usage.prompt_tokens, end.usage.cached_tokens) == (12, 8)
    assert end.usage.completion_tokens == sum(g.tokens for g in out if isinstance(g, Piece))
    assert 0 < end.first_token_ms <= end.total_ms


async def test_pieces_come_as_they_are_made(setup: Setup, model: HostedModel) -> None:
    setup.server.behaviour = "stalls"
    async with aclosing(model.generate(ask())) as stream:
        assert isinstance(await anext(stream), Piece)  # the server makes no other before it is closed


async def test_system_and_history_are_sent(setup: Setup, model: HostedModel) -> None:
    turns = (
        ChatMessage(role="system", text="You work for a bank."),
        ChatMessage(role="user", text="Hello"),
        ChatMessage(role="assistant", text="Good day."),
        ChatMessage(role="user", text=QUESTION),
    )
    assert text_of(await run(model, Prompt(messages=turns))) == whole(QUESTION)
    sent = json.dumps(setup.server.bodies[-1])
    assert all(message.text in sent for message in turns)


async def test_tokens_max_ends_the_reply(model: HostedModel) -> None:
    out = await run(model, ask(tokens_max=5))
    assert end_of(out).reason == "length"
    assert end_of(out).usage.completion_tokens == 5


async def test_stops_end_the_reply_and_are_not_shown(setup: Setup, model: HostedModel) -> None:
    """Also those that the provider can't be told of."""
    for stop in ("word7", " ", " word20", "3 "):
        many = ("\n\n", "one", "two", "three", "four", "five", stop)
        out = await run(model, ask(stop=many))
        assert text_of(out) == whole(QUESTION).split(stop)[0]
        assert end_of(out).reason == "stop"
        assert end_of(out).usage.completion_tokens > 0
    assert model.unfinished == 0


async def test_sixteen_at_once(setup: Setup, model: HostedModel) -> None:
    outs = await asyncio.gather(*(run(model, ask(f"What is {n} plus {n}?")) for n in range(16)))
    assert [text_of(out) for out in outs] == [whole(f"What is {n} plus {n}?") for n in range(16)]
    assert (model.unfinished, setup.server.open) == (0, 0)


async def test_over_its_limit_it_sheds(setup: Setup) -> None:
    model = await setup.open(running_max=1)
    setup.server.behaviour = "stalls"
    async with aclosing(model.generate(ask())) as first:
        await anext(first)
        with pytest.raises(Overloaded):
            await run(model, ask())


# -- going on


@pytest.mark.parametrize("repeats", ["nothing", "words", "all"])
async def test_goes_on_and_takes_off_what_is_repeated(setup: Setup, repeats: Any) -> None:
    model = await setup.open(prefill=False)
    setup.server.repeats = repeats
    text = whole(QUESTION)
    for at in (10, 40, 41, 60, len(text) - 1):
        assert text[:at] + text_of(await run(model, ask(said=text[:at]))) == text


async def test_goes_on_from_any_character_where_it_can(setup: Setup) -> None:
    if setup.provider == "google":
        return  # has no way that is written down
    model = await setup.open(prefill=True)
    text = whole(QUESTION)
    for at in range(0, len(text), 3):
        assert text[:at] + text_of(await run(model, ask(said=text[:at], tokens_max=500))) == text


async def test_a_model_that_takes_no_beginning_is_asked_to_go_on(setup: Setup) -> None:
    if not isinstance(setup.server, MessagesServer):
        return
    model, text = await setup.open(), whole(QUESTION)
    setup.server.prefills, setup.server.repeats = False, "words"
    for at in (30, 60):
        assert text[:at] + text_of(await run(model, ask(said=text[:at]))) == text
    assert len(setup.server.bodies) == 2  # the beginning was tried once, and then no more


async def test_goes_on_from_what_another_model_said(model: HostedModel) -> None:
    out = await run(model, ask(said="Zürich — 日本語 👩‍👩‍👧 is where your acc"))
    assert text_of(out) == " and so on."


async def test_tokens_max_counts_what_was_said(model: HostedModel) -> None:
    out = await run(model, ask(said="word " * 100, tokens_max=100))
    assert text_of(out) == ""
    assert end_of(out).reason == "length"


# -- cancelling


async def test_closing_the_iterator_closes_the_connection(setup: Setup, model: HostedModel) -> None:
    setup.server.token_s = 0.005

    async def close() -> float:
        async with aclosing(model.generate(ask())) as stream:
            for _ in range(3):
                await anext(stream)
            assert (model.unfinished, setup.server.open) == (1, 1)
            setup.server.closed.clear()
            closed_at = perf_counter()
        took = perf_counter() - closed_at
        await until(setup.server.closed.is_set)
        assert (model.unfinished, setup.server.open) == (0, 0)
        return max(took, setup.server.closed_at - closed_at)

    await within(CANCEL_S_MAX, close)


@pytest.mark.parametrize("behaviour", ["stalls", "hangs"])
async def test_cancelling_the_reader_closes_the_connection(
    setup: Setup, model: HostedModel, behaviour: Any
) -> None:
    setup.server.behaviour = behaviour

    async def cancel() -> float:
        reader = asyncio.create_task(run(model, ask()))
        await until(lambda: setup.server.open)
        setup.server.closed.clear()
        cancelled_at = perf_counter()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(setup.server.closed.is_set)
        assert model.load().running + model.load().waiting == 0
        return setup.server.closed_at - cancelled_at

    await within(CANCEL_S_MAX, cancel)


# -- structure


async def test_a_schema_is_fitted(setup: Setup, model: HostedModel) -> None:
    out = await run(model, ask(schema=json.dumps(SCHEMA)))
    jsonschema.validate(json.loads(text_of(out)), SCHEMA)
    assert (end_of(out).reason, end_of(out).calls) == ("stop", ())
    assert '"days"' in json.dumps(setup.server.bodies[-1])


@pytest.mark.parametrize("choice", ["required", "weather", "auto"])
async def test_tools_are_called(model: HostedModel, choice: str) -> None:
    out = await run(model, ask("How is the weather in Zürich?", tools=(WEATHER,), tool_choice=choice))
    assert text_of(out) == ""
    assert end_of(out).reason == "tools"
    (call,) = end_of(out).calls
    assert (call.name, json.loads(call.arguments)) == ("weather", json.loads(ARGUMENTS))
    assert call.id


async def test_what_a_tool_answered_is_sent_back(setup: Setup, model: HostedModel) -> None:
    asked = ChatMessage(role="user", text="How is the weather in Zürich?")
    out = await run(model, Prompt(messages=(asked,), tools=(WEATHER,)))
    called = ChatMessage(role="assistant", text="", calls=end_of(out).calls)
    answered = ChatMessage(role="tool", text="Rain, 4 °C", answers=end_of(out).calls[0].id)
    out = await run(model, Prompt(messages=(asked, called, answered), tools=(WEATHER,)))
    assert (text_of(out), end_of(out).reason) == (whole(asked.text), "stop")
    sent = json.dumps(setup.server.bodies[-1], ensure_ascii=False)
    assert "Rain, 4 °C" in sent
    if setup.provider == "google":
        import base64

        part = setup.server.bodies[-1]["contents"][1]["parts"][0]
        assert base64.b64decode(part["thoughtSignature"]) == SIGNATURE


async def test_no_tool_is_called_where_none_is_wanted(model: HostedModel) -> None:
    out = await run(model, ask("How is the weather?", tools=(WEATHER,), tool_choice="none"))
    assert (end_of(out).reason, end_of(out).calls) == ("stop", ())
    assert text_of(out)


@pytest.mark.parametrize(
    ("field", "prompt"),
    [
        ("schema", {"schema": "{not json"}),
        ("schema", {"schema": "[1]"}),
        ("tool_choice", {"tools": (WEATHER,), "tool_choice": "nothing of that name"}),
        ("tools", {"tool_choice": "required"}),
        ("tools", {"tools": (ToolSpec(name="t", parameters="}"),)}),
    ],
)
async def test_a_structure_that_makes_no_sense_is_refused(
    model: HostedModel, field: str, prompt: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as refused:
        await run(model, ask(**prompt))
    assert (refused.value.field, bool(refused.value.next)) == (field, True)


async def test_calls_that_are_no_json_are_refused_or_sent_as_they_are(
    setup: Setup, model: HostedModel
) -> None:
    call = ChatMessage(
        role="assistant", text="", calls=(ToolCall(id="1", name="weather", arguments="{oops"),)
    )
    tool = ChatMessage(role="tool", text="Rain", answers="1")
    prompt = Prompt(messages=(*ask().messages, call, tool), tools=(WEATHER,))
    if setup.provider == "openai":  # takes them as text
        assert text_of(await run(model, prompt))
        return
    with pytest.raises(Refused) as refused:
        await run(model, prompt)
    assert refused.value.field == "messages"


@pytest.mark.parametrize("alternatives", [0, 3])
async def test_logprobs_where_there_are_any(setup: Setup, model: HostedModel, alternatives: int) -> None:
    if setup.provider == "anthropic":
        with pytest.raises(Unsupported) as unsupported:
            await run(model, ask(logprobs=alternatives))
        assert unsupported.value.field == "logprobs"
        return
    out = await run(model, ask(logprobs=alternatives))
    found = [logprob for g in out if isinstance(g, Piece) for logprob in g.logprobs]
    assert "".join(logprob.token for logprob in found) == text_of(out)
    assert all(logprob.logprob <= 0 and len(logprob.top) == alternatives for logprob in found)


async def test_raw_text_where_it_can_be_gone_on_with(setup: Setup, model: HostedModel) -> None:
    prompt = Prompt(raw=QUESTION, logprobs=2 if setup.provider == "openai" else None)
    if setup.provider != "openai":
        with pytest.raises(Unsupported) as unsupported:
            await run(model, prompt)
        assert unsupported.value.field == "raw"
        return
    out = await run(model, prompt)
    assert text_of(out) == whole(QUESTION)
    assert end_of(out).usage.prompt_tokens == 12
    assert all(len(g.logprobs[0].top) == 2 for g in out if isinstance(g, Piece))


# -- trouble


async def failure(model: HostedModel, prompt: Prompt | None = None) -> FlotillaError:
    with pytest.raises(FlotillaError) as raised:
        await run(model, prompt or ask())
    assert model.unfinished == 0
    assert KEY not in str(raised.value) + repr(raised.value) + repr(raised.value.__dict__)
    assert raised.value.__cause__ is None  # its request holds the key
    return raised.value


@pytest.mark.parametrize("behaviour", ["hangs", "stalls"])
async def test_silence_is_unavailable(setup: Setup, behaviour: Any) -> None:
    model = await setup.open(timeout_s=0.15)
    setup.server.behaviour = behaviour
    error = await failure(model)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s
    assert "0.15 s" in error.detail
    await until(lambda: not setup.server.open)


@pytest.mark.parametrize("behaviour", ["garbage", "no json", "wrong json", "cut", "unfinished", "gives up"])
async def test_a_broken_stream_is_unavailable(setup: Setup, model: HostedModel, behaviour: Any) -> None:
    setup.server.behaviour = behaviour
    error = await failure(model)
    assert isinstance(error, Unavailable)
    assert (bool(error.next), bool(error.retry_after_s)) == (True, True)


async def test_what_is_withheld_is_refused(setup: Setup, model: HostedModel) -> None:
    setup.server.behaviour = "withholds"
    error = await failure(model)
    assert isinstance(error, Refused)
    assert error.field == "messages"


async def test_a_rate_limit_says_when(setup: Setup, model: HostedModel) -> None:
    setup.server.status, setup.server.headers = 429, {"retry-after": "7"}
    error = await failure(model)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 7
    setup.server.headers = {}
    assert (await failure(model)).retry_after_s
    assert len(setup.server.bodies) == 2  # asked once each time: the SDK doesn't try again


@pytest.mark.parametrize("status", [500, 503, 529])
async def test_a_provider_in_trouble_is_unavailable(setup: Setup, model: HostedModel, status: int) -> None:
    setup.server.status = status
    error = await failure(model)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s
    assert len(setup.server.bodies) == 1


async def test_nobody_there_is_unavailable(setup: Setup) -> None:
    model = await setup.open(base_url="http://127.0.0.1:9")
    assert isinstance(await failure(model), Unavailable)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_bad_request_is_refused(setup: Setup, model: HostedModel, status: int) -> None:
    setup.server.status = status
    error = await failure(model)
    assert isinstance(error, Refused)
    assert error.next


async def test_a_prompt_too_long_is_refused_with_the_next_move(model: HostedModel) -> None:
    error = await failure(model, ask("word " * 20_000))
    assert isinstance(error, Refused)
    assert (error.field, bool(error.next)) == ("messages", True)


async def test_an_unknown_model_is_the_operators(setup: Setup, model: HostedModel) -> None:
    setup.server.status = 404
    error = await failure(model)
    assert isinstance(error, Misconfigured)
    assert error.field == "settings.model"


# -- keys


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_taken(setup: Setup, model: HostedModel, status: int) -> None:
    setup.server.status = status
    error = await failure(model)
    assert isinstance(error, Misconfigured)
    assert error.field == "api_key"
    assert "sk-" not in str(error)


async def test_a_wrong_key_is_told_and_not_shown(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sk-wrong")
    model = await setup.open()
    error = await failure(model)
    assert (error.field, "sk-wrong" in str(error)) == ("api_key", False)
    with pytest.raises(Misconfigured):
        await model.ping()


async def test_without_a_key_it_is_not_opened(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(Misconfigured) as missing:
        await setup.open()
    assert missing.value.field == "settings.api_key_env"
    assert VARIABLE in str(missing.value)


async def test_the_key_is_nowhere_to_be_seen(
    setup: Setup, model: HostedModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await run(model, ask())
        setup.server.status = 500
        await failure(model)
    parts = (model, *vars(model).values())
    assert KEY not in caplog.text + "".join(map(repr, parts))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"api_key": KEY}, "settings.api_key"),
        ({"tempo": 1}, "settings.tempo"),
        ({"timeout_s": "soon"}, "settings.timeout_s"),
    ],
)
async def test_settings_that_do_not_fit_are_named(setup: Setup, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(Misconfigured) as unfit:
        await setup.open(**settings)
    assert unfit.value.field == field
    assert KEY not in str(unfit.value)


async def test_a_model_has_to_be_named() -> None:
    for provider in SERVERS:
        version = Version(model="m", name="1", engine=provider, settings={})  # type: ignore[arg-type]
        with pytest.raises(Misconfigured) as unfit:
            await open_engine(version, "", threads=1)
        assert unfit.value.field == "settings.model"


# -- as an engine


async def test_ping_asks_once_and_trusts_it_for_a_while(setup: Setup, model: HostedModel) -> None:
    for _ in range(3):
        await model.ping()
    assert (setup.server.checks, len(setup.server.bodies)) == (1, 0)
    assert model.name == "talker@1"
    assert model.name in repr(model)


async def test_ping_says_what_is_wrong(setup: Setup) -> None:
    model = await setup.open(ping_fresh_s=0)
    await model.ping()
    setup.server.status = 503
    with pytest.raises(Unavailable):
        await model.ping()
    setup.server.status = 200
    await model.ping()
    await model.close()
    with pytest.raises(Unavailable):
        await model.ping()
    with pytest.raises(Unavailable):
        await run(model, ask())


async def test_load_counts_what_runs_and_what_waits(setup: Setup, model: HostedModel) -> None:
    setup.server.behaviour = "hangs"
    waiting = asyncio.create_task(run(model, ask()))
    await until(lambda: setup.server.open)
    assert (model.load().running, model.load().waiting) == (0, 1)
    setup.server.behaviour = "stalls"
    async with aclosing(model.generate(ask())) as stream:
        await anext(stream)
        assert (model.load().running, model.load().waiting) == (1, 1)
        assert model.load().first_token_ms > 0
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (model.load().running, model.load().waiting) == (0, 0)


async def test_its_weights_are_not_ours(model: HostedModel) -> None:
    with pytest.raises(Unsupported):
        await model.load_adapter("a@1", "/nowhere")
    with pytest.raises(Unsupported):
        await model.reload("/nowhere", "m@2")
    await model.unload_adapter("a@1")
    with pytest.raises(AdapterMissing):
        await run(model, ask(adapter="a@1"))
    assert model.name == "talker@1"
