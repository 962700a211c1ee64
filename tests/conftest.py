"""What takes long to start, once for all the tests that leave it as they found it: a fleet with the scripted model,
and a vLLM with the packaged weights."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from models.paged import VllmModel
from models.settings import EngineSettings
from models.weights import prepare
from tests.fleet import KINDS, ROOT, TestFleet

settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # an example that takes long says how busy the machine is


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with fleets of their own come first: a fleet that idles beside them takes an eighth of two cores."""
    shared = {item.path for item in items if "fleet" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path.parent.name != "cluster" or item.path in shared)


@pytest.fixture(scope="session")
def fleet() -> Iterator[TestFleet]:
    """Real Ray, Serve, PostgreSQL, Valkey, LanceDB, embedder; replies of 10 tokens a second; actors of `KINDS`."""
    fleet = TestFleet(FLOTILLA_SCRIPTED_TOKEN_S="0.1", FLOTILLA_KINDS=KINDS)
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def vllm() -> AsyncIterator[VllmModel]:
    """SmolLM2 by the name of "smollm2@1"."""
    cache = Path(os.environ.get("FLOTILLA_HOME", ROOT / ".flotilla")) / "cache"
    engine = await VllmModel.open(
        EngineSettings(weights=str(prepare(cache)), name="smollm2@1", ping_fresh_s=0)
    )
    yield engine
    await engine.close()
