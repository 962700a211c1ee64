"""Bodies that are too large, or that do not come: refused by name, whatever the application makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from flotilla.core.limits import LIMITS
from serve import limiter


@asynccontextmanager
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    app = FastAPI()
    app.add_middleware(limiter.BodyLimit)

    @app.post("/{path:path}")
    async def count(request: Request) -> Response:
        return Response(str(len(await request.body())))

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as http:
        yield http


async def chunks(sizes: Sequence[int], then: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b" " * size
    if then is not None:
        await then.wait()


async def test_a_body_within_the_limit_goes_through() -> None:
    async with client() as http:
        assert (await http.post("/v1/sessions", content=chunks([1000, 1000]))).text == "2000"


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/sessions", LIMITS.body_bytes_max), ("/openai/v1/x", LIMITS.openai_body_bytes_max)],
)
async def test_too_large_in_chunks_or_by_its_length(path: str, limit: int) -> None:
    async with client() as http:
        in_chunks = await http.post(path, content=chunks([limit, 1]))
        declared = await http.post(path, content=b" " * (limit + 1))
    for answer in (in_chunks, declared):
        assert answer.status_code == 413 and str(limit) in answer.text
        assert answer.headers["Connection"] == "close"


async def test_one_that_does_not_come_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "patience_s", _hardly_any)
    async with client() as http:
        answer = await http.post("/v1/sessions", content=chunks([10], then=asyncio.Event()))
    problem = answer.json()
    assert answer.status_code == 408 and problem["type"].endswith("/too-slow") and problem["field"] == "body"


def test_larger_bodies_may_take_longer() -> None:
    small, large = (limiter.patience_s(size) for size in (1, LIMITS.documents_body_bytes_max))
    assert LIMITS.body_s <= small < 11 and 30 < large < 60


def _hardly_any(limit: int) -> float:
    return 0.05
