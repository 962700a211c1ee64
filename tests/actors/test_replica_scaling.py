"""How many replicas, and which: the judgement by itself, and the class that follows it, on memory boards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import msgspec
import pytest

from actors import frames
from actors.link import Links, Listener
from actors.serving.manning import WAKE_EVERY_S, Manning
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.members import Member, MemberState
from flotilla.core.policy import crew, replicas
from flotilla.core.policy.crew import History, Sight
from flotilla.core.policy.replicas import Decision, Targets, plan
from flotilla.core.versions import Placed, Plan, Plans, Route, Version
from flotilla.stores.memory_boards import MemoryFailureBoard, MemoryPlanBoard
from tests.actors.membership import LOG, TOKEN, Board, Hands, listening

pytestmark = pytest.mark.timeout(10)


def version(name: str, note: str = "") -> Version:
    return Version(model="m", name=name, engine="scripted", note=note)


def plan_of(*placed: tuple[str, int, int], stable: str = "", revision: int = 1, reloading: str = "") -> Plan:
    """Each is the name of a version, the least and the most."""
    named = [Placed(version=version(name), least=least, most=most) for name, least, most in placed]
    return Plan(
        model="m",
        revision=revision,
        route=Route(stable=stable) if stable else None,
        versions={each.version.id: each.version for each in named},
        placed=tuple(named),
        reloading=tuple(reloading.split()),
    )


def beating(
    name: str, *, serves: str = "", state: MemberState = "up", life: str = "l", **load: float
) -> Member:
    info = {"version": serves or name.rpartition(".")[0]}
    return Member(role="model", name=name, life=life, address="x:1", state=state, info=info, load=load)


class Watch:
    """A controller's eyes: looks once a second at replicas that the test sets up."""

    def __init__(self, *members: Member, plans: Plan | None = None) -> None:
        self.members = {member.name: member for member in members}
        self.running = set(self.members)
        self.failed: dict[str, str] = {}
        self.plans: Plans = {"m": plans or plan_of(("1", 1, 3))}
        self.history, self.now = History(), 1000.0

    def look(self) -> Decision:
        self.now += 1.0
        sight = Sight(
            plans=self.plans,
            members=list(self.members.values()),
            running=self.running,
            failed=self.failed,
            now=self.now,
        )
        decided = plan(sight, self.history, Targets(queued_tokens=100, first_token_ms=500))
        self.history = decided.history
        return decided

    def until(self, seconds: float) -> Decision | None:
        """The first decision that asks for something, in so many seconds."""
        for _ in range(int(seconds)):
            decided = self.look()
            if decided.start or decided.drain or decided.stop:
                return decided
        return None

    def load(self, **load: float) -> None:
        for name, member in self.members.items():
            self.members[name] = msgspec.structs.replace(member, load=load)

    def set(self, name: str, **changes: object) -> None:
        self.members[name] = msgspec.structs.replace(self.members[name], **changes)

    def come_up(self, *names: str) -> None:
        self.running.update(names)
        self.members |= {name: beating(name) for name in names}

    def end(self, *names: str) -> None:
        for name in names:
            self.running.discard(name)
            self.members.pop(name, None)


def started(decided: Decision | None) -> list[str]:
    return [name for name, _ in decided.start] if decided else []


# -- what a plan asks for


def test_the_least_is_started_at_once_under_names_that_count_upwards() -> None:
    watch = Watch(plans=plan_of(("1", 2, 3), ("2", 1, 1)))
    assert started(watch.look()) == ["m@1.1", "m@1.2", "m@2.1"]


def test_what_is_being_started_is_waited_for() -> None:
    watch = Watch()
    watch.look()
    watch.running.add("m@1.1")
    assert watch.until(replicas.UP_AFTER_S - 5) is None
    watch.come_up("m@1.1")
    assert watch.until(600) is None


def test_without_any_plan_nothing_is_started_and_nothing_ended() -> None:
    watch = Watch(beating("m@1.1"), beating("m@2.1", state="draining"))
    watch.plans = {}
    assert watch.until(600) is None


def test_replicas_of_a_model_without_a_plan_and_processes_of_another_kind_are_left_alone() -> None:
    watch = Watch(beating("m@1.1"), beating("other@1.1"), beating("model-0"), beating("m@1.x"))
    assert watch.until(600) is None


