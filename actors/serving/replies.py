"""A reply of one version: asked of a replica, of another one if that fails before a word was said, and of two
at once when the first is unusually slow.

The last is hedging: Dean and Barroso, "The Tail at Scale", 2013.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import msgspec

from actors.serving.attempts import AGAIN_S, Asker, Attempt, Reading, Slow
from actors.serving.balance import NoReplica
from actors.serving.counting import Counts, HedgeBudget
from flotilla.core.clock import Clock
from flotilla.core.errors import AdapterMissing, FlotillaError, Misconfigured, OtherVersion, Overloaded
from flotilla.core.generation import Finished, Generated, Piece, Prompt
from flotilla.core.limits import LIMITS
from flotilla.core.versions import Version

TRIES_MAX = 3
PLACE_AGAIN_S = 0.25
HEDGE_AFTER_P95S = 2.0
HEDGE_AFTER_LEAST_S = 0.1


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a reply is asked for. `urgent`: somebody else could answer if the first token is late.
    `counted`: among the version's figures; what is made for comparison is counted elsewhere."""

    first_token_timeout_s: float = 30.0
    urgent: bool = False
    tries_max: int = TRIES_MAX
    hedged: bool = True
    counted: bool = True


class Begun:
    """A reply whose first part is there; all of them, if it is of use only when it is `whole`. Times are in
    seconds of the monotonic clock. Close it."""

    def __init__(self, version: Version, attempt: Reading, asked_at: float, first_at: float) -> None:
        self.version = version
        self.attempt = attempt
        self.asked_at = asked_at
        self.first_at = first_at
        first = attempt.first.result()
        if isinstance(first, Piece):
            first = msgspec.structs.replace(first, model=first.model or version.id)
        self._parts: list[Generated] = [first]

    @property
    def made_by(self) -> str:
        """The version that makes it: another one than was asked for, if the replica was reloaded meanwhile."""
        return self._parts[0].model or self.version.id

    async def finish(self) -> None:
        """Reads the rest now."""
        self._parts += [part async for part in self.attempt.rest()]

    async def parts(self) -> AsyncGenerator[Generated]:
        for part in self._parts:
            yield part
        if not isinstance(self._parts[-1], Finished):
            async with aclosing(self.attempt.rest()) as rest:
                async for part in rest:
                    yield part

    async def aclose(self) -> None:
        await self.attempt.aclose()


class Replies:
    def __init__(self, asker: Asker, counts: Counts, clock: Clock) -> None:
        self.asker = asker
        self.counts = counts
        self.clock = clock
        self.hedges = HedgeBudget()

    async def begin(self, version: Version, prompt: Prompt, terms: Terms) -> Begun:
        """Raises what the last replica that was asked raised, or `NoReplica`. Both are among the version's
        errors, unless they say nothing of it (`_is_its_own`)."""
        adapter = version.id if version.adapter else ""
        prompt = msgspec.structs.replace(prompt, model=version.runs_on, adapter=adapter)
        if terms.hedged:
            self.hedges.request()
        race = _Race(self, version, prompt, terms)
        try:
            return await self._patiently(race, prompt, terms)
        except FlotillaError as error:
            if terms.counted and not race.counted and self._is_its_own(error, version, prompt):
                self.counts.of(version.id).failed()
            raise

    def _is_its_own(self, error: FlotillaError, version: Version, prompt: Prompt) -> bool:
        """Not what is the prompt's fault; not a reply that waits for replicas, which was counted as it broke
        off; nor that this process has not heard yet who serves what by now."""
        if isinstance(error, NoReplica):
            return not prompt.said and self.asker.balance.vanished(version)
        return error.status >= 500 and not isinstance(error, OtherVersion)

    def lost(self, begun: Begun, error: FlotillaError) -> None:
        """A reply broke off that was begun."""
        if isinstance(begun.attempt, Attempt) and self.asker.failed(begun.attempt, error):
            self.counts.of(begun.made_by).failed()

    async def _patiently(self, race: _Race, prompt: Prompt, terms: Terms) -> Begun:
        """All places for adapters may be in use for a moment, at all replicas, or be taken again before they are
        used: whoever asked for one waits for it as long as for a first token, before another version's words."""
        until = self.clock.monotonic() + terms.first_token_timeout_s
        while True:
            try:
                return await self._tries(race, prompt, terms)
            except (Overloaded, AdapterMissing):
                if not prompt.adapter or self.clock.monotonic() >= until:
                    raise
            race.tried.clear()
            await self.clock.sleep(PLACE_AGAIN_S)

    async def _tries(self, race: _Race, prompt: Prompt, terms: Terms) -> Begun:
        for number in range(terms.tries_max):
            try:
                return await self._try(race, prompt)
            except NoReplica as nobody:
                raise race.error or nobody from None
            except FlotillaError as error:
                if number == terms.tries_max - 1 or _is_final(error, terms):
                    raise
        raise AssertionError("The last try returns or raises.")

    async def _try(self, race: _Race, prompt: Prompt) -> Begun:
        """Nobody sees the beginning of one that is of use only when it is whole, and breaks off."""
        begun = await race.run()
        if not whole(prompt):
            return begun
        try:
            await begun.finish()
        except FlotillaError as error:
            assert isinstance(begun.attempt, Attempt)
            race.lost(begun.attempt, error)
            await begun.aclose()
            raise
        except BaseException:
            await begun.aclose()
            raise
        return begun


