"""A model's actor in the real runtime: hosts, journal and reminders, with a small fleet that keeps to its plan.

Time passes as the stages sleep: each nap lets replicas come and go by the plan on the board, and customers be
answered by it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from actors.doorways import Doorways
from actors.residents import model as residence
from benchmarks.cluster import LOG, Cluster
from flotilla.core.errors import FlotillaError, Misconfigured, Unavailable
from flotilla.core.generation import Finished, Generated, Origin, Piece, Prompt, Usage
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Codec
from flotilla.core.members import Member
from flotilla.core.policy.canary import version_for
from flotilla.core.swap import Model
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    Pause,
    Promote,
    Resume,
    RollBack,
    Serve,
    Show,
    SwapWent,
)
from flotilla.core.swap_orders import Budgets, CanaryStep, Case, GateSet, Judge, SwapOrder
from flotilla.core.swap_views import ModelView
from flotilla.core.tallies import SHADOW, Tallies, Tally
from flotilla.core.versions import FLEET, Canary, Plan, Version
from flotilla.stores.memory import MemoryLetters
from flotilla.stores.memory_boards import MemoryPlanBoard, MemoryTallyBoard

AT = ActorId(FLEET, "model", "m")
CODEC = Codec(Model)
GATE = GateSet(
    name="g",
    cases=tuple(Case(id=f"c-{n}", question="Is it so?", expected=("yes",)) for n in range(6)),
    score_min=0.8,
)
BUDGETS = Budgets(replies_min=20)
STEPS = (
    CanaryStep(canary=Canary(percent=20), hold_s=2.0, replies_min=20),
    CanaryStep(canary=Canary(percent=50), hold_s=2.0),
)
FULL = SwapOrder(gate=GATE, shadow_replies=20, shadow_share=0.5, steps=STEPS, budgets=BUDGETS, keep_s=0.05)
SLOW = msgspec.structs.replace(
    FULL, shadow_replies=1000, steps=tuple(msgspec.structs.replace(step, hold_s=20.0) for step in STEPS)
)
"""Long enough to be met at each stage."""
KEPT = msgspec.structs.replace(FULL, keep_s=60.0)
SHORT = SwapOrder(steps=STEPS[:1], budgets=BUDGETS, keep_s=0.05)


class Nature(msgspec.Struct):
    """What a version is like."""

    errors: float = 0.0
    ms: float = 20.0
    right: float = 1.0
    up_after_s: float = 0.5
    failure: str = ""
    refuses: str = ""  # to be loaded in place, or as an adapter


class Doll(MemoryPlanBoard):
    """A board that can be out of reach, and remembers what hung there."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.hung: list[Plan] = []

    async def publish(self, plan: Plan) -> None:
        if self.down:
            raise Unavailable("The board is down.")
        self.hung.append(plan)
        await super().publish(plan)


class Pages(MemoryTallyBoard):
    down = False

    async def pages(self) -> dict[str, Tallies]:
        if self.down:
            raise Unavailable("The board is down.")
        return await super().pages()


