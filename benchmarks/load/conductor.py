"""A run from its beginning to its end: the fleet, the workers, the phases, the folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from benchmarks.fleet import OwnFleet
from benchmarks.load import actions, book
from benchmarks.load.orders import Begin, Open, Recruit, Stop
from benchmarks.load.phases import Phases
from benchmarks.load.resources import Sampler
from benchmarks.load.roles import Cast
from benchmarks.load.scenario import Scenario
from benchmarks.load.screen import Screen
from benchmarks.load.workers import Worker, Workers
from flotilla.cli.local import Local

SPARE_SOCKETS = 100  # for requests beside them
DOCUMENTS = [
    {
        "id": "gold",
        "title": "Gold Card",
        "text": "The Gold Card costs 95 dollars a year. It gives three percent cash back on travel and dining. "
        "A lost card is replaced within three working days, and a charge may be disputed within sixty days.",
    }
]


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet that is put under load. `own` can be done things to; of `local`, processes can be seen. HAProxy
    carries `sockets_max` sockets; those beyond go to the gateway's own port, `aside`."""

    url: str
    rpc: str
    key: str
    aside: str = ""
    sockets_max: int = 0
    own: OwnFleet | None = None
    local: Local | None = None


class Conductor:
    """`name` is the run's; its folder is made anew."""

    def __init__(
        self, scenario: Scenario, where: Where, *, seed: int, name: str, command: str, console: Console
    ) -> None:
        self._scenario = scenario
        self._where = where
        self._seed = seed
        self._name = name
        self._command = command
        self._screen = Screen(console, f"{name}, seed {seed}")
        self._began = time.monotonic()
        self._marks: list[dict[str, Any]] = []
        self.folder = book.RUNS / name

    async def run(self) -> dict[str, Any]:
        """What `run.json` says. Raises `Broken`."""
        actions.checked(
            [action.do for phase in self._scenario.phases for action in phase.actions], self._where.own
        )
        workers = Workers(await asyncio.gather(*(self._worker(n) for n in range(self._scenario.processes))))
        try:
            with self._screen:
                return await self._conduct(workers)
        finally:
            await workers.end()

    async def _worker(self, number: int) -> Worker:
        recruit = Recruit(
            scenario=self._scenario,
            url=self._where.url,
            rpc=self._where.rpc,
            key=self._where.key,
            seed=self._seed,
            run=f"r{os.getpid():x}{int(time.time()):x}",  # messages of two runs never have the same id
            worker=number,
            workers=self._scenario.processes,
            aside=self._where.aside,
            aside_from=self._where.sockets_max,
        )
        return await Worker.start(recruit, self._screen.tick)

    async def _conduct(self, workers: Workers) -> dict[str, Any]:
        self._screen.phase = "opening sessions"
        await workers.all(Open())
        started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._began = time.monotonic()
        await workers.all(Begin(at=self._began))
        cast = Cast(self._where.local, workers.pids, os.getpid())
        sampler = Sampler(cast, self._began, lambda: self._screen.sockets)
        sampler.start()
        phases = Phases(self._scenario, workers, self._began, self._act, self._mark)
        with tempfile.TemporaryDirectory(prefix="flotilla-load-") as parts:
            try:
                await phases.run()
                self._screen.phase = "hearing out"
                await workers.all(Stop(drain_s=self._scenario.drain_s, folder=parts))
            finally:
                await asyncio.to_thread(sampler.stop)
            return self._written(Path(parts), phases, sampler, started_at)

    def _written(self, parts: Path, phases: Phases, sampler: Sampler, started_at: str) -> dict[str, Any]:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        run = book.Run(
            name=self._name,
            scenario=self._scenario,
            seed=self._seed,
            command=self._command,
            started_at=started_at,
            seconds=time.monotonic() - self._began,
            phases=phases.played,
            measured=dict(phases.measures),
            marks=self._marks,
        )
        return book.write(self.folder, run, book.Parts(parts, self._scenario.processes), sampler)

    async def _act(self, do: str) -> None:
        assert self._where.own is not None
        await actions.ACTIONS[do](self._where.own)

    def _mark(self, kind: str, text: str) -> None:
        if kind == "phase":
            self._screen.phase = text
        at_s = round(time.monotonic() - self._began, 4)
        self._marks.append({"at_s": at_s, "kind": kind, "text": text})


def own_fleet(scenario: Scenario, key: str = "dev") -> Where:
    """A fleet with the scenario's settings, up and with something to say. The caller takes it down."""
    fleet = OwnFleet(**scenario.settings)
    try:
        fleet.up()
        if scenario.documents:
            fleet.know(scenario.agent, DOCUMENTS)
    except BaseException:
        fleet.down()
        raise
    most = fleet.sockets_max - SPARE_SOCKETS
    aside = fleet.gateway_url if scenario.conversations > most else ""
    if aside:
        print(f"HAProxy has files for {most} sockets here; the others go to the gateway's own port.")
    return Where(
        url=fleet.url,
        rpc=fleet.grpc,
        key=key,
        own=fleet,
        local=fleet.local,
        aside=aside,
        sockets_max=most,
    )