def test_a_name_is_not_used_again_while_its_version_is_known() -> None:
    watch = Watch(beating("m@1.1"), beating("m@1.7"), plans=plan_of(("1", 2, 2)))
    watch.look()
    watch.end("m@1.7")
    assert started(watch.look()) == ["m@1.8"]
    watch.end("m@1.1")
    assert started(watch.look()) == ["m@1.9", "m@1.10"], "it has not seen 8 come"


def test_more_than_the_most_are_drained_at_once_those_that_do_not_serve_yet_first() -> None:
    watch = Watch(*(beating(f"m@1.{n}") for n in (1, 2, 10)), plans=plan_of(("1", 1, 3)))
    watch.look()
    watch.running.add("m@1.11")
    watch.plans = {"m": plan_of(("1", 1, 2))}
    decided = watch.look()
    assert decided.stop == ("m@1.11",) and decided.drain == ("m@1.10",)
    assert not decided.start


# -- load


def test_a_long_queue_gets_more_replicas_after_a_while_and_never_more_than_the_most() -> None:
    watch = Watch(beating("m@1.1"))
    assert watch.until(60) is None
    watch.load(queued_tokens=1000.0)
    assert watch.until(replicas.HIGH_FOR_S) is None
    assert started(watch.look()) == ["m@1.2"], "at most as many as there are"
    watch.come_up("m@1.2")
    watch.load(queued_tokens=1000.0)
    assert watch.until(replicas.COOL_DOWN_S) is None
    assert started(watch.look()) == ["m@1.3"]
    watch.come_up("m@1.3")
    watch.load(queued_tokens=1000.0)
    assert watch.until(300) is None


def test_slow_first_tokens_count_only_where_replies_are_in_each_others_way() -> None:
    watch = Watch(beating("m@1.1"))
    watch.load(first_token_ms=900.0, running=1.0)
    assert watch.until(300) is None
    watch.load(first_token_ms=900.0, running=2.0)
    assert started(watch.until(60)) == ["m@1.2"]


def test_a_short_rush_starts_nothing() -> None:
    watch = Watch(beating("m@1.1"))
    watch.until(60)
    for _ in range(10):
        watch.load(queued_tokens=1000.0)
        assert watch.until(replicas.HIGH_FOR_S - 1) is None
        watch.load(running=1.0)
        assert watch.until(2) is None


def test_idle_replicas_lose_their_youngest_after_a_while_and_the_last_one_stays() -> None:
    watch = Watch(*(beating(f"m@1.{n}") for n in (1, 2, 3)), plans=plan_of(("1", 0, 3)))
    watch.load(running=2.0)
    assert watch.until(300) is None, "two replies each are work for all"
    watch.load(running=0.5)
    assert watch.until(replicas.LOW_FOR_S) is None
    for name in ("m@1.3", "m@1.2"):
        decided = watch.until(200)
        assert decided and decided.drain == (name,)
        watch.end(name)
    watch.load(running=0.0)
    assert watch.until(600) is None


# -- dying


def test_one_that_dies_is_waited_for_and_one_that_is_gone_is_replaced() -> None:
    watch = Watch(beating("m@1.1"), beating("m@1.2"), plans=plan_of(("1", 1, 3)))
    watch.look()
    watch.members.pop("m@1.2")
    assert watch.until(300) is None
    watch.come_up("m@1.2")
    watch.look()
    watch.end("m@1.2")
    assert started(watch.look()) == ["m@1.3"], "there were two, though one is enough"


def test_one_that_says_why_it_cannot_start_is_ended_and_tried_again_less_and_less_often() -> None:
    watch, tried = Watch(plans=plan_of(("1", 2, 2))), []
    assert started(watch.look()) == ["m@1.1", "m@1.2"]
    watch.running |= {"m@1.1", "m@1.2"}
    watch.failed = {"m@1.1": "no weights", "m@1.2": "no weights"}
    decided = watch.look()
    assert decided.stop == ("m@1.1", "m@1.2") and decided.gave_up == {"m@1": "no weights"}
    decided = watch.look()
    assert decided.stop == ("m@1.1", "m@1.2") and not decided.gave_up, "one that is slow to end fails once"
    watch.end("m@1.1", "m@1.2")
    for _ in range(2000):
        if names := started(watch.look()):
            tried.append(watch.now)
            watch.failed = dict.fromkeys(names, "no weights")
            watch.running = set(names)
            assert watch.look().gave_up == {"m@1": "no weights"}
            watch.end(*names)
    pauses = [round(b - a) for a, b in pairwise(tried)]
    assert pauses == [61, 121, 241, 481, 601]