class Land:
    """Replicas, customers and the time, for one model. Implements `Clock`, `Sight` and `Model`."""

    name = "land"

    def __init__(self) -> None:
        self.at = 0.0
        self.board, self.pages = Doll(), Pages(self)
        self.natures: dict[str, Nature] = {"m@1": Nature(), "m@2": Nature()}
        self.members: dict[str, Member] = {}
        self.wanted_since: dict[str, float] = {}
        self.tallies: Tallies = {}
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.stuck_at: str = ""  # a version with a reply that does not end
        self.silent = ""  # the question that is not answered for now
        self.customers = True
        self.random = Random(7)
        self.asked: Counter[str] = Counter()
        self.loaded: list[tuple[str, str]] = []
        self.broke_at: float | None = None
        self.turned_at: float | None = None
        self._number = 0

    # -- the clock

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        self._scale()
        if self.customers:
            for _ in range(max(1, round(seconds * 80))):
                self._customer()
        await self.pages.post("gateway", self.tallies)
        await asyncio.sleep(0.0005)

    # -- the controller

    def _plan(self) -> Plan | None:
        return self.board._plans.get("m")

    def _scale(self) -> None:
        plan = self._plan()
        if plan is None:
            return
        wanted = {placed.version.id: placed.least for placed in plan.placed}
        for id, least in wanted.items():
            since = self.wanted_since.setdefault(id, self.at)
            nature, there = self.natures[id], self.of(id)
            ready = self.at - since >= nature.up_after_s and not nature.failure
            if ready and len(there) < least and id not in plan.reloading:
                self.start(id)
        for member in list(self.members.values()):
            if member.info["version"] not in {*wanted, *plan.reloading}:
                self._end(member)
        self.wanted_since = {id: at for id, at in self.wanted_since.items() if id in wanted}

    def start(self, id: str) -> None:
        self._number += 1
        name = f"{id}.{self._number}"
        self.members[name] = Member(
            role="model", name=name, life=f"l-{self._number}", address="", info={"version": id}
        )

    def _end(self, member: Member) -> None:
        id = member.info["version"]
        tally = self.tallies.get(id)
        if tally is not None and tally.running and len(self.of(id)) == 1:
            self.failed.append(f"{id} was ended in the middle of a reply")
        del self.members[member.name]

    # -- the customers

    def _customer(self) -> None:
        plan = self._plan()
        if plan is None or plan.route is None:
            return
        origin = Origin(tenant="t1", conversation=f"s_{self.random.randrange(400)}")
        id = version_for(plan.route, plan.versions, origin)
        if plan.route.candidate == "" and self.broke_at is not None and self.turned_at is None:
            self.turned_at = self.at
        self._count(id, id)
        self.answered[id] += 1
        if plan.route.shadow and self.random.random() < plan.route.shadow:
            self._count(SHADOW + plan.route.candidate, plan.route.candidate)

    def _count(self, name: str, id: str) -> None:
        plan = self._plan()
        assert plan is not None
        tally, nature = self.tallies.setdefault(name, Tally()), self.natures[id]
        if not self.of(plan.versions[id].runs_on):
            self.failed.append(f"nobody serves {id} at {self.at}")
        if id == self.stuck_at:
            tally.running = 1
            self.stuck_at = ""
        if self.random.random() < nature.errors:
            tally.failed()
            if self.broke_at is None and tally.errors >= BUDGETS.errors_min:
                self.broke_at = self.at
            return
        tally.reply(nature.ms * self.random.uniform(0.8, 1.2), 10, 0.1)
        tally.score(float(self.random.random() < nature.right))

    # -- the replicas

    async def refresh(self) -> None:
        self._scale()

    def of(self, version_id: str) -> list[Member]:
        return [member for member in self.members.values() if member.info["version"] == version_id]

    def failure(self, version_id: str) -> str | None:
        return self.natures[version_id].failure or None

    async def reload(self, member: Member, version: Version, timeout_s: float) -> None:
        if refuses := self.natures[version.id].refuses:
            raise Misconfigured(refuses, field="source")
        self.loaded.append((member.name, version.id))
        self.members[member.name] = msgspec.structs.replace(member, info={"version": version.id})

    async def load_adapter(self, member: Member, version: Version) -> None:
        if refuses := self.natures[version.id].refuses:
            raise Misconfigured(refuses, field="adapter")
        self.loaded.append((member.name, version.id))

    # -- the model

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        assert prompt.pinned and prompt.origin.tenant == FLEET
        while self.silent == prompt.messages[-1].text:
            await asyncio.sleep(0.001)
        self.asked[prompt.model] += 1
        self.at += 0.001
        if prompt.messages[-1].text == "Is it so?":
            right = self.random.random() < self.natures[prompt.model].right
            yield Piece(text="Yes." if right else "No.")
        yield Finished(reason="stop", usage=Usage(completion_tokens=1), first_token_ms=1.0, total_ms=1.0)

    def version(self, name: str, **fields: Any) -> Version:
        self.natures.setdefault(f"m@{name}", Nature())
        return Version(model="m", name=name, engine="scripted", **fields)


