"""The controller on real links: hosts started, emptied and ended; actors moved; a second one in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from actors import controller as controllers
from actors import frames, placement
from actors.controller import Controller, MoveFrame
from actors.link import Links, Listener
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.policy.scaling import Bounds
from tests.actors.membership import LOG, TOKEN, Board, Hands, listening, member

pytestmark = pytest.mark.timeout(10)
ACTOR = ActorId("t", "session", "s_1")


class Hosts:
    """Hosts as their scheduler and their callers see them: each holds actors and lets go of them."""

    def __init__(self, board: Board) -> None:
        self.board, self.left = board, dict[str, list[int]]()
        self.listeners: dict[str, Listener] = {}
        self.asked: list[tuple[str, str]] = []
        self.stopped: list[str] = []
        self.down = False

    async def names(self) -> list[str]:
        if self.down:
            raise Unavailable("The scheduler does not answer.")
        return sorted(self.listeners)

    async def start(self, name: str) -> None:
        if name not in self.listeners:
            self.listeners[name] = await listening(self.board, name, self._handler(name))

    async def stop(self, name: str) -> None:
        self.stopped.append(name)
        if listener := self.listeners.pop(name, None):
            await listener.aclose()

    def _handler(self, name: str):
        async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
            self.asked.append((name, method))
            match method:
                case "drain":
                    me = self.board.found["host", name]
                    await self.board.beat(msgspec.structs.replace(me, state="draining"))
                    left = self.left.get(name, [])
                    yield frames.encode(left.pop(0) if left else 0)
                case "release":
                    yield frames.encode(frames.decode_actor(body) == ACTOR)
                case _:
                    raise NotFound(method)

        return answer

    def times(self, name: str, method: str) -> int:
        return self.asked.count((name, method))


class World:
    def __init__(self) -> None:
        self.clock, self.board, self.links = Hands(), Board(), Links(TOKEN)
        self.hosts = Hosts(self.board)

    def controller(self, least: int = 2, most: int = 4) -> Controller:
        return Controller(
            directory=self.board,
            pins=self.board,
            processes=self.hosts,
            links=self.links,
            clock=self.clock,
            log=LOG,
            bounds=Bounds(least=least, most=most, activations_max=1000),
        )

    async def names(self) -> list[str]:
        return [m.name for m in await self.board.members("host")]

    async def load(self, busy: float) -> None:
        for found in await self.board.members("host"):
            await self.board.beat(msgspec.structs.replace(found, load={"busy": busy, "activations": 1.0}))

    async def look(self, *controllers: Controller, seconds: int = 1) -> None:
        """Each looks once a second, and goes on looking while a drain is under way."""
        for _ in range(seconds):
            for each in controllers:
                await each.look()
            while any(each._drains for each in controllers):
                for each in controllers:
                    await each.look()
                await asyncio.sleep(0)
            self.clock.at += 1.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.links.aclose()
    for listener in made.hosts.listeners.values():
        await listener.aclose()


async def test_it_brings_the_hosts_up_to_the_least(world: World) -> None:
    await world.look(world.controller())
    assert await world.names() == ["host-0", "host-1"]


async def test_it_adds_under_load_and_takes_away_without(world: World) -> None:
    here = world.controller()
    await world.look(here)
    await world.load(1.0)
    await world.look(here, seconds=60)
    assert len(await world.names()) >= 3
    while len(await world.names()) < 4:
        await world.load(1.0)
        await world.look(here)
    await world.load(0.0)
    await world.look(here, seconds=200)
    assert await world.names() == ["host-0", "host-1"]
    assert world.hosts.stopped == ["host-3", "host-2"]


async def test_a_host_is_ended_only_when_it_holds_nothing_and_all_have_heard(world: World) -> None:
    here, began = world.controller(), world.clock.at
    await world.hosts.start("host-0")
    await world.hosts.start("host-1")
    world.hosts.left["host-1"] = [500] * 40
    await here.drain("host-1")
    assert world.hosts.times("host-1", "drain") == 41
    assert world.clock.at - began >= controllers.DRAIN_SETTLES_S
    assert world.hosts.stopped == ["host-1"] and await world.names() == ["host-0"]


async def test_an_empty_host_still_waits_until_all_have_heard(world: World) -> None:
    began = world.clock.at
    await world.hosts.start("host-0")
    await world.controller().drain("host-0")
    assert world.clock.at - began >= controllers.DRAIN_SETTLES_S


async def test_a_host_that_never_lets_go_is_ended_when_its_time_is_up(world: World) -> None:
    await world.hosts.start("host-0")
    world.hosts.left["host-0"] = [1] * 10_000
    began = world.clock.at
    await world.controller().drain("host-0")
    assert controllers.DRAIN_DEADLINE_S <= world.clock.at - began < controllers.DRAIN_DEADLINE_S + 5
    assert world.hosts.stopped == ["host-0"]


async def test_pins_to_a_host_go_with_it(world: World) -> None:
    await world.hosts.start("host-0")
    world.board.pinned = {ACTOR: "host-0", ActorId("t", "session", "s_2"): "host-1"}
    await world.controller().drain("host-0")
    assert list(world.board.pinned.values()) == ["host-1"]


async def test_a_host_that_died_for_good_is_replaced_under_a_new_name(world: World) -> None:
    here = world.controller()
    await world.look(here)
    await world.hosts.stop("host-0")
    await world.board.leave((await world.board.members("host"))[0])
    await world.look(here)
    assert await world.names() == ["host-1", "host-2"]


async def test_one_that_sees_nothing_does_nothing(world: World) -> None:
    here = world.controller()
    await world.look(here)
    for blind in (lambda: world.board.down.add("members"), lambda: setattr(world.hosts, "down", True)):
        blind()
        with pytest.raises(Unavailable):
            await here.look()
        world.board.down.clear()
    assert not world.hosts.stopped and len(world.hosts.listeners) == 2


async def test_two_controllers_do_what_one_does(world: World) -> None:
    pair = world.controller(), world.controller()
    await world.look(*pair)
    assert await world.names() == ["host-0", "host-1"]
    await world.load(1.0)
    while len(await world.names()) < 3:
        await world.look(*pair)
    assert await world.names() == ["host-0", "host-1", "host-2"]
    await world.load(0.0)
    await world.look(*pair, seconds=200)
    assert await world.names() == ["host-0", "host-1"]
    assert set(world.hosts.stopped) == {"host-2"}


async def test_one_that_was_blind_while_the_other_drained_brings_it_to_rest_too(world: World) -> None:
    """It takes the host that left for one that died: it starts another, which leaves when it is idle."""
    one, other = world.controller(), world.controller()
    for name in ("host-0", "host-1", "host-2"):
        await world.hosts.start(name)
    await world.look(one, other)
    await one.drain("host-2")
    await world.look(one, other, seconds=5)
    assert await world.names() == ["host-0", "host-1", "host-3"]
    await world.look(one, other, seconds=200)
    assert await world.names() == ["host-0", "host-1"]


async def test_who_comes_after_goes_on_with_a_drain(world: World) -> None:
    await world.look(world.controller())
    await world.board.beat(msgspec.structs.replace((await world.board.members("host"))[1], state="draining"))
    await world.look(world.controller())
    assert world.hosts.stopped == ["host-1"] and await world.names() == ["host-0", "host-2"]


# -- moving


async def test_an_actor_is_moved_by_a_pin_and_a_release(world: World) -> None:
    here = world.controller()
    await world.look(here)
    members = await world.board.members("host")
    old = placement.owner(ACTOR, members)
    new = next(m for m in members if m != old)
    assert old is not None
    async with aclosing(here.answer("move", frames.encode(MoveFrame(ACTOR, new.name)))) as answer:
        assert [item async for item in answer] == [b""]
    assert placement.owner(ACTOR, members, await world.board.pins()) == new
    assert world.hosts.times(old.name, "release") == 2 and world.hosts.times(new.name, "release") == 0


async def test_an_actor_that_is_there_already_is_only_pinned(world: World) -> None:
    here = world.controller()
    await world.look(here)
    owner = placement.owner(ACTOR, await world.board.members("host"))
    assert owner is not None
    await here.move(ACTOR, owner.name)
    assert world.board.pinned == {ACTOR: owner.name} and world.hosts.times(owner.name, "release") == 0


async def test_it_moves_away_from_a_host_that_does_not_answer(world: World) -> None:
    await world.hosts.start("host-0")
    dead = next(n for n in range(1, 50) if _owner(n) == f"host-{n}")
    await world.board.beat(member(f"host-{dead}"))
    await world.controller().move(ACTOR, "host-0")
    assert world.board.pinned == {ACTOR: "host-0"}


def _owner(n: int) -> str:
    owner = placement.owner(ACTOR, [member("host-0"), member(f"host-{n}")])
    assert owner is not None
    return owner.name


@pytest.mark.parametrize("host", ["host-7", "host-1"])
async def test_a_host_that_is_not_up_is_refused_with_those_that_are(world: World, host: str) -> None:
    await world.hosts.start("host-0")
    await world.board.beat(member("host-1", state="draining"))
    with pytest.raises(NotFound, match="host-0") as refused:
        await world.controller().move(ACTOR, host)
    assert refused.value.field == "host" and not world.board.pinned
