"""LangChain's own classes, told nothing but an address and a key."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import OpenAIEmbeddings
from pydantic import BaseModel, Field

from tests.serve.conftest import TENANT_KEY
from tests.serve.openai_world import FAST, MADE_UP, REPLY, TOKENS, VERSION, Served, serving


class Card(BaseModel):
    """A bank card."""

    name: str = Field(description="Its name.")
    level: Literal["silver", "gold"]


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokeniser that looks for its vocabulary elsewhere, say, fails the test."""
    known = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **named: Any) -> Any:
        assert host in ("127.0.0.1", "localhost"), f"{host} was looked up"
        return known(host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(FAST) as made:
        yield made


@pytest.fixture
async def made_up() -> AsyncIterator[Served]:
    async with serving(MADE_UP) as made:
        yield made


async def test_invoke_and_batch(served: Served) -> None:
    chat = served.langchain()
    made = await chat.ainvoke([SystemMessage("Be kind."), HumanMessage("Hi")])
    assert made.content == REPLY and made.response_metadata["model_name"] == VERSION
    assert made.usage_metadata and made.usage_metadata["output_tokens"] == TOKENS
    assert [one.content for one in await chat.abatch(["a", "b", "c"])] == [REPLY] * 3


async def test_stream_with_usage(served: Served) -> None:
    chunks = [chunk async for chunk in served.langchain(stream_usage=True).astream("Hi")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == REPLY and len(chunks) > 5
    assert whole.usage_metadata and whole.usage_metadata["output_tokens"] == TOKENS
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.response_metadata["model_name"] == VERSION


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_there_and_back(made_up: Served, streamed: bool) -> None:
    chat = made_up.langchain(streaming=streamed)
    asked: list[Any] = [HumanMessage("How is the weather?")]
    called = await chat.bind_tools([get_weather], tool_choice="any").ainvoke(asked)
    (call,) = called.tool_calls
    assert call["name"] == "get_weather" and isinstance(call["args"]["city"], str)
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answered = await chat.ainvoke([*asked, called, result])
    assert answered.content
    told = made_up.doors.model.prompts[-1].messages
    assert told[1].calls[0].id == told[2].answers == call["id"] and "Rain" in told[2].text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_of_the_clients_type(made_up: Served, method: Any) -> None:
    card = await made_up.langchain().with_structured_output(Card, method=method).ainvoke("Name a card.")
    assert isinstance(card, Card)


async def test_a_prompt_over_the_context_is_an_overflow_to_langchain(served: Served) -> None:
    from langchain_core.exceptions import ContextOverflowError

    with pytest.raises(ContextOverflowError):
        await served.langchain().ainvoke("word " * 20_000)


async def test_embeddings(served: Served) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=served.url, api_key=TENANT_KEY, model="words", check_embedding_ctx_length=False
    )
    vectors = await embeddings.aembed_documents(["a", "b"])
    wanted = (await served.doors.embedder.embed(["a", "b"])).tolist()
    assert vectors == wanted and await embeddings.aembed_query("a") == wanted[0]
