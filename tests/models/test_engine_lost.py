"""An engine whose process dies says so at once: to who reads from it, to who asks next, to a ping."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from flotilla.core.errors import Misconfigured, Unavailable
from flotilla.core.generation import ChatMessage, Piece, Prompt
from models.paged import VllmModel
from models.settings import EngineSettings
from models.variants import tiny

CACHE = Path(os.environ.get("FLOTILLA_HOME", Path(__file__).parents[2] / ".flotilla")) / "cache"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LONG = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=400, temperature=1.0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model() -> AsyncIterator[VllmModel]:
    folder = tiny(CACHE)
    settings = EngineSettings(
        weights=str(folder), name="tiny", context_tokens_max=512, kv_cache_bytes=64 << 20
    )
    model = await VllmModel.open(settings)  # perhaps beside the engine of other tests
    yield model
    await model.close()


def engines() -> list[psutil.Process]:
    """Processes of engines, in the order of their start."""
    children = psutil.Process().children(recursive=True)
    return sorted((c for c in children if "EngineCore" in c.name()), key=lambda c: c.create_time())


async def test_a_killed_engine_is_unavailable(model: VllmModel) -> None:
    stream = model.generate(LONG)
    assert isinstance(await anext(stream), Piece)
    engines()[-1].kill()
    with pytest.raises(Unavailable) as lost:
        async for _ in stream:
            pass
    assert lost.value.retry_after_s
    with pytest.raises(Unavailable):
        await model.ping()
    with pytest.raises(Unavailable):
        await anext(model.generate(LONG))


async def test_closing_twice_is_closing_once(model: VllmModel) -> None:
    await model.close()
    await model.close()
    assert "closed" in repr(model)
    assert model.unfinished == 0


async def test_a_bad_folder_never_reaches_the_engine(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no config"):
        await VllmModel.open(EngineSettings(weights=str(tmp_path)))
