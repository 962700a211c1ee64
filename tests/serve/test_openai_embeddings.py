"""Embeddings and the list of models, as the official client sees them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import numpy as np
import openai
import pytest

from tests.serve.openai_world import FAST, Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(FAST) as made:
        yield made


async def test_vectors_in_both_encodings_are_those_of_the_embedder(served: Served) -> None:
    texts = ["a card", "naïve 日本語"]
    wanted = await served.doors.embedder.embed(texts)
    client = served.client()
    packed = await client.embeddings.create(model="words", input=texts)  # base64, the client's own way
    plain = await client.embeddings.create(model="words", input=texts, encoding_format="float")
    raw = await client.embeddings.create(model="words", input=texts, encoding_format="base64")
    for made in (packed, plain):
        assert np.array_equal(np.asarray([d.embedding for d in made.data], dtype=np.float32), wanted)
        assert [d.index for d in made.data] == [0, 1] and made.model == "words"
    assert base64.b64decode(str(raw.data[0].embedding)) == wanted[0].tobytes()
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0
    (spent,) = await served.doors.spent()
    assert (spent.name, spent.replies, spent.prompt_tokens) == ("words", 3, 3 * plain.usage.prompt_tokens)


async def test_one_text_is_a_list_of_one(served: Served) -> None:
    made = await served.client().embeddings.create(model="words", input="a card", dimensions=8)
    assert len(made.data) == 1 and len(made.data[0].embedding) == 8


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({"input": [1, 2, 3]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "input", "Send text"),
        ({"input": ["a", ""]}, "input.1", "no text"),
        ({"input": ""}, "input", "no text"),
        ({"input": []}, "input", "at least 1"),
        ({"input": ["x"] * 2049}, "input", "at most 2048"),
        ({"input": "a", "dimensions": 4}, "dimensions", "8 dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'base64'"),
        ({"input": "a", "extra_body": {"task": "search"}}, "task", "Unsupported"),
    ],
)
async def test_what_is_asked_for_wrongly_is_named(served: Served, given: dict, param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        await served.client().embeddings.create(model="words", **given)
    assert refused.value.param == param


async def test_another_embedder_is_not_there(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="words") as missing:
        await served.client().embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found"


async def test_without_an_embedder_there_is_nothing_to_ask_yet(served: Served) -> None:
    served.doors.embedder.name = ""
    with pytest.raises(openai.InternalServerError) as down:
        await served.client().embeddings.create(model="words", input="a")
    assert down.value.status_code == 503 and down.value.response.headers["retry-after"] == "1"
    assert [m.id async for m in served.client().models.list()] == ["smollm2", "smollm2@1"]


async def test_models_are_names_versions_and_the_embedder(served: Served) -> None:
    client = served.client()
    listed = [model.id async for model in client.models.list()]
    assert listed == ["smollm2", "smollm2@1", "words"]
    for name in listed:
        assert (await client.models.retrieve(name)).id == name
