"""Models over HTTP: who may see and do what, what is refused with which field, and a swap from end to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from flotilla.core.swap_orders import Case
from flotilla.core.tallies import Tally
from serve.figures import Recent
from serve.settings import read_settings
from tests.serve.model_world import GATE, RIGHT, WRONG, World, world
from tests.serving_runtime.replica_rig import ask

CHANGES = [
    ("/v1/models/m/versions", {"name": "9", "engine": "scripted"}),
    ("/v1/models/m/serve", {}),
    ("/v1/models/m/swaps", {"to": "2"}),
    ("/v1/models/m/swap/pause", {}),
    ("/v1/models/m/swap/resume", {}),
    ("/v1/models/m/swap/promote", {}),
    ("/v1/models/m/swap/rollback", {}),
    ("/v1/models/m/evaluations", {"version": "1", "gate": GATE}),
]
STEP = {"canary": {"percent": 0}, "hold_s": 0.0}
BY_HAND = {"steps": [STEP], "automatic": False, "keep_s": 0.0}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


# -- who may


@pytest.mark.parametrize(("path", "body"), CHANGES)
async def test_a_tenant_reads_and_changes_nothing(w: World, path: str, body: dict[str, Any]) -> None:
    await w.serving("1")
    before = (await w.view()).seq
    answer = await w.tenant.post(path, json=body)
    assert answer.status_code == 403 and "operator" in answer.json()["next"]
    assert (await w.view()).seq == before
    assert (await w.tenant.get("/v1/models")).json()["models"][0]["name"] == "m"


async def test_a_tenant_sees_its_versions_and_no_settings(w: World) -> None:
    await w.add("1", settings={"api_key": "secret words"}, note="inside")
    await w.add("2", tenants=["somebody-else"])
    answer = await w.tenant.get("/v1/models/m")
    assert [version["id"] for version in answer.json()["versions"]] == ["m@1"]
    events = await w.tenant.get("/v1/models/m/history")
    assert "secret" not in answer.text + events.text and "inside" not in answer.text
    assert {v["id"] for v in (await w.show())["versions"]} == {"m@1", "m@2"}
    assert "secret" in (await w.desk.get("/v1/models/m")).text


# -- what is refused


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("versions", {"name": "1", "engin": "scripted"}, "engin"),
        ("versions", {"engine": "scripted"}, "name"),
        ("versions", {"name": "1", "engine": "abacus"}, "engine"),
        ("versions", {"name": "1", "engine": "vllm"}, "source"),
        ("versions", {"name": "1", "engine": "scripted", "model": "other"}, "model"),
        ("versions", {"name": "1", "engine": "scripted", "price": {"promt": 1}}, "price.promt"),
        ("versions", {"name": "1", "engine": "scripted", "by": 7}, "by"),
        ("versions", {"name": "a b", "engine": "scripted"}, "name"),
        ("serve", {"least": "1"}, "least"),
        ("serve", {"least": 3, "most": 2}, "least"),
        ("serve", {"version": "7"}, "version"),
        ("swaps", {}, "to"),
        ("swaps", {"to": "0"}, "to"),
        ("swaps", {"to": "2", "order": {"step": []}}, "order.step"),
        (
            "swaps",
            {"to": "2", "order": {"steps": [{"canary": {"percent": 500}}]}},
            "order.steps.0.canary.percent",
        ),
        (
            "swaps",
            {"to": "2", "order": {"steps": [{"canary": {"procent": 5}}]}},
            "order.steps.0.canary.procent",
        ),
        ("swaps", {"to": "2", "order": {"steps": [{"hold_s": 1}]}}, "order.steps.0.canary"),
        ("swaps", {"to": "2", "order": {"gate": {"name": "g", "cases": []}}}, "order.gate.cases"),
        (
            "swaps",
            {"to": "2", "order": {"gate": GATE | {"judges": [{"name": "x"}]}}},
            "order.gate.judges.0.name",
        ),
        ("evaluations", {"version": "1", "gate": GATE | {"tokens": 1}}, "gate.tokens"),
        ("evaluations", {"version": "7", "gate": GATE}, "version"),
    ],
)
async def test_what_does_not_fit_is_refused_with_the_field(
    w: World, path: str, body: dict[str, Any], field: str
) -> None:
    await w.add("0")
    await w.add("2")
    await w.desk.post("/v1/models/m/serve", json={"version": "0"})
    answer = await w.desk.post(f"/v1/models/m/{path}", json=body)
    assert (answer.status_code in (404, 422), answer.json().get("field")) == (True, field), answer.text
    assert (await w.view()).swap is None


async def test_bodies_that_are_no_json_and_names_that_are_none(w: World) -> None:
    for content in (b"[]", b"{", b"\xff"):
        answer = await w.desk.post("/v1/models/m/swaps", content=content)
        assert answer.status_code == 422 and answer.json()["field"] == "body"
    assert (await w.desk.get("/v1/models/a b")).json()["field"] == "model"
    assert (await w.desk.get("/v1/models/nothing")).status_code == 404
    assert (await w.desk.get("/v1/models/nothing/history")).status_code == 404
    assert (await w.desk.post("/v1/models/nothing/swap/pause")).status_code == 404
    huge = {"to": "2", "by": "x" * 3_000_000}
    assert (await w.desk.post("/v1/models/m/swaps", json=huge)).status_code == 413


async def test_a_version_never_changes_and_adding_it_again_changes_nothing(w: World) -> None:
    assert (await w.add("1", by="Ann")).status_code == 201
    again = await w.add("1", by="Bob")
    assert again.status_code == 201 and again.json()["seq"] == 1
    assert again.json()["versions"][0]["added_by"] == "other/Ann"
    other = await w.add("1", licence="apache-2.0")
    assert other.status_code == 409 and other.json()["field"] == "name"


# -- what is seen


async def test_a_model_is_listed_with_who_answers(w: World) -> None:
    assert (await w.desk.get("/v1/models")).json() == {"models": [], "more": False}
    await w.serving("1")
    (line,) = (await w.desk.get("/v1/models")).json()["models"]
    assert line == {
        "name": "m",
        "stable": "m@1",
        "candidate": None,
        "percent": 0.0,
        "stage": None,
        "versions": 1,
        "replicas": 1,
    }


async def test_a_model_is_shown_with_its_replicas_and_what_was_counted(w: World) -> None:
    await w.serving("1")
    await asyncio.sleep(0)
    await w.rig.look()
    for n in range(3):
        await w.rig.ask(ask("What does it cost?", conversation=f"c{n}"))
    await w.rig.look()
    seen = await w.show()
    assert seen["serving"]["stable"] == "m@1" and seen["notes"] == []
    (replica,) = seen["replicas"]
    assert (replica["version"], replica["state"], replica["adapters"]) == ("m@1", "up", [])
    assert "running" in replica["load"]
    assert seen["figures"]["m@1"]["sent"]["replies"] == 3


def test_figures_are_of_the_last_minute_once_somebody_has_looked() -> None:
    recent, tally = Recent(), Tally()
    tally.reply(10.0, 5, 1.0)
    counted, span = recent.take(100.0, {"p": {"m@1": tally}})
    assert (counted["m@1"].replies, span) == (1, None)
    more = Tally()
    more.add(tally)
    more.reply(20.0, 5, 1.0)
    new = Tally()
    new.reply(30.0, 1, 1.0)
    counted, span = recent.take(130.0, {"p": {"m@1": more}, "q": {"m@1": new}})
    assert (counted["m@1"].replies, span) == (2, 30.0), "a process that is new since counts in full"
    counted, span = recent.take(400.0, {"p": {"m@1": more}})
    assert counted["m@1"].replies == 0 and span == 270.0


def test_a_version_that_is_counted_anew_has_no_negative_figures() -> None:
    recent, before, now = Recent(), Tally(), Tally()
    before.reply(10.0, 50, 1.0)
    before.reply(10.0, 50, 1.0)
    recent.take(100.0, {"p": {"m@1": before}})
    now.reply(10.0, 5, 3.0)
    counted, _ = recent.take(110.0, {"p": {"m@1": now}})
    figures = counted["m@1"].figures("m@1")
    assert (figures.replies, round(figures.tokens_per_s, 2)) == (1, 1.67)


# -- a swap


async def test_a_swap_by_hand_from_its_order_to_its_end(w: World) -> None:
    await w.serving("1", "2")
    order = BY_HAND | {"gate": GATE}
    answer = await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": order, "by": "Ann"})
    assert answer.status_code == 202 and answer.json()["swap"]["to"] == "m@2"
    assert answer.json()["swap"]["from"] == "m@1" and answer.json()["swap"]["by"] == "other/Ann"
    again = await w.desk.post("/v1/models/m/swaps", json={"to": "2"})
    assert again.status_code == 409 and again.json()["field"] == "swap"
    seen = await w.reach("canary")
    gate = seen["swap"]["verdicts"]["evaluating"]
    assert gate["passed"] and gate["candidate"]["quality"] == 1.0 and gate["stable"]["version"] == "m@1"
    assert seen["scores"]["m@2"]["quality"] == 1.0
    (line,) = (await w.tenant.get("/v1/models")).json()["models"]
    assert (line["candidate"], line["stage"]) == ("m@2", "canary")
    promoted = await w.desk.post("/v1/models/m/swap/promote", json={"by": "Ann"})
    assert promoted.status_code == 200 and promoted.json()["serving"]["stable"] == "m@2"
    types = [event["type"] for event in await w.events("swap.ended")]
    assert types[:3] == ["version.added", "version.added", "model.served"]
    assert "swap.begun" in types and types[-1] == "swap.ended"
    done = await w.show()
    assert done["swap"] is None and done["swaps"][0]["end"] == "done"
    assert (await w.desk.post("/v1/models/m/swap/pause")).status_code == 409


async def test_a_swap_is_paused_resumed_and_rolled_back(w: World) -> None:
    await w.serving("1", "2")
    await w.desk.post("/v1/models/m/swaps", json={"to": "m@2", "order": BY_HAND})
    await w.reach("canary")
    assert (await w.desk.post("/v1/models/m/swap/pause")).json()["swap"]["paused"]
    resumed = await w.desk.post("/v1/models/m/swap/resume", json={})
    assert resumed.status_code == 200
    back = await w.desk.post("/v1/models/m/swap/rollback", json={"reason": "slower than it looked"})
    assert back.status_code == 200
    seen = await w.reach("rolled_back")
    assert seen["swaps"][0]["reason"] == "slower than it looked"
    assert seen["serving"]["stable"] == "m@1"


async def test_a_gate_that_fails_leaves_the_running_version(w: World) -> None:
    await w.serving("1")
    await w.add("2")
    await w.rig.start("m@2", settings=WRONG)
    await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": BY_HAND | {"gate": GATE}})
    async with asyncio.timeout(20):
        while not (seen := await w.show())["swaps"]:
            await asyncio.sleep(0.02)
    assert seen["swaps"][0]["end"] in ("failed", "rolled_back") and "gate" in seen["swaps"][0]["reason"]
    assert seen["serving"]["stable"] == "m@1"


async def test_the_same_key_begins_one_swap(w: World) -> None:
    await w.serving("1", "2")
    headers = {"Idempotency-Key": "release 7"}
    body = {"to": "2", "order": BY_HAND}
    first = await w.desk.post("/v1/models/m/swaps", json=body, headers=headers)
    again = await w.desk.post("/v1/models/m/swaps", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["swap"]["id"] == again.json()["swap"]["id"]
    begun = [
        e for e in (await w.desk.get("/v1/models/m/history")).json()["events"] if e["type"] == "swap.begun"
    ]
    assert len(begun) == 1


# -- events


async def test_events_resume_behind_the_last_one_and_tell_of_a_gate_by_its_size(w: World) -> None:
    await w.serving("1", "2")
    await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": BY_HAND | {"gate": GATE}})
    events = await w.events("swap.begun")
    begun = events[-1]
    assert begun["data"]["order"]["gate"] == {"name": "cards", "cases": 1}
    later = await w.events("swap.went", after=begun["seq"])
    assert [event["seq"] for event in later] == [begun["seq"] + 1]
    async with w.desk.stream("GET", "/v1/models/m/events", headers={"Last-Event-ID": "999"}) as answer:
        assert answer.status_code == 422
        assert "Last-Event-ID" in (await answer.aread()).decode()


async def test_figures_come_while_a_swap_is_watched(w: World) -> None:
    await w.serving("1", "2")
    step = {"canary": {"percent": 100}, "hold_s": 30.0}
    order = {"steps": [step], "automatic": False}
    await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": order})
    figures = (await w.events("swap.figures"))[-1]
    assert figures["data"]["candidate"]["version"] == "m@2"
    assert figures["data"]["stable"]["version"] == "m@1"


# -- evaluations


async def test_an_evaluation_says_what_each_answered(w: World) -> None:
    await w.serving("1")
    answer = await w.desk.post("/v1/models/m/evaluations", json={"version": "1", "gate": GATE})
    found = answer.json()
    assert answer.status_code == 200 and found["verdict"]["passed"], answer.text
    assert found["answers"]["m@1"] == [{"case": "gold", "text": RIGHT, "problem": None, "score": 1.0}]
    assert (await w.view()).scores == {}, "nothing is recorded"


async def test_an_evaluation_against_a_better_version_fails(w: World) -> None:
    await w.serving("1")
    await w.add("2")
    await w.rig.start("m@2", settings=WRONG)
    await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": BY_HAND})
    await w.reach("canary")
    body = {"version": "2", "against": "1", "gate": GATE}
    found = (await w.desk.post("/v1/models/m/evaluations", json=body)).json()
    assert not found["verdict"]["passed"] and found["verdict"]["stable"]["quality"] == 1.0


async def test_a_version_that_nothing_runs_is_not_answered_for_by_another(w: World) -> None:
    await w.serving("1")
    await w.add("2")
    answer = await w.desk.post("/v1/models/m/evaluations", json={"version": "2", "gate": GATE})
    assert answer.status_code == 503 and "models warm m 2" in answer.json()["next"]


# -- going on, dropping, judging


async def test_a_resume_that_is_sent_twice_goes_on_once_and_a_promotion_is_resumed_to_its_end(
    w: World,
) -> None:
    await w.serving("1", "2")
    order = BY_HAND | {"steps": [STEP, STEP, STEP], "keep_s": 600.0}
    await w.desk.post("/v1/models/m/swaps", json={"to": "2", "order": order})
    async with asyncio.timeout(20):
        while not ((swap := (await w.show())["swap"]) and swap["waits"]):
            await asyncio.sleep(0.02)
    assert swap["percents"] == [0, 0, 0] and swap["stages"][-1] == "retiring"
    for _ in range(2):
        answer = await w.desk.post("/v1/models/m/swap/resume", json={"at": swap["at"]})
        assert answer.status_code == 200
        async with asyncio.timeout(20):
            while not (seen := (await w.show())["swap"])["waits"]:
                await asyncio.sleep(0.02)
        assert seen["step"] == 1
    await w.desk.post("/v1/models/m/swap/promote")
    another = await w.desk.post("/v1/models/m/swaps", json={"to": "1"})
    assert another.status_code == 409 and "Resume it" in another.json()["next"]
    assert (await w.desk.post("/v1/models/m/swap/resume")).status_code == 200
    assert (await w.reach("done"))["serving"]["stable"] == "m@2"


async def test_a_version_is_dropped(w: World) -> None:
    await w.serving("1")
    await w.add("2")
    refused = await w.desk.delete("/v1/models/m/versions/1")
    assert (refused.status_code, refused.json()["field"]) == (422, "version")
    assert (await w.tenant.delete("/v1/models/m/versions/2")).status_code == 403
    assert (await w.desk.delete("/v1/models/m/versions/9")).status_code == 404
    for _ in range(2):
        answer = await w.desk.delete("/v1/models/m/versions/2?by=Ann")
        assert answer.status_code == 200
        assert [version["id"] for version in answer.json()["versions"]] == ["m@1"]
    (dropped,) = [e for e in await w.events("version.dropped") if e["type"] == "version.dropped"]
    assert dropped["data"] == {"version": "m@2", "by": "other/Ann"}
    again = await w.add("2")
    assert (again.status_code, again.json()["field"]) == (409, "name")


def polite(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
    return float("please" in answer)


async def test_judges_are_of_the_modules_that_the_settings_name(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await w.serving("1")
    gate = GATE | {"judges": [{"name": f"{__name__}:polite"}]}
    body = {"version": "1", "gate": gate}
    refused = await w.desk.post("/v1/models/m/evaluations", json=body)
    assert refused.status_code == 422 and "may not judge" in refused.json()["detail"]
    monkeypatch.setenv("FLOTILLA_JUDGES", f"else.where,{__name__}")
    w.doors.settings = msgspec.structs.replace(w.doors.settings, judges=read_settings().judges)
    found = (await w.desk.post("/v1/models/m/evaluations", json=body)).json()
    assert found["answers"]["m@1"][0]["score"] == 0.0 and not found["verdict"]["passed"]


async def test_looking_hangs_no_plan_up_again(w: World) -> None:
    await w.serving("1")
    hung = await w.rig.plans.plans()
    for _ in range(3):
        await w.show()
        await w.desk.get("/v1/models")
    assert await w.rig.plans.plans() is hung, "the same as long as nothing is hung up"
