"""Searching for a conversation: not at all, for an agent that has nowhere to look."""

from __future__ import annotations

from typing import Any

import structlog

from actors.work import Work
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.generation import Origin


class NoKnowledge:
    """Whoever searches it has a bug."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


class Chooser:
    def choose(self, origin: Origin, wanted: str) -> str:
        return f"{wanted}@1"


async def test_an_agent_without_a_collection_searches_nothing_and_has_its_version_chosen() -> None:
    knowledge, model, log = NoKnowledge(), Chooser(), structlog.get_logger()
    work = Work(knowledge=knowledge, model=model, clock=SystemClock(), log=log)  # type: ignore[arg-type]
    effect = signals.Retrieve(turn="t-1", run="t-1", collection="", query="What now?", limit=4)
    found = await work.retrieve(Origin(tenant="demo", conversation="s-1"), "m", effect)
    assert isinstance(found, signals.Found)
    assert found.hits == () and found.model == "m@1" and found.retrieval_ms < 50
