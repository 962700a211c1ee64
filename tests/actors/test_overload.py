"""More turns than a host can do, on virtual time: an open loop from a seed, a real host, sessions and scripted
engine, and a journal that appends one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from actors.doorways import Doorways
from actors.fleet import Fleet
from actors.host import Host
from actors.link import Links
from actors.pressure import Pressure
from actors.residents import session as session_residents
from actors.roster import Roster
from actors.runtime import Kinds, Runtime
from actors.serving.single import OneModel
from benchmarks.overload_crowd import arrivals
from flotilla.core import signals
from flotilla.core.calls import Call
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import FlotillaError, Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append
from flotilla.stores.memory import MemoryDirectory, MemoryHotLog, MemoryLetters
from flotilla.stores.memory_journal import MemoryJournal
from models.scripted import ScriptedModel, ScriptSettings
from simulation.clock import SimClock
from simulation.loop import SimLoop
from tests.actors.cluster import LOG, Shelf

APPEND_S = 0.004
TARGET_S = 0.25
IN_TIME_S = 1.0
SECONDS = 10.0
SCRIPT = ScriptSettings(mode="replies", replies=("Ninety-five dollars a year.",), token_s=0.005)
CONVERSATIONS = 400


class OneByOne(MemoryJournal):
    """Each append takes `APPEND_S`, behind all that came before it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._free_at = 0.0
        self.slow = False

    async def append(self, append: Append) -> None:
        if self.slow:
            self._free_at = max(self._free_at, self._clock.monotonic()) + APPEND_S
            await self._clock.sleep(self._free_at - self._clock.monotonic())
        await super().append(append)


