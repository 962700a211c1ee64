"""An actor with a process to itself: found, started once whoever asks, ended when it sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from actors import dedicated, frames
from actors.dedicated import Finder, Spawning, ends_when_asleep, process_name
from actors.link import Links, Listener
from actors.roster import Roster
from actors.service import Service
from flotilla.core.actor import Fact, Kind, Resources
from flotilla.core.effects import Message
from flotilla.core.errors import Refused, Unavailable, UnknownKind
from flotilla.core.ids import ActorId
from tests.actors.membership import LOG, TOKEN, Board, Hands, listening

pytestmark = pytest.mark.timeout(10)
ACTOR = ActorId("t", "solo", "s_1")
KINDS = {
    "solo": Kind(name="solo", messages=Message, facts=Fact, dedicated=Resources(cpus=1.0, gpus=1.0)),
    "session": Kind(name="session", messages=Message, facts=Fact),
}


def kind_of(name: str) -> Kind:
    if name not in KINDS:
        raise UnknownKind(f"There is no kind {name!r}.")
    return KINDS[name]


async def echo(method: str, body: bytes) -> AsyncGenerator[bytes]:
    yield body


class World:
    """Two pooled hosts that answer "dedicate", and a spawner whose processes run in this one."""

    def __init__(self) -> None:
        # Of the callers and of the processes, whose beats would otherwise move the callers' time on.
        self.clock, self.theirs = Hands(), Hands()
        self.board, self.links = Board(), Links(TOKEN)
        self.roster = Roster(self.board, self.clock, LOG, "host", "dedicated", dedicated=["solo"])
        self.finder = Finder(self.roster, self.links, self.clock)
        self.spawning = Spawning(kind_of, self, self.clock)
        self.spawned: list[tuple[ActorId, Resources]] = []
        self.asked = 0
        self.down = False
        self.awake = True
        self.processes: dict[str, asyncio.Task[None]] = {}
        self.listeners: list[Listener] = []

    async def begin(self) -> None:
        for name in ("host-0", "host-1"):
            self.listeners.append(await listening(self.board, name, self._answer))
        await self.roster.refresh()

    async def _answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        assert method == "dedicate"
        self.asked += 1
        await self.spawning.dedicate(frames.decode_actor(body))
        yield b""

    async def spawn(self, actor: ActorId, resources: Resources) -> None:
        """`Spawner`; like Ray's it leaves alone what is there."""
        if self.down:
            raise Unavailable("The scheduler does not answer.")
        self.spawned.append((actor, resources))
        name = process_name(actor)
        if name not in self.processes or self.processes[name].done():
            up: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            service = self._service(actor)
            run = service.run(name, "127.0.0.1", up.set_result)
            self.processes[name] = asyncio.create_task(run)
            await up

    def _service(self, actor: ActorId) -> Service:
        return Service(
            role="dedicated",
            handler=echo,
            directory=self.board,
            clock=self.theirs,
            log=LOG,
            token=TOKEN,
            info={"actor": str(actor)},
            housekeeping=(ends_when_asleep(lambda: self.awake, self.theirs),),
        )

    async def reach(self, actor: ActorId) -> str:
        """What a caller does: asks until the process is there."""
        while True:
            try:
                found = await self.finder.resolve(actor)
            except Unavailable as error:
                assert error.retry_after_s
                await self.clock.sleep(error.retry_after_s)
                await self.roster.refresh()
            else:
                link = await self.links.to(found.address)
                assert await link.ask("echo", b"hello") == b"hello"
                return found.name

    async def end(self) -> None:
        for process in self.processes.values():
            process.cancel()
        await asyncio.gather(*self.processes.values(), return_exceptions=True)
        await self.links.aclose()
        for listener in self.listeners:
            await listener.aclose()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.begin()
    yield made
    await made.end()


def test_no_two_actors_share_a_process_name() -> None:
    ids = [
        ActorId("a", "b", "c.d"),
        ActorId("a", "b.c", "d"),
        ActorId("a.b", "c", "d"),
        ActorId("a", "b", "c"),
    ]
    assert len({process_name(id) for id in ids}) == len(ids)
    assert process_name(ACTOR) == "t~solo~s_1"


async def test_its_process_is_started_with_its_resources_and_found(world: World) -> None:
    assert await world.reach(ACTOR) == "t~solo~s_1"
    assert world.spawned == [(ACTOR, Resources(cpus=1.0, gpus=1.0))]


async def test_each_actor_has_a_process_of_its_own(world: World) -> None:
    names = {await world.reach(ActorId("t", "solo", f"s_{n}")) for n in range(3)}
    assert len(names) == 3 == len(world.processes)


async def test_many_callers_start_it_once(world: World) -> None:
    others = [Finder(world.roster, world.links, world.clock) for _ in range(20)]
    outcomes = await asyncio.gather(*(f.resolve(ACTOR) for f in others), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert world.asked == 20 and len(world.spawned) == 1
    assert await world.reach(ACTOR) == "t~solo~s_1"


async def test_a_caller_that_tries_again_does_not_ask_each_time(world: World) -> None:
    for _ in range(10):
        with pytest.raises(Unavailable):
            await world.finder.resolve(ACTOR)
    assert world.asked == 1


async def test_it_is_started_again_when_it_did_not_come(world: World) -> None:
    for _ in range(3):
        await world.spawning.dedicate(ACTOR)
    assert len(world.spawned) == 1
    world.clock.at += dedicated.SPAWN_AGAIN_AFTER_S
    await world.spawning.dedicate(ACTOR)
    assert len(world.spawned) == 2


async def test_what_the_scheduler_refused_is_tried_again_at_once(world: World) -> None:
    world.down = True
    with pytest.raises(Unavailable, match="scheduler"):
        await world.finder.resolve(ACTOR)
    world.down = False
    assert await world.reach(ACTOR) == "t~solo~s_1"


async def test_while_no_host_is_up_callers_are_told_to_come_again(world: World) -> None:
    world.board.found.clear()
    await world.roster.refresh()
    with pytest.raises(Unavailable, match="No host"):
        await world.finder.resolve(ACTOR)


async def test_a_host_that_does_not_answer_is_passed_over(world: World) -> None:
    owner = world.roster.pooled_owner(ACTOR)
    assert owner is not None
    number = int(owner.name.removeprefix("host-"))
    await world.listeners[number].aclose()
    with pytest.raises(Unavailable, match="Nothing answers"):
        await world.finder.resolve(ACTOR)
    assert await world.reach(ACTOR) == "t~solo~s_1"


async def test_a_process_whose_actor_sleeps_ends_and_is_started_again_when_asked(world: World) -> None:
    await world.reach(ACTOR)
    world.awake = False
    await world.processes[process_name(ACTOR)]  # returns: it is not to be started again
    await world.roster.refresh()
    assert world.roster.owner(ACTOR) is None
    world.awake = True
    assert await world.reach(ACTOR) == "t~solo~s_1"
    assert len(world.spawned) == 2


async def test_a_pooled_kind_has_no_process(world: World) -> None:
    with pytest.raises(Refused, match="session"):
        await world.spawning.dedicate(ActorId("t", "session", "s_1"))
    with pytest.raises(UnknownKind):
        await world.spawning.dedicate(ActorId("t", "nobody", "s_1"))


async def test_pooled_actors_are_found_as_ever(world: World) -> None:
    found = await world.finder.resolve(ActorId("t", "session", "s_1"))
    assert found.role == "host" and world.asked == 0