def test_after_a_failure_one_is_tried_and_the_others_follow_once_it_is_up() -> None:
    watch = Watch(plans=plan_of(("1", 2, 2)))
    watch.look()
    watch.running, watch.failed = {"m@1.1", "m@1.2"}, {"m@1.1": "no weights", "m@1.2": "no weights"}
    watch.look()
    watch.end("m@1.1", "m@1.2")
    decided = watch.until(60)
    assert started(decided) == ["m@1.3"]
    watch.running.add("m@1.3")
    assert watch.until(60) is None
    watch.come_up("m@1.3")
    decided = watch.look()
    assert decided.recovered == ("m@1",) and started(decided) == ["m@1.4"]


def test_one_that_is_never_up_is_given_up_and_beyond_the_least_not_wanted_any_more() -> None:
    watch = Watch(beating("m@1.1"))
    watch.look()
    watch.running.add("m@1.2")
    decided = watch.until(replicas.UP_AFTER_S + 5)
    assert decided and decided.stop == ("m@1.2",) and "not up after 900 s" in decided.gave_up["m@1"]
    watch.end("m@1.2")
    assert watch.until(600) is None


def test_one_that_dies_again_and_again_is_given_up() -> None:
    watch = Watch(beating("m@1.1"))
    for life in range(replicas.DEATHS_MAX):
        assert watch.until(60) is None
        watch.set("m@1.1", life=f"l-{life}")
    decided = watch.look()
    assert decided.stop == ("m@1.1",) and "died 5 times" in decided.gave_up["m@1"]


def test_deaths_that_are_long_ago_are_forgiven() -> None:
    watch = Watch(beating("m@1.1"))
    for life in range(20):
        assert watch.until(crew.DEATHS_WITHIN_S / 4) is None
        watch.set("m@1.1", life=f"l-{life}")


# -- leaving


def test_replicas_of_a_version_that_is_placed_no_longer_are_drained_and_ended_when_idle() -> None:
    watch = Watch(beating("m@1.1", running=3.0), beating("m@2.1"), plans=plan_of(("2", 1, 1)))
    assert watch.look().drain == ("m@1.1",)
    watch.set("m@1.1", state="draining")
    for _ in range(60):
        decided = watch.look()
        assert decided.drain == ("m@1.1",) and not decided.stop
    watch.set("m@1.1", load={"running": 0.0})
    assert watch.look().stop == ("m@1.1",)


def test_an_idle_one_is_ended_only_when_all_have_heard() -> None:
    watch = Watch(beating("m@1.1"), beating("m@2.1"), plans=plan_of(("2", 1, 1)))
    began = watch.now
    watch.look()
    watch.set("m@1.1", state="draining")
    while not watch.look().stop:
        pass
    assert watch.now - began >= replicas.DRAIN_SETTLES_S


def test_a_drain_ends_when_its_time_is_up_though_the_replica_never_hears_of_it() -> None:
    watch = Watch(beating("m@1.1", running=1.0), beating("m@2.1"), plans=plan_of(("2", 1, 1)))
    while not (decided := watch.look()).stop:
        assert watch.now < 1000 + replicas.DRAIN_MAX_S + 5
    assert decided.stop == ("m@1.1",) and watch.now > 1000 + replicas.DRAIN_MAX_S


def test_one_that_is_started_again_in_the_middle_of_a_drain_still_leaves() -> None:
    watch = Watch(beating("m@1.1", running=1.0), beating("m@2.1"), plans=plan_of(("2", 1, 1)))
    watch.look()
    watch.plans = {"m": plan_of(("1", 0, 1), ("2", 1, 1), revision=2)}
    watch.set("m@1.1", life="l-2")
    assert watch.look().drain == ("m@1.1",)


def test_one_that_a_person_drains_is_replaced() -> None:
    watch = Watch(beating("m@1.1"))
    watch.look()
    watch.set("m@1.1", state="draining", load={"running": 1.0})
    decided = watch.look()
    assert started(decided) == ["m@1.2"] and decided.drain == ("m@1.1",)


def test_an_unwanted_one_that_does_not_beat_is_ended_after_a_moment() -> None:
    watch = Watch(beating("m@2.1"), plans=plan_of(("2", 1, 1)))
    watch.running.add("m@1.1")
    assert watch.until(replicas.LEFT_AFTER_S) is None
    assert watch.look().stop == ("m@1.1",)


