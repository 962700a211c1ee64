"""Candidates that are slow, that make things up, that break off: found out and turned back by the fleet itself.

A model of its own, `lake`, under customers who ask all the time. How fast it is on a quiet machine is in
`benchmarks/RESULTS.md`; here other tests may be running beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from benchmarks.crowd import Crowd, patiently
from benchmarks.swap_driving import Driver
from benchmarks.swap_regressions import GOOD, Trial, prepare
from simulation.observations import Received
from tests.fleet import QUESTION, TestFleet

MODEL = "lake"
CUSTOMERS = 12
SEED = 23
BACK_WITHIN_S = 6.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(fleet: TestFleet) -> AsyncIterator[Crowd]:
    """Asks the good version, and never notices anything."""
    await prepare(Driver(fleet, MODEL), MODEL)
    fleet.http.post(f"/v1/models/{MODEL}/serve", json={"version": GOOD}).raise_for_status()
    made = Crowd(fleet, [session(fleet) for _ in range(CUSTOMERS)], SEED)
    made.start()
    try:
        await made.until_replies(CUSTOMERS)
        yield made
        assert not (broken := await made.finish()), made.explained(broken)
        assert not [o for o in made.log.observations if isinstance(o, Received) and o.type == "reply.failed"]
    finally:
        await made.aclose()


def session(fleet: TestFleet) -> str:
    """Gateways have read the plan of a new model within a second."""

    def opened() -> str:
        body = {"agent": "bank", "model": MODEL}
        return fleet.http.post("/v1/sessions", json=body).raise_for_status().json()["id"]

    return patiently(opened)


@pytest.mark.parametrize(
    ("what", "budget"), [("slow", "first token: p95"), ("invented", "quality: 0.00"), ("broken", "errors: ")]
)
async def test_a_worse_candidate_is_turned_back_by_itself(
    fleet: TestFleet, crowd: Crowd, what: str, budget: str
) -> None:
    back = await Trial(fleet, crowd, MODEL).back(what, f"on trial: {what}")
    assert back.reason.startswith(budget)
    assert back.seconds < BACK_WITHIN_S
    assert fleet.ask(session(fleet), QUESTION)["data"]["model"] == f"{MODEL}@{GOOD}"
