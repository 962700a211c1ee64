"""The models as a host or a gateway has them: the way to them, the boards, and what is charged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

from actors.link import Links
from actors.looking import keep_looking
from actors.roster import Roster
from actors.serving.router import Models
from actors.serving.sight import Replicas
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ports import Model
from flotilla.core.versions import EngineName
from flotilla.stores.valkey import Client
from flotilla.stores.valkey_boards import ValkeyFailureBoard, ValkeyPlanBoard, ValkeyTallyBoard
from models.extract import ExtractModel, ExtractSettings
from serve.settings import Settings
from serve.versions import PLAIN, default_version

FAILURES_EVERY_S = 1.0


class Serving:
    def __init__(
        self, settings: Settings, client: Client, links: Links, *, roster: Roster, clock: Clock, log: Any
    ) -> None:
        self._clock = clock
        self._log = log
        self._failures = ValkeyFailureBoard(client)
        self._failed: dict[str, str] = {}
        self.board = ValkeyPlanBoard(client)
        self.tallies = ValkeyTallyBoard(client)
        self.replicas = Replicas(links, roster, self._failure)
        self.models = Models(
            links,
            roster,
            self.board,
            self.tallies,
            clock=clock,
            log=log,
            random=Random(),
            default=default_version(settings).model,
            local=_local(),
        )

    async def run(self) -> None:
        """Until cancelled: keeps up with the plans, and with what can't be started."""
        await asyncio.gather(self.models.run(), self._keep_up_with_failures())

    async def _keep_up_with_failures(self) -> None:
        await keep_looking(self._look_for_failures, FAILURES_EVERY_S, self._clock, self._stale)

    async def _look_for_failures(self) -> None:
        self._failed = await self._failures.failures()

    def _stale(self, error: FlotillaError) -> None:
        self._log.info("failures.stale", reason=error.detail)

    def _failure(self, version: str) -> str | None:
        return self._failed.get(version)

    async def aclose(self) -> None:
        await self.models.close()


def _local() -> Mapping[EngineName, Model]:
    """Engines that need no replica: they answer in this process, when all else is gone."""
    return {"extract": ExtractModel(ExtractSettings(name=PLAIN.id))}
