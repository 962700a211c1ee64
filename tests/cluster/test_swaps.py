"""Swaps on a real fleet under customers who talk: forth, back, in place; and those that can't be.

A model of its own, `pond`, whose versions mark each of their words. Nothing stands in for it, so a reply that no
replica can make would be missed. (`python -m benchmarks.swaps` does the same fifty times.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from benchmarks.crowd import Crowd, patiently
from benchmarks.swap_driving import LAX, Driver, order
from benchmarks.swap_judging import Judged, judge
from benchmarks.swap_kills import CONTROLLER, REPLICA
from benchmarks.swap_versions import fit, marked
from tests.fleet import QUESTION, TestFleet

MODEL = "pond"
AMBER, BERYL = f"{MODEL}@amber", f"{MODEL}@beryl"
CUSTOMERS = 6
SEED = 3


@pytest.fixture(scope="module", autouse=True)
def pond(fleet: TestFleet) -> None:
    """Two versions, one of which answers."""
    path = f"/v1/models/{MODEL}"
    for id in (AMBER, BERYL):
        fleet.http.post(f"{path}/versions", json=marked(id)).raise_for_status()
    fleet.http.post(f"{path}/serve", json={"version": "amber"}).raise_for_status()


@pytest.fixture
def driver(fleet: TestFleet) -> Driver:
    return Driver(fleet, MODEL)


def session(fleet: TestFleet) -> str:
    """Gateways have read the plan of a new model within a second."""

    def opened() -> str:
        body = {"agent": "bank", "model": MODEL}
        return fleet.http.post("/v1/sessions", json=body).raise_for_status().json()["id"]

    return patiently(opened)


def answers(fleet: TestFleet) -> str:
    """The version that answers a new conversation, as its words have it, too."""
    reply = fleet.ask(session(fleet), QUESTION)["data"]
    assert fit(reply["text"], reply["model"]) == "whole"
    return reply["model"]


@asynccontextmanager
async def asking(fleet: TestFleet) -> AsyncGenerator[Crowd]:
    """Customers who ask all the time. In the end each reply has to be one version's, whole, and shown once."""
    crowd = Crowd(fleet, [session(fleet) for _ in range(CUSTOMERS)], SEED)
    crowd.start()
    try:
        await crowd.until_replies(CUSTOMERS)
        yield crowd
        await crowd.until_replies(CUSTOMERS)
        assert not (broken := await crowd.finish()), crowd.explained(broken)
        found: Judged = judge(crowd.log.observations)
        assert not found.why
        assert set(found.makers) <= {AMBER, BERYL}
    finally:
        await crowd.aclose()


def kill(fleet: TestFleet, title: str) -> None:
    for process in fleet.local.processes():
        if process.cmdline()[:1] == [title]:
            process.kill()


# -- those that are done


async def test_replicas_and_the_controller_die_under_a_swap_and_no_word_is_lost(
    fleet: TestFleet, driver: Driver
) -> None:
    async with asking(fleet):
        swap = await driver.begin("beryl", order(50, hold_s=2.0, budgets=LAX), "forth")
        await driver.until(lambda view: view["swap"]["stage"] == "canary", "the canary")
        kill(fleet, CONTROLLER)
        kill(fleet, REPLICA)
        ended = await driver.ended(swap)
    assert (ended["end"], ended["from"], ended["to"]) == ("done", AMBER, BERYL)
    assert answers(fleet) == BERYL


async def test_a_person_rolls_back_from_the_canary_while_another_swap_is_refused(
    fleet: TestFleet, driver: Driver
) -> None:
    async with asking(fleet):
        swap = await driver.begin("amber", order(50, hold_s=120.0), "and back")
        await driver.until(lambda view: view["swap"]["stage"] == "canary", "the canary")
        with pytest.raises(ValueError, match="is under way") as second:
            await driver.begin("amber", order(), "a second one")
        assert '"field":"swap"' in str(second.value)
        await driver.steer("rollback", "it says amber")
        ended = await driver.ended(swap)
    assert (ended["end"], ended["reason"]) == ("rolled_back", "it says amber")
    assert answers(fleet) == BERYL


async def test_a_replica_gets_other_weights_in_place(fleet: TestFleet, driver: Driver) -> None:
    replicas = [each["name"] for each in (await driver.view())["replicas"] if each["state"] == "up"]
    async with asking(fleet):
        ended = await driver.swapped("amber", order(in_place=True), "in place")
    assert ended["end"] == "done"
    view = await driver.view()
    assert {each["name"]: each["version"] for each in view["replicas"]} == dict.fromkeys(replicas, AMBER)
    assert answers(fleet) == AMBER


# -- those that can't be


async def test_a_swap_to_the_version_that_runs_is_refused(fleet: TestFleet) -> None:
    answer = fleet.http.post(f"/v1/models/{MODEL}/swaps", json={"to": "amber"})
    assert (answer.status_code, answer.json()["field"]) == (422, "to")


async def test_weights_that_are_missing_end_a_swap_with_their_path(fleet: TestFleet, driver: Driver) -> None:
    await driver.add(marked(f"{MODEL}@hollow") | {"source": "/nowhere/at/all"})
    ended = await driver.swapped("hollow", order(), "hollow")
    assert ended["end"] == "failed"
    assert "/nowhere/at/all" in ended["reason"] and "isn't there" in ended["reason"]
    assert answers(fleet) == AMBER


async def test_a_gate_that_fails_ends_a_swap_before_a_customer_hears_of_it(
    fleet: TestFleet, driver: Driver
) -> None:
    case = {"id": "fee", "question": QUESTION, "expected": ["$95"], "context": ["It costs 95 dollars."]}
    gate = {"name": "fees", "cases": [case], "score_min": 0.5}
    async with asking(fleet) as crowd:
        ended = await driver.swapped("beryl", order(50, gate=gate), "gated")
        makers = set(judge(crowd.log.observations).makers)
    assert ended["end"] == "failed" and "score" in ended["reason"]
    assert ended["verdicts"]["evaluating"]["passed"] is False
    assert makers == {AMBER}
    assert answers(fleet) == AMBER


async def test_a_model_that_is_not_there_is_refused(fleet: TestFleet) -> None:
    answer = fleet.http.post("/v1/models/puddle/swaps", json={"to": "1"})
    assert answer.status_code == 404


async def test_after_all_that_nothing_runs_but_the_stable_version(driver: Driver) -> None:
    view = await driver.until(
        lambda view: {each["version"] for each in view["replicas"]} == {AMBER}, "the end of the others"
    )
    assert view["swap"] is None and view["serving"]["stable"] == AMBER
