"""The models as a simulated host has them: wired as `serve.serving` wires the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

from actors.doorways import Doorways
from actors.link import Links
from actors.looking import keep_looking
from actors.residents import model as model_residents
from actors.residents.agent import AgentPerformer
from actors.roster import Roster
from actors.runtime import Resident
from actors.serving.router import Models
from actors.serving.sight import Replicas
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.tools import Toolbox
from models.scripted import ScriptedModel, ScriptSettings
from simulation.boards import SeenBoard
from simulation.choosing import Choosing, Chosen
from simulation.versions import MODEL, PLAIN, TEXTS
from simulation.writers import Lookup, Writer

FAILURES_EVERY_S = 1.0
PLAINLY = ScriptSettings(
    mode="replies", replies=TEXTS[PLAIN.id], first_token_s=0.02, token_s=0.02, tick_s=0.01
)


class Serving:
    """`boards` are tallies and failures, as this process sees them; `chose` hears who is to answer whom."""

    def __init__(
        self,
        links: Links,
        roster: Roster,
        board: SeenBoard,
        boards: Any,
        *,
        clock: Clock,
        log: Any,
        random: Random,
        chose: Chosen,
    ) -> None:
        self.board = board
        self.boards = boards
        self._clock = clock
        self._log = log
        self._failed: dict[str, str] = {}
        self.replicas = Replicas(links, roster, self._failure)
        plain = ScriptedModel(PLAINLY, clock)
        self.models = Models(
            links,
            roster,
            board,
            boards,
            clock=clock,
            log=log,
            random=random,
            default=MODEL,
            local={PLAIN.engine: plain},
        )
        self.models.catalogue = Choosing(MODEL, chose)

    def _failure(self, version: str) -> str | None:
        return self._failed.get(version)

    def residents(self, doors: Doorways, random: Random) -> Iterator[Resident]:
        yield from model_residents.residents(doors)
        performer = AgentPerformer(
            knowledge=doors.knowledge,
            model=doors.model,
            toolbox=Toolbox([Lookup(self._clock)]),
            letters=doors.letters,
            clock=self._clock,
            log=self._log,
            random=random,
        )
        yield Resident(Writer, performer)

    async def run(self) -> None:
        await asyncio.gather(self.models.run(), self._keep_up_with_failures())

    async def _keep_up_with_failures(self) -> None:
        await keep_looking(self._look_for_failures, FAILURES_EVERY_S, self._clock, self._stale)

    async def _look_for_failures(self) -> None:
        self._failed = await self.boards.failures()

    def _stale(self, error: FlotillaError) -> None:
        self._log.info("failures.stale", reason=error.detail)
