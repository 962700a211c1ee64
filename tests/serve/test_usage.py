"""`GET /v1/usage`: what a tenant has used, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from flotilla.core.charges import Charge
from flotilla.core.generation import Usage
from flotilla.core.policy.allowance import Allowance
from serve import auth
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY
from tests.serve.openai_world import Served, serving

NOW = datetime.now(UTC)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(allowance=Allowance(tokens_per_month=1_000)) as made:
        usage = Usage(prompt_tokens=10, cached_tokens=2, completion_tokens=5)
        rows = [
            Charge(tenant=tenant, key=str(n), at=at, source=source, model=model, usage=usage, cost=7)  # type: ignore
            for n, (tenant, at, source, model) in enumerate(
                [
                    ("demo", NOW, "openai", "m@1"),
                    ("demo", NOW, "session", "m@2"),
                    ("demo", NOW - timedelta(days=40), "session", "m@1"),
                    ("other", NOW, "agent", "m@9"),
                ]
            )
        ]
        await made.doors.memory.charge(rows)
        yield made


async def get(served: Served, key: str = TENANT_KEY, **query: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        return await client.get(f"http://{served.address}/v1/usage", params=query)


async def test_this_month_by_day_and_what_is_allowed(served: Served) -> None:
    found = (await get(served)).json()
    today = NOW.date().isoformat()
    assert [day["name"] for day in found["usage"]] == [today] and found["by"] == "day"
    sums = {"replies": 2, "prompt_tokens": 20, "cached_tokens": 4, "completion_tokens": 10, "cost": 14}
    assert found["total"] == {"name": "total", **sums}
    assert found["tenant"] == "demo" and found["since"] == today[:8] + "01"
    assert found["allowance"] == {"tokens_per_day": 0, "tokens_per_month": 1000}


@pytest.mark.parametrize(("by", "names"), [("model", ["m@1", "m@2"]), ("source", ["openai", "session"])])
async def test_sums_by_model_and_by_source(served: Served, by: str, names: list[str]) -> None:
    since = (NOW - timedelta(days=60)).date()
    found = (await get(served, by=by, since=since)).json()
    assert [row["name"] for row in found["usage"]] == names and found["total"]["replies"] == 3


async def test_the_last_day_is_left_out(served: Served) -> None:
    today = NOW.date()
    found = (await get(served, since=today - timedelta(days=90), until=today)).json()
    assert found["total"]["replies"] == 1


async def test_an_operator_sees_any_tenant_and_a_tenant_its_own(served: Served) -> None:
    found = (await get(served, OPERATOR_KEY, tenant="demo", by="model")).json()
    assert found["total"]["replies"] == 2
    assert (await get(served, OPERATOR_KEY)).json()["usage"][0]["replies"] == 1
    assert (await get(served, tenant="demo")).status_code == 200
    refused = await get(served, tenant="other")
    assert refused.status_code == 403 and refused.json()["field"] == "tenant"
    assert (await get(served, OPERATOR_KEY, tenant="a,b")).status_code == 422


async def test_a_visitor_sees_nothing(served: Served) -> None:
    assert (await get(served, auth.issue(SETTINGS, "demo", "s_1")[0])).status_code == 403


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"since": "2026-02-30"}, "since"),
        ({"since": "2026-02-02", "until": "2026-02-02"}, "since"),
        ({"since": "2020-01-01", "until": "2026-01-01"}, "since"),
        ({"by": "person"}, "by"),
    ],
)
async def test_what_is_asked_for_wrongly_is_named(served: Served, query: dict, field: str) -> None:
    answer = await get(served, **query)
    assert answer.status_code == 422 and answer.json()["field"] == field
