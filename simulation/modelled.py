"""What a world has where there are models: versions, boards, a scheduler of replicas, and who is about them."""

from __future__ import annotations

import random
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from flotilla.core.ids import ActorId
from flotilla.core.tallies import Tally
from flotilla.core.versions import Plan, Version, version_of
from simulation.audience import Audience
from simulation.boards import Boards
from simulation.clock import SimClock
from simulation.crew import Crew
from simulation.model_history import State, states
from simulation.nodes import HostNode
from simulation.observations import Change, Chose, Hung, Saw
from simulation.operators import Commissioner, Operator
from simulation.record import changes_of
from simulation.replicas import ReplicaNode
from simulation.stores import Store
from simulation.versions import ACTOR, BAD, BASES, GOOD, MODEL, PLAIN, adapters, versions

if TYPE_CHECKING:
    from simulation.world import World

TENANT = "demo"
CONTROLLER = "controller"
FALLBACKS_SHARE = 0.5


class Modelled:
    def __init__(self, world: World) -> None:
        self._world = world
        self.chance = random.Random(f"models {world.seed}")
        self.audience = Audience(world.seed)
        known = versions(self.chance, self.audience.adapters_max)
        known += adapters() if self.audience.asked else []
        self.versions: dict[str, Version] = {version.id: version for version in known}
        clock = SimClock(world.loop, world.loop.root)
        self.boards = Boards(clock, self._hung)
        scheduler = world.loop.process("ray")
        self.crew = Crew(world.loop, scheduler, self.chance, world.start, world.kill)
        self.weights = {
            id: version
            for id, version in self.versions.items()
            if not (id == BAD and self.crew.without_weights)
        }
        self.stores = {
            "boards": Store(world.loop, world.network, world.loop.process("boards"), self.boards),
            "crew": Store(world.loop, world.network, scheduler, self.crew),
        }
        falling = random.Random(f"fallbacks {world.seed}")
        self.fallback = PLAIN if falling.random() < FALLBACKS_SHARE else None
        self.writers = [ActorId(TENANT, "writer", f"w_{n}") for n in range(self.chance.choice((0, 1, 2)))]

    # -- noting

    def saw(self, process: str, plan: Plan) -> None:
        world = self._world
        if plan.model == MODEL:
            world.observe(Saw(at=world.loop.time(), process=process, revision=plan.revision))

    def chose(self, revision: int, conversation: str, version: str) -> None:
        world = self._world
        at = world.loop.time()
        world.observe(Chose(at=at, revision=revision, conversation=conversation, version=version))

    def _hung(self, plan: Plan) -> None:
        route = plan.route
        if plan.model != MODEL:
            return
        self._world.observe(
            Hung(
                at=self._world.loop.time(),
                revision=plan.revision,
                stable=route.stable if route else "",
                candidate=route.candidate if route else "",
                shadow=bool(route and route.shadow),
                percent=route.canary.percent if route else 0.0,
                salt=route.salt if route else "",
                versions=tuple(plan.versions),
                placed=tuple(placed.version.id for placed in plan.placed),
                cut=tuple(sorted({id for id in self._answering() if id not in plan.versions})),
                reloading=plan.reloading,
                fallbacks=route.fallbacks if route else (),
                errors=sum(tally.errors for id, tally in self._tallies() if id in GOOD),
            )
        )

    def _answering(self) -> Iterator[str]:
        """The versions that customers are being answered by, as their hosts know it."""
        return (id for id, tally in self._tallies() if tally.running > 0 and id in self.versions)

    def _tallies(self) -> Iterator[tuple[str, Tally]]:
        for node in self._world.nodes.values():
            if isinstance(node, HostNode) and node.serving:
                yield from node.serving.models.counts.tallies.items()

    def _serves(self, replica: str) -> str:
        """What a process serves: what it was started with, or has been reloaded with since."""
        node = self._world.nodes.get(replica)
        return node.replica.version.id if isinstance(node, ReplicaNode) else version_of(replica)

    # -- the record

    async def changes(self) -> list[Change]:
        return changes_of(await self._world.journal.read(ACTOR))

    def state(self) -> State:
        """What the record has come to. (The journal in memory never waits.)"""
        work = self.changes()
        try:
            work.send(None)
        except StopIteration as done:
            return states(done.value)[-1]
        raise AssertionError("The journal waited.")

    # -- people

    def people(self) -> Iterator[Coroutine[Any, Any, None]]:
        outside = self._world.outside
        operator = Operator("operator", outside, self.state, self.fallback)
        yield operator.run(list(self.versions.values()), self.chance.choice((1, 2, 2, 3, 4)))
        for n, writer in enumerate(self.writers):
            yield Commissioner(f"commissioner-{n}", outside).run(writer, self.chance.randint(2, 6))
        yield from self.audience.people(outside, lambda: bool(self.state().stable))

    # -- the end

    async def waits(self) -> list[tuple[str, str, str]]:
        """A swap without an end, a plan that isn't the record's, replicas of what nobody is answered by."""
        state, plan = self.state(), (await self.boards.plans()).get(MODEL)
        waits: list[tuple[str, str, str]] = []
        if state.swap:
            waits.append(("the swap", MODEL, f"an end ({state.stage})"))
        hangs = plan.route.stable if plan and plan.route else ""
        if hangs != state.stable:
            waits.append(("the board", MODEL, f"the plan with {state.stable}, has {hangs!r}"))
        there = set(map(self._serves, self.crew.placed))
        wanted = BASES.get(state.stable, state.stable)
        if there != {wanted}:
            waits.append(("the crew", MODEL, f"replicas of {wanted} alone, has {sorted(there)}"))
        return waits
