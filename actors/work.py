"""The patience to go through doors that may be shut for a while."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from actors import tracing
from actors.serving.apart import apart_s
from actors.serving.going_on import PLANS_READ_S, going_on
from actors.stopwatch import Stopwatch
from flotilla.core import signals
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, NotFound, Overloaded, Unavailable
from flotilla.core.generation import Finished, Generated, Origin
from flotilla.core.knowledge import Hit
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.ports import Knowledge, ModelDoor

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0


class Work:
    """Searching and generating for conversations, over the death of whoever does it."""

    def __init__(
        self, *, knowledge: Knowledge, model: ModelDoor, clock: Clock, log: Any, limits: Limits = LIMITS
    ) -> None:
        self.knowledge = knowledge
        self.model = model
        self.clock = clock
        self.log = log
        self.limits = limits
        self._replies = 0  # under way

    async def retrieve(
        self, origin: Origin, wanted: str, effect: signals.Retrieve
    ) -> signals.Found | signals.Failed:
        """Searches, again and again while the knowledge is out of reach, until patience ends. What is found
        comes with the version of the model `wanted` that is to answer."""
        begun = self.clock.monotonic()
        for pause_s in _pauses():
            try:
                hits = await self._search(origin, effect)
                taken_ms = (self.clock.monotonic() - begun) * 1000
                return signals.Found(
                    turn=effect.turn,
                    run=effect.run,
                    hits=hits,
                    retrieval_ms=round(taken_ms, 2),
                    model=self.chosen(origin, wanted),
                )
            except Exception as broken:
                error = self._said_plainly(broken)
                if not self._patient(error, begun, self.limits.retrieval_patience_s):
                    return signals.Failed(turn=effect.turn, run=effect.run, problem=error.problem())
                await self.clock.sleep(pause_s)
        raise AssertionError("pauses never end")

    async def _search(self, origin: Origin, effect: signals.Retrieve) -> tuple[Hit, ...]:
        """Nothing for an agent that has nowhere to look."""
        if not effect.collection:
            return ()
        return await self.knowledge.search(origin.tenant, effect.collection, effect.query, limit=effect.limit)

    def chosen(self, origin: Origin, wanted: str) -> str:
        """The version that is to answer; while nobody knows the models what was `wanted`, so that it is not lost."""
        try:
            return self.model.choose(origin, wanted)
        except Unavailable:  # whoever generates will know them
            return wanted

    async def generate(
        self, effect: signals.Generate, watch: Stopwatch
    ) -> AsyncGenerator[signals.Streamed | signals.Generated | signals.Failed]:
        """The reply, whatever dies on the way: a replica that is lost is followed by another, which
        goes on from the text so far."""

        def retried(error: FlotillaError) -> None:
            self.log.warning("generation.retried", turn=effect.turn, reason=error.detail)

        prompt = effect.prompt
        if asked := apart_s(self._replies):
            prompt = msgspec.structs.replace(prompt, apart_s=asked)
        patience_s = self.limits.model_patience_s
        parts = going_on(self.model, prompt, clock=self.clock, patience_s=patience_s, retried=retried)
        self._replies += 1
        try:
            async with aclosing(parts):
                async for part in parts:
                    yield self._heard(effect, part, watch)
        except Exception as broken:
            problem = self._said_plainly(broken).problem()
            yield signals.Failed(turn=effect.turn, run=effect.run, problem=problem)
        finally:
            self._replies -= 1

    def _heard(
        self, effect: signals.Generate, part: Generated, watch: Stopwatch
    ) -> signals.Streamed | signals.Generated:
        watch.first = watch.first or self.clock.monotonic()
        if isinstance(part, Finished):
            watch.finished(part)
            tracing.generated(effect.prompt.model, part)
            return signals.Generated(turn=effect.turn, run=effect.run, usage=part.usage, model=part.model)
        watch.heard(part, effect.prompt.model)
        return signals.Streamed(turn=effect.turn, run=effect.run, text=part.text, model=part.model)

    def _said_plainly(self, error: Exception) -> FlotillaError:
        """A bug behind a door ends the turn that met it, with an error, and not the session."""
        if isinstance(error, FlotillaError):
            return error
        self.log.error("door.broke", exc_info=error)
        return FlotillaError("The reply could not be made.", next="Send the message again with another id.")

    def _patient(self, error: FlotillaError, begun: float, patience_s: float) -> bool:
        if isinstance(error, NotFound) and error.field == "model":
            patience_s = PLANS_READ_S
        elif not isinstance(error, Unavailable | Overloaded):
            return False
        return self.clock.monotonic() - begun < patience_s


def _pauses() -> Iterator[float]:
    """Seconds between tries: doubling, up to a bound, without end."""
    pause_s = RETRY_FIRST_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, RETRY_MOST_S)