class Shown(MemoryHotLog):
    """Notes when the first words of each turn are there to be seen."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.first_at: dict[str, float] = {}

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        await super().append(actor, turn, said, text)
        self.first_at.setdefault(turn, self._clock.monotonic())


class World:
    """One host. `target_s` of 0 refuses nothing."""

    def __init__(self, clock: Clock, seed: int, target_s: float) -> None:
        self.clock, self.chance = clock, Random(seed)
        self.journal, self.shown = OneByOne(clock), Shown(clock)
        self.pressure = Pressure(clock, target_s)
        links, letters = Links("t"), MemoryLetters()
        doors = Doorways(
            knowledge=Shelf(),  # type: ignore[arg-type]
            model=OneModel(ScriptedModel(SCRIPT, clock)),
            hot_log=self.shown,
            letters=letters,
            clock=clock,
            log=LOG,
        )
        runtime = Runtime(
            journal=self.journal,
            letters=letters,
            kinds=Kinds(session_residents.residents(doors)),
            fleet=Fleet(links, Roster(MemoryDirectory(), clock, LOG, "host"), clock, LOG),
            clock=clock,
            log=LOG,
        )
        self.host = Host(runtime, pressure=self.pressure)
        self.number = 0

    async def begin(self, tenants: tuple[str, ...]) -> None:
        self.feeling = asyncio.ensure_future(self.pressure.run())
        for tenant in tenants:
            for n in range(CONVERSATIONS):
                await self.host.ask(ActorId(tenant, "session", f"s-{n}"), signals.Open(agent="bank"), Call())
        self.journal.slow = True

    async def play(self, rates: dict[str, float]) -> dict[str, Heard]:
        begin = self.clock.monotonic()
        plan = sorted(
            (begin + at, tenant) for tenant, rate in rates.items() for at in self._times(tenant, rate)
        )
        heard = {tenant: Heard() for tenant in rates}
        asking = [
            asyncio.ensure_future(self._ask(at, n, tenant, heard[tenant]))
            for n, (at, tenant) in enumerate(plan)
        ]
        await asyncio.gather(*asking)
        await self.clock.sleep(3 * IN_TIME_S)
        for one in heard.values():
            one.settle(self.shown.first_at)
        return heard

    def _times(self, tenant: str, rate: float) -> list[float]:
        return arrivals(Random(f"{tenant} {self.chance.random()}"), rate, SECONDS)

    async def _ask(self, at: float, n: int, tenant: str, heard: Heard) -> None:
        await self.clock.sleep(at - self.clock.monotonic())
        self.number += 1
        id = ActorId(tenant, "session", f"s-{n % CONVERSATIONS}")
        post = signals.Post(id=f"m-{self.number}", text="What does it cost?")
        try:
            accepted = await self.host.ask(id, post, Call())
        except FlotillaError as error:
            heard.refusals.append(error)
        else:
            heard.asked_at[accepted.turn] = at


class Heard:
    def __init__(self) -> None:
        self.asked_at: dict[str, float] = {}
        self.refusals: list[FlotillaError] = []
        self.in_time = 0

    def settle(self, first_at: dict[str, float]) -> None:
        waits = [first_at[turn] - at for turn, at in self.asked_at.items() if turn in first_at]
        self.in_time = sum(wait <= IN_TIME_S for wait in waits)


def played(*spans: dict[str, float], seed: int = 1, target_s: float = TARGET_S) -> list[dict[str, Heard]]:
    """What was heard in each span of so many turns a second by tenant, one after the other."""
    loop = SimLoop(seed)
    clock = SimClock(loop, loop.root)

    async def main() -> list[dict[str, Heard]]:
        world = World(clock, seed, target_s)
        await world.begin(tuple({tenant for span in spans for tenant in span}))
        heard = [await world.play(span) for span in spans]
        assert not world.pressure.shedding.waiting, "what was let in has got through, or been forgotten"
        world.feeling.cancel()
        return heard

    return loop.run(main())


KNEE = 0.9 / (3 * APPEND_S)  # a turn appends three times


def test_past_the_knee_as_many_turns_are_in_time_as_at_it() -> None:
    spans = [{"demo": times * KNEE} for times in (0.5, 1.0, 2.0, 3.0)]
    half, knee, twice, thrice = (heard["demo"] for heard in played(*spans))
    assert not half.refusals and half.in_time == len(half.asked_at)
    assert len(knee.refusals) <= 0.1 * len(knee.asked_at)
    for past in (twice, thrice):
        assert past.in_time >= 0.9 * knee.in_time
        assert all(isinstance(error, Overloaded) and error.retry_after_s for error in past.refusals)
    assert len(thrice.refusals) > len(twice.refusals) > 0


def test_without_refusing_hardly_any_would_be_in_time() -> None:
    (heard,) = played({"demo": 3 * KNEE}, target_s=0.0)
    assert not heard["demo"].refusals and heard["demo"].in_time < 0.3 * KNEE * SECONDS


def test_a_quiet_tenant_beside_a_flooding_one_keeps_its_place() -> None:
    alone, beside = played({"quiet": 4.0}, {"flood": 3 * KNEE, "quiet": 4.0}, seed=2)
    flood, quiet = beside["flood"], beside["quiet"]
    assert flood.refusals and not quiet.refusals
    assert quiet.in_time >= 0.95 * len(quiet.asked_at)
    assert alone["quiet"].in_time == len(alone["quiet"].asked_at)


@pytest.mark.parametrize(
    "message", [signals.Interrupt(), signals.Describe(), signals.Close(), signals.Accept(person="Ann")]
)
async def test_what_begins_nothing_new_is_never_refused(message: Any) -> None:
    host = _full()
    with pytest.raises(Overloaded):
        host.deliver(ActorId("demo", "session", "s"), POST, HERE, Call())
    host.deliver(ActorId("demo", "session", "s"), message, HERE, Call())


async def test_nor_is_what_an_actor_has_sent_nor_what_is_only_told() -> None:
    host = _full()
    host.deliver(ActorId("demo", "session", "s"), POST, HERE, Call(chain=("demo/router/r",)))
    host.deliver(ActorId("demo", "session", "s"), POST, None, Call())


async def test_a_refusal_wakes_nobody() -> None:
    host = _full()
    with pytest.raises(Overloaded, match="waits"):
        host.deliver(ActorId("demo", "session", "new"), POST, HERE, Call())
    assert not host.active and host.pressure.shedding.counts == Counter({"mailbox": 1})


POST = signals.Post(id="m-1", text="Hello?")


class _Here:
    """Somebody who waits, and hears nothing in these tests."""

    gone = False

    def answer(self, value: Any) -> None: ...
    def refuse(self, error: FlotillaError) -> None: ...
    def part(self, value: Any) -> None: ...
    def when_gone(self, tell: Any) -> None: ...


HERE = _Here()


def _full() -> Host:
    """A host where ten wait of one tenant, and the mailboxes stand."""
    world = World(SystemClock(), 1, TARGET_S)
    shedding = world.pressure.shedding
    for _ in range(10):
        shedding.enter("demo")
    for _ in range(20):
        shedding.waited("mailbox", 1.0)
        shedding.tick(0.1)
    return world.host
