"""An engine of a tiny model that says nonsense, once for all that do something to it: those of test_engine_life, and
then those of test_engine_lost, who kill it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flotilla.core.versions import Version
from models import neighbours
from models.engines import open_engine
from models.paged import VllmModel
from models.variants import tiny
from tests.fleet import ROOT

CACHE = Path(os.environ.get("FLOTILLA_HOME", ROOT / ".flotilla")) / "cache"
SETTINGS: dict[str, Any] = {
    "kv_cache_bytes": 64 << 20,
    "adapters_max": 2,
    "adapter_rank_max": 8,
    "max_model_len": 1024,
    "ping_fresh_s": 0,
}


@pytest.fixture(scope="session")
def base() -> Path:
    return tiny(CACHE)


@pytest.fixture(scope="session")
def seats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where it sits by itself, and not beside the engines of fleets that are tested meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "FOLDER", tmp_path_factory.mktemp("engines"))
        yield neighbours.FOLDER


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def engine(base: Path, seats: Path) -> AsyncIterator[VllmModel]:
    version = Version(model="tiny", name="1", source=str(base), settings=SETTINGS)
    engine = await open_engine(version, str(base), threads=1)
    assert isinstance(engine, VllmModel)
    yield engine
    await engine.close()