def test_nobody_is_ended_whom_somebody_is_answered_by() -> None:
    """A plan whose route still names what it does not place any more."""
    watch = Watch(beating("m@1.1"), beating("m@2.1"), plans=plan_of(("2", 1, 1), stable="m@1"))
    assert watch.until(600) is None


# -- in place


def test_a_version_that_is_being_reloaded_is_neither_started_nor_ended() -> None:
    watch = Watch(beating("m@1.1"), beating("m@1.2"), plans=plan_of(("1", 2, 2), stable="m@1"))
    watch.look()
    watch.plans = {"m": plan_of(("1", 2, 2), stable="m@1", reloading="m@1 m@2")}
    assert watch.until(60) is None
    watch.set("m@1.1", info={"version": "m@2"})
    assert watch.until(60) is None
    watch.set("m@1.2", info={"version": "m@2"}, load={"reloading": 1.0})
    assert watch.until(60) is None
    watch.plans = {"m": plan_of(("2", 2, 2), stable="m@2")}
    watch.set("m@1.2", load={})
    assert watch.until(600) is None, "they count for what they serve"
    watch.end("m@1.1")
    assert started(watch.look()) == ["m@2.1"]


def test_where_nobody_is_left_to_be_reloaded_others_are_started() -> None:
    watch = Watch(beating("m@1.1"), plans=plan_of(("1", 1, 1), stable="m@1", reloading="m@1 m@2"))
    assert watch.until(60) is None
    watch.set("m@1.1", state="draining")
    assert started(watch.look()) == ["m@1.2"]


def test_a_beat_from_before_the_reload_does_not_end_anybody() -> None:
    watch = Watch(beating("m@1.1"), plans=plan_of(("1", 1, 1), stable="m@1", reloading="m@1 m@2"))
    watch.look()
    watch.plans = {"m": plan_of(("2", 1, 1), stable="m@2")}
    assert watch.until(2) is None
    watch.set("m@1.1", info={"version": "m@2"})
    assert watch.until(600) is None


def test_one_that_fell_back_to_what_it_was_started_with_is_replaced() -> None:
    watch = Watch(beating("m@1.1", serves="m@2"), plans=plan_of(("2", 1, 1), stable="m@2"))
    assert watch.until(60) is None
    watch.set("m@1.1", info={"version": "m@1"}, life="l-2")
    decided = watch.look()
    assert decided.drain == ("m@1.1",) and started(decided) == ["m@2.1"]


# -- two of them


def test_two_controllers_do_what_one_does() -> None:
    first, second = Watch(plans=plan_of(("1", 2, 3))), Watch(plans=plan_of(("1", 2, 3)))
    second.running, second.members = first.running, first.members
    assert started(first.look()) == started(second.look()) == ["m@1.1", "m@1.2"]
    first.come_up("m@1.1", "m@1.2")
    for load in (1000.0, 0.0):
        for _ in range(400):
            first.load(queued_tokens=load)
            for watch in (first, second):
                decided = watch.look()
                first.come_up(*(set(started(decided)) - first.running))
                for name in set(decided.drain) & first.running:
                    first.set(name, state="draining")
                first.end(*decided.stop)
                second.members = first.members
        assert first.running == ({"m@1.1", "m@1.2", "m@1.3"} if load else {"m@1.1", "m@1.2"})


# -- the class that follows it


