"""A customer is forgotten: on a real fleet, over HTTP."""

from __future__ import annotations

from tests.fleet import QUESTION, TestFleet


def opened(fleet: TestFleet, customer: str) -> str:
    body = {"agent": "bank", "customer": customer}
    return fleet.http.post("/v1/sessions", json=body).json()["id"]


def test_an_erased_customer_can_be_read_by_nobody_and_others_can(fleet: TestFleet) -> None:
    theirs, other = opened(fleet, "erika"), opened(fleet, "otto")
    for session in (theirs, other):
        fleet.ask(session, QUESTION)
    answer = fleet.http.delete("/v1/customers/erika")
    assert answer.status_code == 200 and answer.json()["sessions_awake"] == 1
    for path in ("", "/events"):
        gone = fleet.http.get(f"/v1/sessions/{theirs}{path}")
        assert gone.status_code == 410 and gone.json()["type"].endswith("/erased")
    assert theirs not in [session["id"] for session in fleet.http.get("/v1/sessions").json()["sessions"]]
    assert fleet.events(other)[-1]["type"] == "reply.completed"


def test_an_unknown_customer_is_not_found(fleet: TestFleet) -> None:
    answer = fleet.http.delete("/v1/customers/nobody")
    assert answer.status_code == 404 and answer.json()["field"] == "customer"
