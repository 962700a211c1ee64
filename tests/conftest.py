"""One fleet with the scripted model for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet import TestFleet


@pytest.fixture(scope="session")
def fleet() -> Iterator[TestFleet]:
    """Real Ray, Serve, PostgreSQL, Valkey, LanceDB and embedder; replies of 10 tokens a second."""
    fleet = TestFleet(FLOTILLA_SCRIPTED_TOKEN_S="0.1")
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()
