"""The official client before the real engine: what it says is what the engine says when it is asked itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from flotilla.core.generation import Piece
from models.paged import VllmModel
from tests.serve.openai_world import VERSION, Served, ask, serving
from tests.timing import until, within

CANCELLED_WITHIN_S = 0.05
CALL: dict[str, Any] = {"model": "smollm2", "messages": ask("Name three colours."), "temperature": 0}

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


class Colour(BaseModel):
    name: str = Field(pattern="^[a-z]{3,10}$")


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def served(vllm: VllmModel) -> AsyncIterator[Served]:
    assert vllm.name == VERSION
    async with serving(model=vllm) as made:
        yield made


async def test_the_client_reads_what_the_engine_says(served: Served) -> None:
    client = served.client()
    whole = await client.chat.completions.create(**CALL, max_tokens=24)
    stream = await client.chat.completions.create(
        **CALL, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    prompt = served.doors.model.prompts[0]
    alone = [part.text async for part in served.model.generate(prompt) if isinstance(part, Piece)]
    assert whole.choices[0].message.content == streamed == "".join(alone) != ""
    assert whole.usage and chunks[-1].usage and whole.usage.completion_tokens <= 24
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_a_schema_binds_it(served: Served) -> None:
    made = await served.client().chat.completions.parse(**CALL, max_tokens=60, response_format=Colour)
    assert isinstance(made.choices[0].message.parsed, Colour)


async def test_logprobs_and_plain_completions(served: Served) -> None:
    made = await served.client().completions.create(
        model="smollm2", prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=2
    )
    logprobs = made.choices[0].logprobs
    assert "Paris" in made.choices[0].text and logprobs and logprobs.top_logprobs
    assert len(logprobs.tokens or ()) == 4 and all(len(top) >= 2 for top in logprobs.top_logprobs)


async def test_the_engine_stops_when_the_client_leaves(served: Served) -> None:
    async def leave() -> float:
        stream = await served.client().chat.completions.create(**CALL, max_tokens=400, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert served.model.unfinished == 1
        left_at = perf_counter()
        await stream.close()
        await until(lambda: not served.model.unfinished, pause_s=0)
        return perf_counter() - left_at

    await within(CANCELLED_WITHIN_S, leave)
