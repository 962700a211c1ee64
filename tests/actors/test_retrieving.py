"""Searching for a conversation: not at all, for an agent that has nowhere to look."""

from __future__ import annotations

from typing import Any

import structlog

from actors.work import Work
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Origin


class NoKnowledge:
    """Whoever searches it has a bug."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


class Chooser:
    """Reads of its models after having been asked so often."""

    def __init__(self, unread: int = 0) -> None:
        self.unread = unread

    def choose(self, origin: Origin, wanted: str) -> str:
        self.unread -= 1
        if self.unread >= 0:
            raise NotFound(f"There is no model {wanted!r}.", field="model")
        return f"{wanted}@1"


RETRIEVE = signals.Retrieve(turn="t-1", run="t-1", collection="", query="What now?", limit=4)


async def retrieved(model: Chooser | Ignorant, wanted: str = "m") -> signals.Found | signals.Failed:
    log = structlog.get_logger()
    work = Work(knowledge=NoKnowledge(), model=model, clock=SystemClock(), log=log)  # type: ignore[arg-type]
    return await work.retrieve(Origin(tenant="demo", conversation="s-1"), wanted, RETRIEVE)


async def test_a_model_that_this_host_has_not_read_of_yet_is_waited_for() -> None:
    found = await retrieved(Chooser(unread=3))
    assert isinstance(found, signals.Found) and found.model == "m@1"


async def test_a_model_that_there_is_not_is_not_waited_for_longer_than_plans_take() -> None:
    model = Chooser(unread=1_000_000)
    failed = await retrieved(model)
    assert isinstance(failed, signals.Failed) and failed.problem.field == "model"
    assert 1_000_000 - model.unread < 20


class Ignorant:
    """Its host has just started, and has read of no model."""

    def choose(self, origin: Origin, wanted: str) -> str:
        raise Unavailable("No model is known yet.")


async def test_what_was_asked_for_is_not_lost_at_a_host_that_knows_no_model_yet() -> None:
    found = await retrieved(Ignorant(), "m@tuned")
    assert isinstance(found, signals.Found) and found.model == "m@tuned"


async def test_an_agent_without_a_collection_searches_nothing_and_has_its_version_chosen() -> None:
    found = await retrieved(Chooser())
    assert isinstance(found, signals.Found)
    assert found.hits == () and found.model == "m@1"
