"""What goes wrong, as the exceptions that the official client raises."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest

from flotilla.core.charges import Charge
from flotilla.core.errors import Overloaded, RateLimited, Refused, Unavailable
from flotilla.core.generation import Usage
from flotilla.core.limits import LIMITS
from flotilla.core.policy.allowance import Allowance
from serve import auth
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY
from tests.serve.openai_world import FAST, SLOW, Broken, Served, ask, serving

CALL: dict[str, Any] = {"model": "smollm2", "messages": ask()}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(FAST) as made:
        yield made


async def test_who_has_no_key_and_who_may_not(served: Served) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        await served.client("some other key").chat.completions.create(**CALL)
    assert unknown.value.code == "invalid_api_key" and "known" in unknown.value.message
    token = auth.issue(SETTINGS, "demo", "s_1")[0]
    with pytest.raises(openai.PermissionDeniedError):
        await served.client(token).chat.completions.create(**CALL)
    async with httpx2.AsyncClient() as nobody:
        answer = await nobody.get(f"{served.url}/models")
    assert answer.status_code == 401 and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["www-authenticate"] == "Bearer" and answer.headers["x-request-id"]


async def test_a_model_that_is_not_there(served: Served) -> None:
    for call in (
        served.client().chat.completions.create(model="gpt-5", messages=ask()),  # type: ignore[list-item]
        served.client().completions.create(model="gpt-5", prompt="x"),
        served.client().models.retrieve("gpt-5"),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            await call
        assert missing.value.code == "model_not_found" and missing.value.param == "model"


async def test_a_path_that_is_not_there(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="responses"):
        await served.client().responses.create(model="smollm2", input="x")


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": -100}}, "logit_bias", "unsupported_parameter"),
        ({"extra_body": {"top_k": 4}}, "top_k", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"n": 5}, "n", "invalid_value"),
        ({"n": 4, "max_tokens": 30_000}, "n", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL, TOOL]}, "tools.1.function.name", "invalid_value"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
            "invalid_value",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]},
            "messages.0.tool_call_id",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0.type",
            "unsupported_value",
        ),
    ],
)
async def test_what_is_asked_for_wrongly_is_named(
    served: Served, more: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await served.client().chat.completions.create(**{**CALL, **more})
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error" and not served.doors.model.prompts


async def test_what_changes_nothing_is_let_through(served: Served) -> None:
    await served.client().chat.completions.create(
        **CALL,
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        frequency_penalty=0,
        logit_bias={},
        modalities=["text"],
        safety_identifier="x",
        parallel_tool_calls=True,
        extra_body={"presence_penalty": None},
    )


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"model": "smollm2"}', "application/json"),
        (b'{"model": "smollm2", "messages": [{"role": "user", "content": "\\ud800"}]}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"model=smollm2", "text/plain"),
        (
            b'{"model":"smollm2","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
            "application/json",
        ),
        (b"", "application/json"),
    ],
)
async def test_a_body_that_is_none(served: Served, body: bytes, content_type: str) -> None:
    headers = {"Authorization": f"Bearer {TENANT_KEY}", "Content-Type": content_type}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{served.url}/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_number_in_a_schema_that_is_none(served: Served) -> None:
    body = b"""{"model":"smollm2","messages":[{"role":"user","content":"x"}],"response_format":
        {"type":"json_schema","json_schema":{"name":"n","schema":{"const":NaN}}}}"""
    headers = {"Authorization": f"Bearer {TENANT_KEY}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{served.url}/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400 and "schema" in answer.json()["error"]["param"]


async def test_a_body_over_the_limit(served: Served) -> None:
    text = "x" * LIMITS.openai_body_bytes_max
    with pytest.raises(openai.APIStatusError) as large:
        await served.client().chat.completions.create(model="smollm2", messages=ask(text))  # type: ignore
    assert large.value.status_code == 413 and large.value.code == "request_too_large"

    async def parts() -> AsyncIterator[bytes]:  # with no length declared
        for _ in range(5):
            yield b" " * (1 << 20)

    headers = {"Authorization": f"Bearer {TENANT_KEY}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{served.url}/chat/completions", content=parts(), headers=headers)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"


async def test_more_than_a_message_of_a_session_fits(served: Served) -> None:
    """Within the endpoint's own limit, and over that of other bodies."""
    with pytest.raises(openai.BadRequestError) as long:
        await served.client().chat.completions.create(model="smollm2", messages=ask("word " * 80_000))  # type: ignore
    assert long.value.code == "context_length_exceeded" and long.value.param == "messages"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Refused("No such schema.", field="schema"), openai.BadRequestError, "invalid_value"),
        (Broken("It broke."), openai.InternalServerError, "internal"),
        (ValueError("a bug"), openai.InternalServerError, "internal"),
    ],
)
async def test_what_breaks_before_the_first_word_has_a_status(
    served: Served, stream: bool, error: Exception, kind: type[openai.APIStatusError], code: str
) -> None:
    served.doors.model.breaks = [(0, error)]
    with pytest.raises(kind) as raised:
        await served.client().chat.completions.create(**CALL, stream=stream)
    assert raised.value.code == code and "a bug" not in raised.value.message
    assert raised.value.request_id
    if isinstance(error, Refused):
        assert raised.value.param == "response_format"


