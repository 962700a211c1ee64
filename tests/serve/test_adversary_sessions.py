"""Places in a session's record that no record has."""

from __future__ import annotations

from tests.serve.conftest import Gateway


async def test_a_place_beyond_all_bounds_is_refused(gateway: Gateway) -> None:
    session = await gateway.session()
    answer = await gateway.desk.get(f"/v1/sessions/{session}/events?after={10**30}")
    assert (answer.status_code, answer.json()["field"]) == (422, "after"), answer.text