class World:
    def __init__(self, judges: tuple[str, ...] = ()) -> None:
        self.land = Land()
        self.judges = judges
        self.cluster = Cluster(self._residents)

    def _residents(self, cluster: Cluster) -> list[Any]:
        doors = Doorways(
            knowledge=None,  # type: ignore[arg-type]
            model=self.land,  # type: ignore[arg-type]
            hot_log=None,  # type: ignore[arg-type]
            letters=MemoryLetters(),
            clock=self.land,
            log=LOG,
            board=self.land.board,
            tallies=self.land.pages,
            replicas=self.land,
            judges=self.judges,
        )
        return list(residence.residents(doors))

    async def tell(self, message: Any) -> ModelView:
        return await self.cluster.fleet.ask(AT, message, timeout_s=10.0)

    async def up(self, *names: str) -> World:
        """One host, and a model whose first version serves."""
        await self.cluster.add("h-1")
        for name in names or ("1", "2"):
            await self.tell(AddVersion(version=self.land.version(name), by="ann"))
        await self.tell(Serve(version="m@1"))
        for _ in range(8):
            await self.land.sleep(0.1)
        self.land.failed.clear()  # of the time before there was a replica
        return self

    async def begin(self, order: SwapOrder = FULL, to: str = "m@2", swap: str = "s-1") -> ModelView:
        return await self.tell(BeginSwap(swap=swap, to=to, order=order, by="ann"))

    async def until(self, is_so: Callable[[ModelView], bool], timeout_s: float = 20.0) -> ModelView:
        async with asyncio.timeout(timeout_s):
            while True:
                view = await self.tell(Show())
                if is_so(view):
                    return view
                await asyncio.sleep(0.002)

    async def at(self, stage: str, step: int = 0) -> ModelView:
        return await self.until(lambda v: v.swap is not None and (v.swap.stage, v.swap.step) == (stage, step))

    async def ended(self) -> ModelView:
        view = await self.until(lambda v: v.swap is None)
        for _ in range(3):
            await self.land.sleep(0.1)
        return view

    async def stages(self) -> list[tuple[str, int]]:
        facts = [CODEC.recorded(stored).fact for stored in await self.cluster.journal.read(AT)]
        return [(fact.stage, fact.step) for fact in facts if isinstance(fact, SwapWent)]

    def routed(self) -> set[str]:
        """Whoever was in a route, ever."""
        routes = [plan.route for plan in self.land.board.hung if plan.route]
        return {id for route in routes for id in (route.stable, route.candidate) if id}

    def serving(self) -> set[str]:
        return {member.info["version"] for member in self.land.members.values()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield await made.up()
    await made.cluster.aclose()


SILENT = {"warming": "Hello", "evaluating": "Is it so?"}
ALL = [
    ("loading", 0),
    ("warming", 0),
    ("evaluating", 0),
    ("shadowing", 0),
    ("canary", 0),
    ("canary", 1),
    ("promoted", 0),
    ("retiring", 0),
]


async def test_a_swap_from_end_to_end(world: World) -> None:
    await world.begin()
    view = await world.ended()
    assert await world.stages() == ALL
    (swap,) = view.swaps
    assert swap.end == "done" and all(verdict.passed for verdict in swap.verdicts.values())
    assert list(swap.verdicts)[:4] == ["evaluating", "shadowing", "canary 0", "canary 1"]
    canary = swap.verdicts["canary 0"]
    assert canary.candidate.replies >= 20 and canary.stable is not None
    assert canary.stable.replies > canary.candidate.replies, "only a fifth of the conversations"
    assert canary.candidate.first_token_p95 == pytest.approx(24.0, rel=0.15)
    assert view.scores["m@2"].quality == 1.0 and view.plan.route is not None
    assert view.plan.route.stable == "m@2" and world.serving() == {"m@2"}
    assert world.land.failed == [] and world.land.answered["m@2"] > 20
    revisions = [plan.revision for plan in world.land.board.hung]
    assert revisions == sorted(revisions)


async def test_followers_see_figures_between_the_facts(world: World) -> None:
    seen: list[dict[str, Any]] = []

    async def follow() -> None:
        async with aclosing(world.cluster.fleet.follow(AT, 0)) as frames:
            async for frame in frames:
                seen.append(json.loads(frame.json))
                if seen[-1]["type"] == "swap.ended":
                    return

    following = asyncio.create_task(follow())
    await world.begin()
    async with asyncio.timeout(20):
        await following
    durable = [event["seq"] for event in seen if event["type"] != "swap.figures"]
    assert durable == list(range(1, len(durable) + 1))
    figures = [event["data"] for event in seen if event["type"] == "swap.figures"]
    assert {data["stage"] for data in figures} >= {"shadowing", "canary"}
    last = [data for data in figures if data["stage"] == "canary" and data["step"] == 0][-1]
    assert last["candidate"]["version"] == "m@2" and last["stable"]["replies"] > 0


@pytest.mark.parametrize(
    ("nature", "reason"),
    [
        (Nature(errors=0.3), "errors"),
        (Nature(ms=90.0), "first token"),
        (Nature(right=0.3), "quality"),
    ],
)
async def test_a_worse_candidate_is_rolled_back_by_itself(world: World, nature: Nature, reason: str) -> None:
    world.land.natures["m@2"] = nature
    await world.begin(SHORT)
    view = await world.ended()
    (swap,) = view.swaps
    assert swap.end == "rolled_back" and swap.reason.startswith(reason)
    assert not swap.verdicts["canary 0"].passed
    assert view.plan.route is not None and view.plan.route.stable == "m@1" and not view.plan.route.candidate
    assert world.serving() == {"m@1"} and world.land.failed == []


async def test_the_way_back_is_taken_at_once(world: World) -> None:
    """By the clock of the stages: from the error that burns the budget to the plan without the candidate."""
    world.land.natures["m@2"] = Nature(errors=0.5)
    await world.begin(SHORT)
    await world.ended()
    assert world.land.broke_at is not None and world.land.turned_at is not None
    assert world.land.turned_at - world.land.broke_at <= 2.0


async def test_one_that_turns_bad_once_it_is_promoted_is_rolled_back_too(world: World) -> None:
    await world.begin(KEPT)
    await world.at("promoted")
    world.land.natures["m@2"].errors = 0.5
    view = await world.ended()
    assert view.swaps[0].end == "rolled_back" and world.serving() == {"m@1"} and world.land.failed == []


async def test_a_slow_one_is_found_out_behind_its_promotion_by_what_was_recorded(world: World) -> None:
    await world.begin(KEPT)
    await world.at("promoted")
    world.land.natures["m@2"].ms = 200.0
    view = await world.ended()
    assert view.swaps[0].end == "rolled_back" and "first token" in view.swaps[0].reason


async def test_a_paused_canary_is_still_watched(world: World) -> None:
    await world.begin(SLOW)
    await world.at("canary")
    view = await world.tell(Pause(by="ann"))
    assert view.swap is not None and view.swap.paused
    begun = world.land.at
    while world.land.at < begun + 20.0:
        await asyncio.sleep(0.005)
    view = await world.tell(Show())
    assert view.swap is not None and view.swap.stage == "canary", "it does not go on"
    world.land.natures["m@2"].errors = 0.5
    view = await world.ended()
    assert view.swaps[0].end == "rolled_back"


async def test_by_hand(world: World) -> None:
    await world.begin(msgspec.structs.replace(FULL, automatic=False))
    await world.until(lambda v: v.swap is not None and v.swap.waits)
    await world.tell(Resume(by="ann"))
    view = await world.until(lambda v: v.swap is not None and v.swap.waits)
    assert view.swap is not None and view.swap.step == 1
    view = await world.tell(Promote(by="ann"))
    assert view.plan.route is not None and view.plan.route.stable == "m@2"
    view = await world.ended()
    assert view.swaps[0].end == "done" and world.land.failed == []


@pytest.mark.parametrize(("stage", "step"), ALL[:7])
async def test_rolling_back_from_anywhere(world: World, stage: str, step: int) -> None:
    world.land.natures["m@2"].up_after_s = 3.0
    world.land.silent = SILENT.get(stage, "")
    await world.begin(msgspec.structs.replace(SLOW, keep_s=60.0))
    await world.at(stage, step)
    view = await world.tell(RollBack(by="ann"))
    world.land.silent = ""
    assert view.plan.route is not None and view.plan.route.stable == "m@1"
    view = await world.ended()
    assert view.swaps[0].end == "rolled_back" and world.serving() == {"m@1"}
    assert world.land.failed == []


async def test_a_version_is_kept_while_somebody_is_answered_by_it(world: World) -> None:
    world.land.stuck_at = "m@1"
    await world.begin(SHORT)
    await world.at("retiring")
    begun = world.land.at
    while world.land.at < begun + 30.0:
        await asyncio.sleep(0.005)
    assert world.serving() == {"m@1", "m@2"}
    world.land.tallies["m@1"].running = 0
    await world.ended()
    assert world.serving() == {"m@2"} and world.land.failed == []


# -- what goes wrong


async def test_a_candidate_that_does_not_come_up(world: World) -> None:
    world.land.natures["m@2"].failure = "Not enough memory."
    await world.begin()
    view = await world.ended()
    assert view.swaps[0].end == "failed" and "Not enough memory." in view.swaps[0].reason
    assert world.routed() == {"m@1"} and world.serving() == {"m@1"} and world.land.failed == []


async def test_a_candidate_that_takes_too_long(world: World) -> None:
    world.land.natures["m@2"].up_after_s = 1e6
    await world.begin(msgspec.structs.replace(FULL, load_max_s=5.0))
    view = await world.ended()
    assert view.swaps[0].end == "failed" and "0 of 1 replicas" in view.swaps[0].reason


async def test_a_gate_that_fails(world: World) -> None:
    world.land.natures["m@2"].right = 0.0
    await world.begin()
    view = await world.ended()
    assert view.swaps[0].end == "failed" and "mean score of 0.00" in view.swaps[0].reason
    assert world.routed() == {"m@1"} and world.serving() == {"m@1"}
    assert view.scores["m@1"].quality == 1.0 and view.scores["m@2"].quality == 0.0


async def test_the_stable_version_is_asked_once_for_a_gate_set(world: World) -> None:
    world.land.natures["m@2"].right = 0.0
    for n in range(3):
        await world.begin(swap=f"s-{n}")
        await world.ended()
    assert world.land.asked["m@1"] == len(GATE.cases)


def strict(case: Case, answer: str, arguments: Any) -> float:
    return float(answer == "Yes.")


async def test_judges_of_an_operators_own_are_of_modules_that_are_allowed() -> None:
    own = msgspec.structs.replace(
        FULL, gate=msgspec.structs.replace(GATE, judges=(Judge(name=f"{__name__}:strict"),))
    )
    for allowed, end in (((), "failed"), ((__name__,), "done")):
        world = await World(allowed).up()
        try:
            await world.begin(own)
            view = await world.ended()
            assert view.swaps[0].end == end
            assert end == "done" or "may not judge" in view.swaps[0].reason
        finally:
            await world.cluster.aclose()


async def test_nothing_is_promoted_while_the_board_is_out_of_reach(world: World) -> None:
    await world.begin(SLOW)
    await world.at("canary")
    world.land.pages.down = world.land.board.down = True
    begun = world.land.at
    while world.land.at < begun + 60.0:
        await asyncio.sleep(0.005)
    view = await world.tell(Show())
    assert view.swap is not None and (view.swap.stage, view.swap.step) == ("canary", 0)
    world.land.pages.down = world.land.board.down = False
    view = await world.ended()
    assert view.swaps[0].end == "done" and world.land.failed == []


async def test_a_plan_that_could_not_be_hung_up_is_hung_up_later(world: World) -> None:
    world.land.board.down = True
    view = await world.begin()
    assert view.swap is not None and "m@2" not in str(world.land.board.hung[-1].placed)
    begun = world.land.at
    while world.land.at < begun + 10.0:
        await asyncio.sleep(0.002)
    assert await world.stages() == [("loading", 0)]
    world.land.board.down = False
    assert (await world.ended()).swaps[0].end == "done"


# -- hosts that die


@pytest.mark.parametrize(("stage", "step"), ALL)
async def test_another_host_goes_on(world: World, stage: str, step: int) -> None:
    world.land.natures["m@2"].up_after_s = 2.0
    world.land.silent = SILENT.get(stage, "")
    await world.begin(SLOW)
    async with asyncio.timeout(20):
        while await world.stages() != ALL[: ALL.index((stage, step)) + 1]:
            await asyncio.sleep(0.001)
    await world.cluster.add("h-2")
    await world.cluster.kill("h-1")
    world.land.silent = ""
    view = await world.ended()
    assert await world.stages() == ALL, "no stage twice, none skipped"
    assert view.swaps[0].end == "done" and world.serving() == {"m@2"} and world.land.failed == []


# -- in place, and adapters

IN_PLACE = SwapOrder(in_place=True, keep_s=0.05)


async def test_in_place_the_replicas_are_reloaded_one_after_the_other(world: World) -> None:
    await world.tell(Serve(least=3, most=3))
    while len(world.land.of("m@1")) < 3:
        await world.land.sleep(0.1)
    names = set(world.land.members)
    world.land.customers = False  # who routes waits for the plan: see actors/serving
    await world.begin(IN_PLACE)
    view = await world.ended()
    assert view.swaps[0].end == "done" and world.serving() == {"m@2"}
    assert [name for name, _ in world.land.loaded] == sorted(names) and set(world.land.members) == names


async def test_in_place_weights_that_do_not_fit_leave_the_old_ones(world: World) -> None:
    world.land.natures["m@2"].refuses = "Other shapes."
    names = set(world.land.members)
    await world.begin(IN_PLACE)
    view = await world.ended()
    assert view.swaps[0].end == "failed" and "Other shapes." in view.swaps[0].reason
    assert world.serving() == {"m@1"} and set(world.land.members) == names and world.land.failed == []


async def test_in_place_is_undone_in_place(world: World) -> None:
    world.land.customers = False
    await world.begin(msgspec.structs.replace(IN_PLACE, keep_s=60.0))
    await world.at("promoted")
    await world.tell(RollBack(by="ann"))
    view = await world.ended()
    assert view.swaps[0].end == "rolled_back" and world.serving() == {"m@1"}
    assert [id for _, id in world.land.loaded] == ["m@2", "m@1"]


@pytest.mark.parametrize("refuses", ["", "It is for another base."])
async def test_an_adapter_is_loaded_on_a_replica_of_its_base(world: World, refuses: str) -> None:
    adapter = world.land.version("bank", base="m@1", adapter="/a")
    world.land.natures["m@bank"].refuses = refuses
    await world.tell(AddVersion(version=adapter))
    await world.begin(SHORT, to="m@bank")
    view = await world.ended()
    (swap,) = view.swaps
    assert swap.end == ("failed" if refuses else "done") and refuses in swap.reason
    assert world.serving() == {"m@1"} and world.land.failed == []
    assert view.plan.route is not None and view.plan.route.stable == ("m@1" if refuses else "m@bank")


async def test_refusals_come_back_with_their_reason(world: World) -> None:
    with pytest.raises(FlotillaError) as raised:
        await world.begin(to="m@1")
    assert raised.value.field == "to"


async def test_a_fleet_without_a_board_has_no_models() -> None:
    doors = Doorways(
        knowledge=None,  # type: ignore[arg-type]
        model=None,  # type: ignore[arg-type]
        hot_log=None,  # type: ignore[arg-type]
        letters=MemoryLetters(),
        clock=Land(),
        log=LOG,
    )
    assert list(residence.residents(doors)) == []
