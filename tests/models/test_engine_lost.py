"""An engine whose process dies says so at once: to who reads from it, to who asks next, to a ping. The engine is the
one of test_engine_life, which comes before and needs it no more."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from flotilla.core.errors import Misconfigured, Unavailable
from flotilla.core.generation import ChatMessage, Piece, Prompt
from models.paged import VllmModel
from models.settings import EngineSettings

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

LONG = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=400, temperature=1.0)


def engines() -> list[psutil.Process]:
    """Processes of engines, in the order of their start."""
    children = psutil.Process().children(recursive=True)
    return sorted((c for c in children if "EngineCore" in c.name()), key=lambda c: c.create_time())


async def test_a_killed_engine_is_unavailable(engine: VllmModel) -> None:
    stream = engine.generate(LONG)
    assert isinstance(await anext(stream), Piece)
    engines()[-1].kill()
    with pytest.raises(Unavailable) as lost:
        async for _ in stream:
            pass
    assert lost.value.retry_after_s
    with pytest.raises(Unavailable):
        await engine.ping()
    with pytest.raises(Unavailable):
        await anext(engine.generate(LONG))


async def test_closing_twice_is_closing_once(engine: VllmModel) -> None:
    await engine.close()
    await engine.close()
    assert "closed" in repr(engine)
    assert engine.unfinished == 0


async def test_a_bad_folder_never_reaches_the_engine(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no config"):
        await VllmModel.open(EngineSettings(weights=str(tmp_path)))
