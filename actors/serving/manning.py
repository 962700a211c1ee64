"""Has as many replicas run as the plans of the models ask for: another housekeeping of the controller.

It holds nothing that matters, and all it does can be done twice (`flotilla/core/policy/replicas.py`). With
no plan known nothing is started and nothing is ended: plans are lost with Valkey, and are hung up again by
the models' actors, which are woken for that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from actors.link import Links
from actors.looking import keep_looking
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.members import Member
from flotilla.core.policy.crew import History, Sight
from flotilla.core.policy.replicas import Decision, Targets, plan
from flotilla.core.ports import Directory, FailureBoard, PlanBoard
from flotilla.core.versions import Placed, Plans

ROLE = "model"
LOOK_EVERY_S = 1.0
ASK_TIMEOUT_S = 2.0
# Whether every model that is known has its newest plan there: when there is none at all, and when there are some.
WAKE_EVERY_S, WAKE_SOME_EVERY_S = 5.0, 60.0
WOKEN_AT_ONCE = 16


class Replicas(Protocol):
    """The processes of the replicas, as whoever schedules them sees them."""

    async def names(self) -> list[str]:
        """Those that run, that are being started, or that are started again after they died."""
        ...

    async def start(self, name: str, placed: Placed) -> None:
        """One that is there already is left alone."""
        ...

    async def stop(self, name: str) -> None:
        """Ends it for good; nothing if there is none."""
        ...

    async def failure(self, name: str) -> str | None:
        """Why it can't start, in its own words; None if it can, or if it doesn't say."""
        ...


Models = Callable[[], Awaitable[Sequence[str]]]
"""The names of the models in the record."""

Wake = Callable[[str], Awaitable[object]]
"""Has the actor of a model show itself: it hangs its plan up then."""


async def _none() -> Sequence[str]:
    return ()


async def _nobody(_: str) -> None:
    return None


class Manning:
    def __init__(
        self,
        *,
        directory: Directory,
        board: PlanBoard,
        failures: FailureBoard,
        processes: Replicas,
        links: Links,
        clock: Clock,
        log: Any,
        models: Models = _none,
        wake: Wake = _nobody,
        targets: Targets = Targets(),  # noqa: B008 (frozen)
    ) -> None:
        self._directory = directory
        self._board = board
        self._failures = failures
        self._processes = processes
        self._links = links
        self._clock = clock
        self._log = log
        self._models = models
        self._wake = wake
        self._targets = targets
        self._woken_at = -math.inf
        self.history = History()

    def __repr__(self) -> str:
        wanted = {id: watched.wanted for id, watched in self.history.versions.items()}
        return f"<Manning: {len(self.history.replicas)} replicas, wanted {wanted}>"

    async def run(self) -> None:
        """Looks once a second, for as long as its process lives."""
        await keep_looking(self.look, LOOK_EVERY_S, self._clock, self._blind)

    def _blind(self, error: FlotillaError) -> None:
        """For now: what is there stays as it is."""
        self._log.warning("manning.blind", reason=error.detail)

    async def look(self) -> Decision:
        """One look, and what follows from it. Raises `Unavailable` if there is nothing to see by."""
        plans = await self._board.plans()
        await self._wake_others(plans)
        if not plans:
            return Decision(history=self.history)
        members = await self._directory.members(ROLE)
        decided = plan(await self._sight(plans, members), self.history, self._targets)
        await self._note(decided)
        self.history = decided.history
        await self._perform(decided, {member.name: member for member in members})
        return decided

    async def _sight(self, plans: Plans, members: Sequence[Member]) -> Sight:
        running = await self._processes.names()
        beating = {member.name for member in members}
        silent = [name for name in running if name not in beating]
        reasons = await asyncio.gather(*map(self._processes.failure, silent))
        return Sight(
            plans=plans,
            members=members,
            running=running,
            failed={name: reason for name, reason in zip(silent, reasons, strict=True) if reason},
            now=self._clock.monotonic(),
        )

    # -- doing it

    async def _note(self, decided: Decision) -> None:
        for version, reason in decided.gave_up.items():
            self._log.warning("version.given_up", version=version, reason=reason)
            await self._failures.note(version, reason)
        for version in decided.recovered:
            await self._failures.clear(version)

    async def _perform(self, decided: Decision, members: dict[str, Member]) -> None:
        for name in decided.stop:
            await self._end(name, members.get(name))
        for name, placed in decided.start:
            self._log.info("replica.wanted", name=name)
            await self._processes.start(name, placed)
        await asyncio.gather(*(self._drain(members[name]) for name in decided.drain))

    async def _end(self, name: str, member: Member | None) -> None:
        self._log.info("replica.ended", name=name)
        await self._processes.stop(name)
        if member is not None:
            await self._directory.leave(member)

    async def _drain(self, member: Member) -> None:
        """Told again at each look, as it may have been started again since."""
        try:
            link = await self._links.to(member.address)
            await link.ask("drain", b"", timeout_s=ASK_TIMEOUT_S)
        except FlotillaError as error:
            self._log.info("replica.not_told", name=member.name, reason=error.detail)

    # -- plans that were lost

    async def _wake_others(self, plans: Plans) -> None:
        """All models of the record: the plan of one may be missing, or be an older one, as its host died when it
        had recorded what it was about to hang up."""
        now = self._clock.monotonic()
        if now - self._woken_at < (WAKE_SOME_EVERY_S if plans else WAKE_EVERY_S):
            return
        self._woken_at = now
        known = await self._known()
        for at in range(0, len(known), WOKEN_AT_ONCE):
            await asyncio.gather(*map(self._wake_one, known[at : at + WOKEN_AT_ONCE]))

    async def _known(self) -> Sequence[str]:
        try:
            return await self._models()
        except FlotillaError as error:  # the plans that are there still hold
            self._log.warning("models.unknown", reason=error.detail)
            return ()

    async def _wake_one(self, model: str) -> None:
        """Waits for it no longer than for any other answer: meanwhile no replica is replaced."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await self._wake(model)
        except FlotillaError as error:
            self._log.warning("model.not_woken", model=model, reason=error.detail)
        except TimeoutError:
            self._log.warning("model.not_woken", model=model, reason=f"No answer in {ASK_TIMEOUT_S:g} s.")
