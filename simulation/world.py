"""A small world from a seed: hosts, gateways, stores, and people who talk to them."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from flotilla.core.ids import ActorId
from flotilla.stores.memory import MemoryHotLog, MemoryJournal, MemoryPins
from simulation.clients import TENANT, Buyer, Customer, Outside, Person, Reader, Ringer
from simulation.loop import SimLoop
from simulation.modelled import CONTROLLER, Modelled
from simulation.network import Network
from simulation.nodes import GatewayNode, Ground, HostNode, Node, Stores
from simulation.observations import Effected, Entry, Fault, Observation, Stuck, Violation
from simulation.process import Process
from simulation.record import entries_of
from simulation.replicas import ControllerNode, ReplicaNode
from simulation.stores import BeatingDirectory, Store
from simulation.weather import Weather

SETTLE_MOST_S = 90.0
LOOK_EVERY_S = 0.25
GATEWAY_PORT = 8000
MODELS_SHARE = 0.25


class Bank:
    """The outside world: does what it is asked to once for each key."""

    def __init__(self, observe: Callable[[Observation], None], loop: SimLoop) -> None:
        self._observe = observe
        self._loop = loop
        self._done: set[str] = set()

    async def pay(self, key: str, action: str) -> None:
        if key not in self._done:
            self._done.add(key)
            self._observe(Effected(at=self._loop.time(), action=action, key=key))


class World:
    """With `models` there are some; None leaves it to the seed, of which one in four has them."""

    def __init__(self, seed: int, *, tracing: bool = False, models: bool | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(f"world {seed}")
        self.loop = SimLoop(seed)
        self.network = self.loop.sockets = Network(self.loop, self._weather())
        self.trace: list[str] | None = [] if tracing else None
        self.observations: list[Observation] = []
        self.broken: list[Violation] = []
        self.journal = MemoryJournal()
        some = random.Random(f"kind {seed}").random() < MODELS_SHARE if models is None else models
        self.modelled = Modelled(self) if some else None
        self.stores = self._stores()
        for store in self.stores.all() if tracing else ():
            store.say = self.say
        self.nodes: dict[str, Node] = {}
        self.processes: dict[str, Process] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self.lives = 0
        ports = [GATEWAY_PORT + n for n in range(self.chance.choice((1, 1, 2)))]
        self.ports = {f"gate-{n}": port for n, port in enumerate(ports)}
        self.host_names = [f"host-{n}" for n in range(self.chance.choice((1, 2, 2, 3)))]
        addresses = [f"127.0.0.1:{port}" for port in ports]
        self.outside = Outside(self.loop, seed, addresses, self.observe)
        self.readers: list[Reader] = []
        self.rings = self.chance.random() < 0.2
        self.actors: list[ActorId] = []

    def _weather(self) -> Weather:
        return Weather(late=self.chance.choice((0.0, 0.02, 0.1)), split=self.chance.choice((0.0, 0.1, 0.5)))

    def _stores(self) -> Stores:
        inner = {
            "journal": self.journal,
            "letters": self.journal.letters,
            "hot_log": MemoryHotLog(),
            "directory": BeatingDirectory(self.loop),
            "pins": MemoryPins(),
            "bank": Bank(self.observe, self.loop),
        }
        return Stores(
            **{
                name: Store(self.loop, self.network, self.loop.process(name), store)
                for name, store in inner.items()
            },
            **(self.modelled.stores if self.modelled else {}),
        )

    # -- noting

    def say(self, who: str, what: str) -> None:
        if self.trace is not None and not self.loop.is_closed():
            self.trace.append(f"{self.loop.time():10.6f}  {who:<10} {what}")

    def observe(self, observation: Observation) -> None:
        if self.loop.is_closed():  # what is torn down with the world is no part of it
            return
        self.observations.append(observation)
        if self.trace is not None:
            self.say(getattr(observation, "client", "world"), told(observation))

    def broke(self, who: str, what: str) -> None:
        if self.loop.is_closed():
            return
        self.say(who, f"BROKE {what}")
        self.broken.append(Violation(rule="broke", session="", at=self.loop.time(), what=f"{who}: {what}"))

    # -- processes

    def start(self, name: str) -> None:
        """A host or a gateway, for the first time or again; nothing if it runs."""
        if name in self.processes:
            return
        self.lives += 1
        process = self.processes[name] = self.loop.process(name)
        chance = random.Random(f"{self.seed} {name} {self.lives}")
        rings = self.rings or self.modelled is not None
        saw = self.modelled.saw if self.modelled else _nobody
        chose = self.modelled.chose if self.modelled else _nobody
        life, log = f"{name}/{self.lives}", SimLog(self, name)
        ground = Ground(name, life, self.loop, process, self.stores, log, chance, rings, saw, chose)

        async def live() -> None:
            node = self._node(name, ground)
            self.nodes[name] = node
            self.say(name, "starts")
            await node.run()

        self._lives[name] = self.loop.spawn(process, live())

    def _node(self, name: str, ground: Ground) -> Node:
        if name in self.ports:
            return GatewayNode(self.ports[name], ground)
        if name == CONTROLLER:
            return ControllerNode(ground)
        if self.modelled and name in self.modelled.crew.placed:
            return ReplicaNode(self.modelled.crew.placed[name].version, self.modelled.weights, ground)
        return HostNode(ground)

    def kill(self, name: str) -> None:
        if process := self.processes.pop(name, None):
            self.nodes.pop(name, None)
            self.loop.kill(process)

    def stop(self, name: str) -> None:
        """SIGTERM: it leaves, and its process is gone when it has."""
        if (task := self._lives.get(name)) is not None and name in self.processes:
            process = self.processes.pop(name)
            self.nodes.pop(name, None)
            task.add_done_callback(lambda _: self.loop.kill(process))
            self.loop.call_in(process, task.cancel)

    # -- people

    def _people(self) -> list[Coroutine[Any, Any, None]]:
        chance = self.chance
        people: list[Coroutine[Any, Any, None]] = []
        self.actors = [ActorId(TENANT, "session", f"s_{n}") for n in range(chance.choice((1, 1, 2, 3)))]
        for n, session in enumerate(self.actors):
            posts = chance.randint(2, 5)
            customer = Customer(f"customer-{n}", self.outside)
            if self.modelled:  # swaps take their time
                posts, customer.pauses_s = posts * 4, (0.0, 0.4, 3.0)
            people.append(self._person(customer, session, posts))
            if chance.random() < 0.3:
                people.append(
                    self._person(Person(f"person-{n}", self.outside), session, chance.random() < 0.7)
                )
            for m in range(chance.choice((1, 1, 2))):
                self.readers.append(Reader(f"reader-{n}.{m}", self.outside, session))
        if chance.random() < 0.5:
            till, cashier = ActorId(TENANT, "till", "t_0"), ActorId(TENANT, "cashier", "c_0")
            self.actors += [till, cashier]
            people.append(self._person(Buyer("buyer-0", self.outside), cashier, till, chance.randint(1, 3)))
        if self.rings:
            bell = ActorId(TENANT, "bell", "b_0")
            self.actors.append(bell)
            people.append(self._person(Ringer("ringer-0", self.outside), bell, chance.randint(1, 3)))
        if self.modelled:
            self.actors += [*self.modelled.writers, *self.modelled.audience.sessions]
            for n, session in enumerate(self.modelled.audience.asked):
                self.readers.append(Reader(f"reader-a{n}", self.outside, session))
            people += map(self._started, self.modelled.people())
        return people

    async def _started(self, person: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(self.chance.random())
        await person

    async def _person(self, client: Any, *args: Any) -> None:
        """Comes after a moment."""
        await asyncio.sleep(self.chance.random())
        await client.run(*args)

    # -- from the beginning to the end

    async def run(self, faults: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        """`faults` does harm and returns when all of it is mended."""
        for name in (*self.host_names, *self.ports, *([CONTROLLER] if self.modelled else [])):
            self.start(name)
        if len(self.host_names) > 1:  # until they know of each other, each believes it owns everything
            self.observe(Fault(at=0.0, what="hosts start"))
        tasks = [
            self.loop.spawn(self.loop.process(f"client-{n}"), person)
            for n, person in enumerate(self._people())
        ]
        for reader in self.readers:
            self.loop.spawn(self.loop.process(reader.name), reader.run())
        await faults(self)
        self.say("world", "no more faults")
        await self._settle(tasks)

    async def _settle(self, tasks: list[asyncio.Task[None]]) -> None:
        until = self.loop.time() + SETTLE_MOST_S
        while waits := await self._waiting(tasks):
            if self.loop.time() > until:
                for client, session, what in waits:
                    self.observe(Stuck(at=self.loop.time(), client=client, session=session, what=what))
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _waiting(self, tasks: list[asyncio.Task[None]]) -> list[tuple[str, str, str]]:
        waits = [(f"client-{n}", "", "an answer") for n, task in enumerate(tasks) if not task.done()]
        if waits:
            return waits
        waits = [("the record", str(actor), "an end") for actor in await self.journal.unfinished()]
        if waits:
            return waits
        if self.modelled and (waits := await self.modelled.waits()):
            return waits
        record = await self.record()
        for reader in self.readers:
            shown = [entry.seq for entry in record.get(reader.session.key, ()) if entry.shown]
            if shown and reader.after < shown[-1]:
                waits.append((reader.name, reader.session.key, f"event {shown[-1]}, has {reader.after}"))
        return waits

    async def record(self) -> dict[str, list[Entry]]:
        """The journals as they are, by actor."""
        return {actor.key: entries_of(await self.journal.read(actor)) for actor in self.actors}


def _nobody(*_: Any) -> None:
    return None


def told(observation: Observation) -> str:
    words = msgspec.to_builtins(observation)
    parts = (f"{k}={v!r}" for k, v in words.items() if k not in ("at", "client") and v not in ("", 0, False))
    return f"{type(observation).__name__.lower()} {' '.join(parts)}"


class SimLog:
    """What a process logs goes into the trace; what it logs as an error is a violation."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def debug(self, event: str, **words: Any) -> None:
        self._world.say(self._name, _line(event, words))

    info = warning = debug

    def error(self, event: str, **words: Any) -> None:
        error = words.pop("exc_info", None)
        said = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
        self._world.broke(self._name, f"{_line(event, words)} {said}".rstrip())

    def exception(self, event: str, **words: Any) -> None:
        self._world.broke(self._name, f"{_line(event, words)} {traceback.format_exc()}")


def _line(event: str, words: dict[str, Any]) -> str:
    return " ".join((event, *(f"{key}={value}" for key, value in words.items())))
