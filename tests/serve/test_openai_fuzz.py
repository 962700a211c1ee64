"""Whatever is sent, the endpoint answers in OpenAI's form and never breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flotilla.core.policy.allowance import Allowance
from models.scripted import ScriptedModel
from serve import problems
from serve.limiter import BodyLimit
from serve.openai_bodies import IGNORED
from serve.routes import openai
from tests.serve.conftest import TENANT_KEY
from tests.serve.openai_world import MADE_UP, Doors

TRIES = 150

texts = st.text(max_size=20) | st.sampled_from(
    ["", "auto", "none", "smollm2", "text", "function", "\ud800", "\0"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these fields, now and then with something else in one, or without it."""
    return st.fixed_dictionaries({}, optional={name: right | anything for name, right in fields.items()})


def valid(required: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`required`, and some of the fields, most of them right."""
    return nearly(**fields).map(lambda more: {**required, **more})


function = nearly(name=st.sampled_from(["f", "g"]), description=texts, parameters=anything)
tools = st.lists(nearly(type=st.just("function"), function=function), max_size=3)
part = nearly(type=st.just("text"), text=texts)
called = nearly(id=st.just("call_1"), type=st.just("function"), function=nearly(name=texts, arguments=texts))
message = nearly(
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    content=texts | st.lists(part, max_size=3),
    tool_calls=st.lists(called, max_size=2),
    tool_call_id=st.just("call_1"),
)
sampling: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans(),
    "stream_options": nearly(include_usage=st.booleans()),
    "stop": texts | st.lists(texts, max_size=5),
    "seed": st.integers(),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "max_tokens": st.integers(1, 30),
    "n": st.integers(1, 4),
    "user": texts,
    "logit_bias": anything,
    "top_k": anything,
    **dict.fromkeys(sorted(IGNORED), anything),
}
chats = valid(
    {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]},
    messages=st.lists(message, max_size=3),
    tools=tools,
    tool_choice=st.sampled_from(
        ["none", "auto", "required", {"type": "function", "function": {"name": "f"}}]
    ),
    parallel_tool_calls=st.booleans(),
    response_format=nearly(
        type=st.sampled_from(["text", "json_object", "json_schema"]),
        json_schema=nearly(name=texts, schema=st.just({"type": "object"})),
    ),
    logprobs=st.booleans(),
    top_logprobs=st.integers(0, 20),
    max_completion_tokens=st.integers(1, 30),
    **sampling,
)
completions = valid(
    {"model": "smollm2", "prompt": "Once"},
    prompt=texts | st.lists(texts | st.integers(), max_size=4),
    logprobs=st.integers(0, 20),
    **sampling,
)
embeddings = valid(
    {"model": "words", "input": "Once"},
    input=texts | st.lists(texts | st.integers(), max_size=4),
    encoding_format=st.sampled_from(["float", "base64"]),
    dimensions=st.integers(1, 9),
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.add_middleware(BodyLimit)
    problems.install(app)
    app.include_router(openai.router)
    app.state.doors = Doors(ScriptedModel(MADE_UP), Allowance())
    headers = {"Authorization": f"Bearer {TENANT_KEY}", "Content-Type": "application/json"}
    with TestClient(app, headers=headers) as made:
        yield made


def check(client: TestClient, path: str, body: Any) -> None:
    answer = client.post(f"/openai/v1/{path}", content=json.dumps(body).encode())
    assert answer.status_code in (200, 400, 404, 413), (answer.status_code, answer.text, body)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["code"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text
    else:
        assert answer.json()["object"]


quietly = settings(
    max_examples=TRIES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@quietly
@given(chats | anything)
def test_chats(client: TestClient, body: Any) -> None:
    check(client, "chat/completions", body)


@quietly
@given(completions | anything)
def test_plain_completions(client: TestClient, body: Any) -> None:
    check(client, "completions", body)


@quietly
@given(embeddings | anything)
def test_embeddings(client: TestClient, body: Any) -> None:
    check(client, "embeddings", body)