class Crew:
    """Replicas as their scheduler and their callers see them."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.listeners: dict[str, Listener] = {}
        self.broken: dict[str, str] = {}
        self.started: list[str] = []
        self.told: list[str] = []
        self.left: dict[str, int] = {}

    async def names(self) -> list[str]:
        return sorted({*self.listeners, *self.broken})

    async def start(self, name: str, placed: Placed) -> None:
        self.started.append(name)
        if placed.version.note == "broken":
            self.broken[name] = "There are no weights."
            return
        self.listeners[name] = await listening(
            self.board, name, self._handler(name), role="model", info={"version": placed.version.id}
        )

    async def stop(self, name: str) -> None:
        self.broken.pop(name, None)
        if listener := self.listeners.pop(name, None):
            await listener.aclose()

    async def failure(self, name: str) -> str | None:
        return self.broken.get(name)

    def _handler(self, name: str) -> Callable[..., object]:
        async def answer(method: str, body: bytes):
            if method != "drain":
                raise NotFound(method)
            self.told.append(name)
            there = self.board.found["model", name]
            left = self.left.get(name, 0)
            load = {"running": float(left)}
            await self.board.beat(msgspec.structs.replace(there, state="draining", load=load))
            yield frames.encode(left)

        return answer


class World:
    def __init__(self) -> None:
        self.clock, self.board, self.links = Hands(), Board(), Links(TOKEN)
        self.crew, self.plans = Crew(self.board), MemoryPlanBoard()
        self.failures = MemoryFailureBoard(self.clock)
        self.woken: list[str] = []
        self.known: list[str] = []
        self.manning = Manning(
            directory=self.board,
            board=self.plans,
            failures=self.failures,
            processes=self.crew,
            links=self.links,
            clock=self.clock,
            log=LOG,
            models=self._models,
            wake=self._wake,
        )

    async def _models(self) -> list[str]:
        return self.known

    async def _wake(self, model: str) -> None:
        self.woken.append(model)
        if model == "sick":
            raise Unavailable("It does not wake.")

    async def look(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            await self.manning.look()
            self.clock.at += 1.0

    async def names(self) -> list[str]:
        return [member.name for member in await self.board.members("model")]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.links.aclose()
    for listener in made.crew.listeners.values():
        await listener.aclose()


async def test_replicas_follow_the_plan_up_and_down(world: World) -> None:
    await world.plans.publish(plan_of(("1", 1, 1)))
    await world.look()
    assert await world.names() == ["m@1.1"]
    await world.plans.publish(plan_of(("1", 2, 2), revision=2))
    await world.look()
    assert await world.names() == ["m@1.1", "m@1.2"]
    await world.plans.publish(plan_of(revision=3))
    await world.look(10)
    assert await world.names() == [] and await world.crew.names() == []
    assert set(world.crew.told) == {"m@1.1", "m@1.2"}
    assert world.crew.started == ["m@1.1", "m@1.2"]


async def test_a_replica_finishes_what_it_is_making_before_it_is_ended(world: World) -> None:
    await world.plans.publish(plan_of(("1", 1, 1)))
    await world.look()
    world.crew.left["m@1.1"] = 2
    await world.plans.publish(plan_of(revision=2))
    await world.look(60)
    assert await world.names() == ["m@1.1"]
    world.crew.left["m@1.1"] = 0
    await world.look(2)
    assert await world.names() == []


async def test_a_version_that_cannot_start_ends_as_a_failure_with_its_reason(world: World) -> None:
    broken = plan_of(("1", 1, 1))
    bad = msgspec.structs.replace(broken.placed[0], version=version("1", note="broken"))
    await world.plans.publish(msgspec.structs.replace(broken, placed=(bad,)))
    await world.look(10)
    assert await world.failures.failures() == {"m@1": "There are no weights."}
    assert world.crew.started == ["m@1.1"] and await world.crew.names() == []
    await world.plans.publish(msgspec.structs.replace(broken, revision=2))  # mended
    await world.look(40)
    assert await world.names() == ["m@1.2"] and await world.failures.failures() == {}


async def test_it_is_blind_without_the_directory_and_changes_nothing(world: World) -> None:
    await world.plans.publish(plan_of(("1", 1, 1)))
    await world.look()
    world.board.down.add("members")
    await world.plans.publish(plan_of(revision=2))
    with pytest.raises(Unavailable):
        await world.look()
    assert await world.crew.names() == ["m@1.1"]


async def test_when_plans_were_lost_the_models_of_the_record_are_woken_and_replicas_live_on(
    world: World,
) -> None:
    await world.plans.publish(plan_of(("1", 1, 1)))
    world.known = ["sick", "m", "n"]
    await world.look()
    await world.plans.remove("m")
    world.woken.clear()
    await world.look(60)
    assert world.woken[:3] == ["sick", "m", "n"] and await world.names() == ["m@1.1"]
    assert len(world.woken) <= 3 * (60 / WAKE_EVERY_S + 1)


async def test_the_models_of_the_record_are_woken_now_and_then_as_a_plan_may_be_an_older_one(
    world: World,
) -> None:
    await world.plans.publish(plan_of(("1", 1, 1)))
    world.known = ["m", "n"]
    await world.look(121)
    assert world.woken == ["m", "n"] * 3