def _is_final(error: FlotillaError, terms: Terms) -> bool:
    """Whether other replicas of the version would say the same, or take as long."""
    same = error.status < 500 or isinstance(error, Misconfigured)
    return same or (terms.urgent and isinstance(error, Slow))


def whole(prompt: Prompt) -> bool:
    """Whether nothing of the reply is shown before all of it is there. Where tools may be called and words
    came instead, those are shown as they come."""
    return bool(prompt.schema) or (prompt.structured and prompt.tool_choice != "auto")


class _Race:
    """Between the replicas that are asked for one reply. `tried` are those that were; `error` is what the
    last one that failed raised."""

    def __init__(self, of: Replies, version: Version, prompt: Prompt, terms: Terms) -> None:
        self._asker, self._counts, self._clock, self._hedges = of.asker, of.counts, of.clock, of.hedges
        self._version = version
        self._prompt = prompt
        self._terms = terms
        self._asked_at = self._clock.monotonic()
        self._running: list[Attempt] = []
        self.tried: set[str] = set()
        self.error: FlotillaError | None = None
        self.counted = False

    async def run(self) -> Begun:
        """The first that begins; the others are cancelled. Raises what the last of them raised."""
        try:
            self._ask()
            begun = await self._until_one_begins()
        except BaseException:
            await self._end()
            raise
        try:
            await self._end()
        except BaseException:  # whoever asked has left meanwhile
            await begun.aclose()
            raise
        return begun

    async def _end(self) -> None:
        for attempt in self._running:
            await attempt.aclose()
        self._running = []

    def _ask(self) -> None:
        attempt = self._asker.ask(self._version, self._prompt, self.tried)
        self.tried.add(attempt.member.name)
        self._running.append(attempt)

    async def _until_one_begins(self) -> Begun:
        began = self._clock.monotonic()
        hedge_at = began + self._hedge_after_s()
        late_at = began + self._terms.first_token_timeout_s
        while True:
            wait_s = max(0.0, min(hedge_at, late_at) - self._clock.monotonic())
            firsts = [attempt.first for attempt in self._running]
            await asyncio.wait(firsts, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if begun := await self._winner():
                return begun
            now = self._clock.monotonic()
            if now >= hedge_at:
                hedge_at = math.inf
                self._hedge()
            if now >= late_at:
                late_at = self._be_patient(began, now)

    async def _winner(self) -> Begun | None:
        """Raises if all have failed, or one for which there is no point in asking others."""
        for attempt in [attempt for attempt in self._running if attempt.first.done()]:
            self._running.remove(attempt)
            error = attempt.first.exception()
            if error is None:
                return self._begun(attempt)
            await attempt.aclose()
            if not isinstance(error, FlotillaError):
                raise error
            self.lost(attempt, error)
            if not self._running or error.status < 500:
                raise error
        return None

    def _begun(self, attempt: Attempt) -> Begun:
        now = self._clock.monotonic()
        self._asker.answers(attempt)
        if self._terms.counted:
            self._counts.begun(self._version.id, 1000 * (now - self._asked_at))
        return Begun(self._version, attempt, self._asked_at, now)

    def lost(self, attempt: Attempt, error: FlotillaError) -> None:
        """Draws the conclusions from an attempt that failed. However many do, it is one error of a reply."""
        self.error = error
        if self._asker.failed(attempt, error) and self._terms.counted and not self.counted:
            self.counted = True
            self._counts.of(self._version.id).failed()

    # -- when it takes long

    def _hedge_after_s(self) -> float:
        p95_ms = self._counts.p95_ms(self._version.id)
        if p95_ms is None or self._prompt.structured or not self._terms.hedged:
            return math.inf
        return max(HEDGE_AFTER_LEAST_S, HEDGE_AFTER_P95S * p95_ms / 1000)

    def _hedge(self) -> None:
        """Asks one more replica, if there is one and the budget allows it."""
        if self._asker.balance.others(self._version, self.tried) and self._hedges.take():
            with suppress(NoReplica):
                self._ask()

    def _be_patient(self, began: float, now: float) -> float:
        """Until when to wait on. Raises `Slow` where somebody else can answer; where nobody can, a request
        that queues keeps its place: asked again, it would begin at the end of the queue."""
        queues = any(self._asker.balance.queues(attempt.member) for attempt in self._running)
        if queues and not self._terms.urgent and now - began < LIMITS.model_patience_s:
            return now + self._terms.first_token_timeout_s
        error = Slow(f"{self._version.id} has said nothing for {now - began:.1f} s.", retry_after_s=AGAIN_S)
        for attempt in self._running:
            self.lost(attempt, error)
        raise error
