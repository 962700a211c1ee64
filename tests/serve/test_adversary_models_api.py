"""What a tenant could learn of others from the models' API, and what could break it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serve.model_world import GATE, World, world

STEP = {"canary": {"percent": 0, "tenants": ["acme"], "conversations": ["acme/s_17"]}, "hold_s": 0.0}
BY_HAND = {"steps": [STEP], "automatic": False, "keep_s": 0.0}
HUGE = 10**30


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def test_a_tenant_learns_nothing_of_the_others(w: World) -> None:
    """Neither who is in a canary, nor who has an adapter of its own, nor who works for whom."""
    await w.serving("1", "2")
    await w.add("acmes", tenants=["acme"])
    (running,) = [r for r in w.rig.replicas.values() if r.name.startswith("m@1.")]
    running.extra = {"adapter:m@acmes": 1.0}
    begun = {"to": "2", "order": BY_HAND | {"gate": GATE}, "by": "Ann"}
    assert (await w.desk.post("/v1/models/m/swaps", json=begun)).status_code == 202
    await w.reach("canary")
    seen = [(await w.tenant.get(f"/v1/models{path}")).text for path in ("", "/m", "/m/history")]
    seen.append(await first_events(w, 6))
    for text in seen:
        assert "acme" not in text and "Ann" not in text and "other" not in text, text
    await w.desk.post("/v1/models/m/swap/rollback", json={"reason": "acme complained"})
    await w.reach("rolled_back")
    assert "acme" not in (await w.tenant.get("/v1/models/m")).text
    shown = await w.show()
    assert "acme complained" in json.dumps(shown) and "m@acmes" in json.dumps(shown["replicas"])


async def first_events(w: World, count: int) -> str:
    found: list[str] = []
    async with asyncio.timeout(20), w.tenant.stream("GET", "/v1/models/m/events?after=0") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(line)
                if len(found) == count:
                    return "\n".join(found)
    raise AssertionError("the stream has ended")


async def test_a_swap_to_a_version_of_others_is_not_told(w: World) -> None:
    await w.serving("1")
    await w.add("acmes", tenants=["acme"])
    await w.rig.start("m@acmes")
    order = BY_HAND | {"steps": [STEP]}
    begun = await w.desk.post("/v1/models/m/swaps", json={"to": "acmes", "order": order})
    assert begun.status_code == 202, begun.text
    await w.reach("canary")
    for path in ("", "/m", "/m/history"):
        assert "acme" not in (await w.tenant.get(f"/v1/models{path}")).text
    shown = (await w.tenant.get("/v1/models/m")).json()
    assert shown["swap"] is None and shown["serving"]["stable"] == "m@1"


@pytest.mark.parametrize("path", ["", "/events", "/history"])
async def test_a_model_of_others_is_not_there(w: World, path: str) -> None:
    await w.add("1", tenants=["acme"])
    answer = await w.tenant.get(f"/v1/models/m{path}")
    assert answer.status_code == 404 and "acme" not in answer.text
    assert (await w.tenant.get("/v1/models")).json()["models"] == []


# -- bad input


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("serve", {"least": HUGE}, "least"),
        ("serve", {"cpus": HUGE**12}, "cpus"),
        ("swaps", {"to": "2", "order": {"shadow_replies": HUGE**12}}, "order.shadow_replies"),
        ("swaps", {"to": "2", "order": {"keep_s": HUGE**12}}, "order.keep_s"),
        ("versions", {"name": "3", "engine": "scripted", "context_tokens": HUGE}, "context_tokens"),
        ("versions", {"name": "3", "engine": "scripted", "price": {"prompt": HUGE}}, "price.prompt"),
        ("versions", {"name": "3", "engine": "scripted", "context_tokens": -1}, "context_tokens"),
        ("versions", {"name": "3", "engine": "scripted", "price": {"cached": -1}}, "price.cached"),
        ("versions", {"name": "3", "engine": "scripted", "settings": {"seed": HUGE}}, "settings.seed"),
        ("versions", {"name": "3", "engine": "scripted", "price": {"prompt": 10**15}}, "price.prompt"),
        ("versions", {"name": "3", "engine": "scripted", "settings": {"a": [{"b": HUGE}]}}, "settings.a.0.b"),
        (
            "evaluations",
            {"version": "1", "gate": GATE | {"judges": [{"name": "facts", "weight": HUGE**12}]}},
            "gate.judges.0.weight",
        ),
        (
            "swaps",
            {"to": "2", "order": {"gate": GATE | {"judges": [{"name": "length", "arguments": {"n": HUGE}}]}}},
            "order.gate.judges.0.arguments.n",
        ),
    ],
)
async def test_numbers_beyond_all_bounds_are_refused_with_the_field(
    w: World, path: str, body: dict[str, Any], field: str
) -> None:
    await w.serving("1", "2")
    answer = await w.desk.post(f"/v1/models/m/{path}", json=body)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text


async def test_a_place_beyond_all_bounds_is_refused(w: World) -> None:
    await w.serving("1")
    answer = await w.desk.get(f"/v1/models/m/history?after={HUGE}")
    assert (answer.status_code, answer.json()["field"]) == (422, "after"), answer.text


@pytest.mark.parametrize("depth", [100, 900, 100_000])
async def test_what_is_nested_too_deeply_is_refused(w: World, depth: int) -> None:
    content = b'{"name": "3", "engine": "scripted", "settings": {"a": %b1%b}}' % (b"[" * depth, b"]" * depth)
    answer = await w.desk.post("/v1/models/m/versions", content=content)
    assert answer.status_code == 422 and answer.json()["field"], answer.text