async def test_what_breaks_in_the_middle_ends_the_stream_with_an_error(served: Served) -> None:
    served.doors.model.breaks = [(3, Broken("It broke."))]
    stream = await served.client().chat.completions.create(**CALL, stream=True)
    text = ""
    with pytest.raises(openai.APIError, match="It broke"):
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert len(text.split()) == 3
    (spent,) = await served.doors.spent()
    assert spent.completion_tokens == 3 and spent.prompt_tokens > 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable("Nobody is there.", retry_after_s=2.4), openai.InternalServerError),
        (Overloaded("Too much.", retry_after_s=2.4), openai.InternalServerError),
        (RateLimited("The provider says no.", retry_after_s=2.4), openai.RateLimitError),
    ],
)
async def test_what_passes_says_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, served: Served, error: Exception, kind: type[openai.APIStatusError]
) -> None:
    monkeypatch.setattr("serve.openai_generation.PATIENCE_S", 0.0)
    served.doors.model.breaks = [(0, error)]
    with pytest.raises(kind) as raised:
        await served.client().chat.completions.create(**CALL)
    assert raised.value.response.headers["retry-after"] == "3"
    assert raised.value.status_code == (429 if isinstance(error, RateLimited) else 503)


async def test_the_client_comes_back_by_itself_when_it_was_told_to(
    monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    monkeypatch.setattr("serve.openai_generation.PATIENCE_S", 0.0)
    served.doors.model.breaks = [(0, Unavailable("Nobody is there.", retry_after_s=0.2))]
    made = await served.client(max_retries=1).chat.completions.create(**CALL)
    assert made.choices[0].message.content and len(served.doors.model.prompts) == 2


async def test_an_allowance_that_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FAST, allowance=Allowance(tokens_per_day=40)) as served:
        now = datetime.now(UTC)
        used = Usage(prompt_tokens=20, completion_tokens=5)
        await served.doors.memory.charge(
            [Charge(tenant="demo", key="before", at=now, source="session", model="m@1", usage=used)]
        )
        first = await served.client().chat.completions.with_raw_response.create(**CALL)
        assert first.headers["x-ratelimit-limit-tokens"] == "40"
        assert first.headers["x-ratelimit-remaining-tokens"] == "15"
        client = served.client(max_retries=2)
        with pytest.raises(openai.RateLimitError, match="40 tokens of this day") as spent:
            await client.chat.completions.create(**CALL)
        assert spent.value.code == "insufficient_quota"
        assert 0 < int(spent.value.response.headers["retry-after"]) <= 86_400
        with pytest.raises(openai.RateLimitError):
            await client.completions.create(model="smollm2", prompt="x")
        assert len(served.doors.model.prompts) == 1
        other = served.client(OPERATOR_KEY)  # of another tenant, that has no bound
        assert (await other.chat.completions.create(**CALL)).choices


def test_the_keys_of_the_world_are_those_of_the_settings() -> None:
    assert SETTINGS.keys[hashlib.sha256(TENANT_KEY.encode()).hexdigest()].tenant == "demo"
    assert SLOW.token_s > 0
