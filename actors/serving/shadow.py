"""The same prompts at a candidate, beside the real replies: compared, counted, and never sent."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import aclosing
from random import Random
from typing import Any

from actors.serving.counting import Counts
from actors.serving.replies import Replies, Terms
from flotilla.core.clock import Clock
from flotilla.core.generation import Finished, Generated, Piece, Prompt
from flotilla.core.tallies import SHADOW
from flotilla.core.versions import FLEET, Route, Version

AT_ONCE_MAX = 2
SHADOW_S = 120.0

_WORD = re.compile(r"\w+")


class Shadow:
    """`dropped` counts the replies that were drawn and not made, since `AT_ONCE_MAX` were being made."""

    def __init__(self, replies: Replies, counts: Counts, clock: Clock, log: Any, random: Random) -> None:
        self._replies = replies
        self._counts = counts
        self._clock = clock
        self._log = log
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Shadow: {len(self._tasks)} under way, {self.dropped} dropped>"

    def draws(self, route: Route | None, version: Version, prompt: Prompt) -> bool:
        """Whether a reply of `version` is to be compared: whole ones of the stable version are, that customers
        get."""
        if route is None or not route.shadow or not route.candidate or version.id != route.stable:
            return False
        unfit = prompt.said or prompt.structured or prompt.origin.tenant == FLEET
        return not unfit and self._random.random() < route.shadow

    def begin(self, candidate: Version, prompt: Prompt, sent: str) -> None:
        """Returns at once and never raises."""
        if len(self._tasks) >= AT_ONCE_MAX:
            self.dropped += 1
            return
        task = asyncio.create_task(self._make(candidate, prompt, sent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, candidate: Version, prompt: Prompt, sent: str) -> None:
        tally = self._counts.of(SHADOW + candidate.id)
        tally.running += 1
        try:
            async with asyncio.timeout(SHADOW_S):
                await self._compare(candidate, prompt, sent)
        except Exception as error:  # whatever it is, no customer is to notice
            tally.failed()
            self._log.info("shadow.failed", version=candidate.id, reason=repr(error))
        finally:
            tally.running -= 1

    async def _compare(self, candidate: Version, prompt: Prompt, sent: str) -> None:
        terms = Terms(tries_max=1, hedged=False, counted=False)
        parts: list[Generated] = []
        async with aclosing(await self._replies.begin(candidate, prompt, terms)) as begun:
            async for part in begun.parts():
                parts.append(part)
        ended = self._clock.monotonic()
        text = "".join(part.text for part in parts if isinstance(part, Piece))
        usage = next(part.usage for part in parts if isinstance(part, Finished))
        first_ms = 1000 * (begun.first_at - begun.asked_at)
        tally = self._counts.of(SHADOW + candidate.id)
        tally.reply(first_ms, usage.completion_tokens, ended - begun.asked_at, usage.prompt_tokens)
        tally.score(similarity(sent, text))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def similarity(one: str, other: str) -> float:
    """How many words two texts share, 0 to 1: the F1 of their bags of words, whatever their order and case,
    as SQuAD scores answers (Rajpurkar et al., 2016). Two texts without words are the same."""
    bags = Counter(_WORD.findall(one.lower())), Counter(_WORD.findall(other.lower()))
    both, all_ = (bags[0] & bags[1]).total(), bags[0].total() + bags[1].total()
    return 2 * both / all_ if all_ else 1.0
