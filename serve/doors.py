"""What the gateway's routes need of the world, kept on the application."""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection

from actors.link import Links
from actors.overview import Overview
from actors.serving.allowances import Allowances
from actors.serving.charging import Charging
from actors.serving.gauging import Tallied
from actors.serving.librarian import LibrarianEmbedder, RemoteLibrarian
from flotilla.core.access import KeyStore
from flotilla.core.clock import SystemClock
from flotilla.core.ports import Letters, UsageLedger
from flotilla.stores import valkey
from flotilla.stores.postgres import PostgresJournal, open_journal
from flotilla.stores.valkey_notices import ValkeyNotices
from flotilla.stores.valkey_quotas import ValkeyQuotas
from serve import tracing
from serve.admission import Gate, GatedFleet
from serve.going import Going
from serve.guards import Guards
from serve.log import logger
from serve.roster import roster_of
from serve.serving import Serving
from serve.settings import Settings
from serve.tracing import tracer_of


class Doors:
    """What a gateway needs of the world."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = logger("gateway")
        self.going = Going()
        self.clock = SystemClock()
        client = valkey.connect(settings.redis_url)
        self.directory = valkey.ValkeyDirectory(client)
        self.once = valkey.ValkeyOnce(client)
        self.links = Links(settings.token)
        self.pins = valkey.ValkeyPins(client)
        self.roster = roster_of(settings, self.directory, self.pins, self.clock, self.log)
        self.gate = Gate(self.clock, settings.queue_target_s)
        self.fleet = GatedFleet(self.links, self.roster, self.clock, self.log, self.gate)
        self.knowledge = RemoteLibrarian(self.links, self.roster)
        serving = self.serving = Serving(
            settings, client, self.links, roster=self.roster, clock=self.clock, log=self.log
        )
        self.model, self.board, self.tallies = serving.models, serving.board, serving.tallies
        self.model.waited = self.gate.shedding.waited
        self.tallied = Tallied(serving.tallies, self.log)
        self.embedder = LibrarianEmbedder(self.links, self.roster)
        self.allowances = Allowances(self.ledger, self.clock, self.log, default=settings.allowance)
        self.charging = Charging(self.ledger, self.clock, self.log, heard=self.allowances.heard)
        notices, quotas = ValkeyNotices(client), ValkeyQuotas(client)
        self.guards = Guards(settings, self.api_keys, notices, quotas, clock=self.clock, log=self.log)
        self.keys, self.limits = self.guards.keys, self.guards.limits
        self.revocations = self.guards.revocations
        self.overview = Overview(self.links, self.roster, self.directory, self.pins)
        tracer = tracer_of(settings, "gateway", self.log)
        self.traces = tracing.Traces(tracer, self.clock, settings.trace_share)
        self._journal: PostgresJournal | None = None
        self._opening = asyncio.Lock()

    async def journal(self) -> PostgresJournal:
        """Opened when first read from, so that a gateway starts while PostgreSQL is down."""
        async with self._opening:
            if self._journal is None:
                self._journal = await open_journal(self.settings.database_url, secret=self.settings.secret)
            return self._journal

    async def letters(self) -> Letters:
        return (await self.journal()).letters

    async def ledger(self) -> UsageLedger:
        return (await self.journal()).ledger

    async def api_keys(self) -> KeyStore:
        return (await self.journal()).api_keys

    async def run(self) -> None:
        """Until cancelled: keeps up with the fleet."""
        await asyncio.gather(
            self.roster.run(), self.serving.run(), self.charging.run(), self.gate.run(), self.guards.run()
        )

    async def aclose(self) -> None:
        await self.guards.aclose()
        await self.serving.aclose()
        await self.charging.aclose()
        await self.links.aclose()
        await self.directory.close()
        if self._journal is not None:
            await self._journal.close()
        await tracing.close(self.traces.tracer)


def doors_of(connection: HTTPConnection) -> Doors:
    return connection.app.state.doors
