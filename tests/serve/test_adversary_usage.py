"""Days at the ends of the calendar."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.serve.conftest import TENANT_KEY
from tests.serve.openai_world import Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.mark.parametrize("query", [{"until": "0001-01-01"}, {"since": "9999-12-31"}, {"since": "0001-01-01"}])
async def test_days_that_can_not_be_are_named(served: Served, query: dict[str, str]) -> None:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TENANT_KEY}"}) as client:
        answer = await client.get(f"http://{served.address}/v1/usage", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, "since"), answer.text
