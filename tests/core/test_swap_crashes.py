"""Swaps that lose their host at any moment, and whatever people do meanwhile."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.effects import Woken
from flotilla.core.errors import FlotillaError
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    DropVersion,
    Judged,
    Pause,
    Promote,
    Resume,
    RollBack,
    Serve,
    Show,
    SwapEnded,
    SwapTurned,
    SwapWent,
)
from flotilla.core.swap_orders import SwapOrder
from tests.swaps import FULL, STAGES, STEPS, World, check, stuck, verdict, version

ORDERS = {
    "full": FULL,
    "bare": SwapOrder(steps=(), keep_s=0.0),
    "in place": SwapOrder(in_place=True, keep_s=1.0),
}


def play(order: SwapOrder, deaths: set[int], turn: int | None = None) -> World:
    """A whole swap; it is rolled back in its stage number `turn`."""
    world = World()
    world.deaths = set(deaths)
    sent = [
        AddVersion(version=version("1")),
        AddVersion(version=version("2")),
        Serve(version="m@1"),
        BeginSwap(swap="s-1", to="m@2", order=order),
    ]
    for message in sent:
        for _ in range(len(deaths) + 2):  # never answered, perhaps: it is sent again
            world.feed(message)
    for _ in range(100):
        if len(world.stages()) == turn and world.model.swap is not None:
            world.feed(RollBack(reason="no"))
            if world.model.swap is not None:
                world.feed(RollBack(reason="no"))
        check(world)
        if not world.step():
            break
    return world


def check_record(world: World) -> None:
    """No stage twice or skipped, one end, and never two stable versions."""
    check(world)
    revisions = [plan.revision for plan in world.published]
    assert revisions == sorted(revisions)
    assert len(world.ends()) == 1
    assert all(plan.route is None or plan.route.stable in ("m@1", "m@2") for plan in world.published)
    stable = [plan.route.stable for plan in world.published if plan.route]
    moves = [(a, b) for a, b in pairwise(stable) if a != b]
    assert moves in ([], [("m@1", "m@2")], [("m@1", "m@2"), ("m@2", "m@1")])


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_swap_ends_the_same_wherever_its_host_dies(order: SwapOrder) -> None:
    whole = play(order, set())
    assert whole.ends() == ["done"]
    for death in range(len(whole.performed) + 1):
        world = play(order, {death})
        check_record(world)
        assert world.facts == whole.facts
        assert world.placed() == {"m@2"} and world.route == whole.route


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_swap_is_undone_wherever_its_host_dies(order: SwapOrder) -> None:
    for turn in range(1, 9):
        whole = play(order, set(), turn)
        for death in range(len(whole.performed) + 1):
            world = play(order, {death}, turn)
            check_record(world)
            assert world.ends() == whole.ends()
            assert world.placed() == whole.placed() and world.route == whole.route


@settings(max_examples=80)
@given(st.sets(st.integers(0, 60), max_size=20))
def test_a_swap_ends_the_same_however_often_its_hosts_die(deaths: set[int]) -> None:
    world = play(FULL, deaths)
    check_record(world)
    assert world.ends() == ["done"] and world.stages() == STAGES


def test_waking_publishes_the_plan_and_begins_the_stage_again_under_its_name() -> None:
    world = World().known().begin().until("canary")
    before = world.running
    published = len(world.published)
    world.crash()
    assert world.running == before, "so that what it reports is known by the same name"
    assert len(world.published) == published + 1 and world.published[-1] == world.published[-2]


def test_waking_a_model_that_is_at_rest_hangs_its_plan_up_again() -> None:
    assert World().feed(Woken()) == ()
    world = World().known()
    world.board = None
    world.crash()
    assert world.board is not None and world.running is None


def test_a_snapshot_goes_on_where_the_record_does() -> None:
    from flotilla.core.ledger import Codec
    from flotilla.core.swap import Model
    from tests.swaps import ME

    world = World().known().begin().until("canary", 1)
    codec = Codec(Model)
    woken = codec.wake(ME, codec.snapshot(world.model), [])
    assert woken == world.model and woken.work() == world.running  # type: ignore[attr-defined]


# -- whatever people do

MESSAGES = [
    Pause(),
    Resume(),
    Promote(),
    RollBack(),
    Show(),
    Show(hang=True),
    DropVersion(version="m@1"),
    DropVersion(version="m@3"),
    Serve(least=2, most=3),
    Serve(least=1),
    AddVersion(version=version("3")),
    BeginSwap(swap="s-2", to="m@3", order=ORDERS["bare"]),
    BeginSwap(swap="s-3", to="m@1", order=msgspec.structs.replace(FULL, automatic=False)),
    BeginSwap(swap="s-4", to="m@2", order=ORDERS["in place"]),
]
MOVES = st.one_of(
    st.sampled_from(["step", "step", "step", "burn", "stick", "die", "late"]), st.sampled_from(MESSAGES)
)


def move(world: World, what: object) -> None:
    running = world.running
    if what == "step":
        world.step()
    elif what == "die":
        world.crash()
    elif what == "stick" and running is not None:
        world.report(stuck(running))
    elif (
        what == "burn"
        and running is not None
        and running.stage in ("evaluating", "shadowing", "canary", "promoted")
    ):
        world.report(Judged(key=running.key, verdict=verdict("it burns")))
    elif what == "late" and world.stale:
        last = world.stale[-1]
        if running is None or running.key != last.key:
            assert world.feed(last) == ()
    elif not isinstance(what, str):
        try:
            world.feed(what)
        except FlotillaError:
            assert world.model == world.folded(), "who is refused has changed nothing"


@settings(max_examples=400)
@given(st.lists(MOVES, max_size=60), st.sets(st.integers(0, 200), max_size=6))
def test_whatever_happens_customers_have_a_version(moves: list[object], deaths: set[int]) -> None:
    world = World().known().begin()
    world.deaths = deaths
    for what in moves:
        stable, facts = world.model.stable, len(world.facts)
        move(world, what)
        check(world)
        if world.model.stable != stable:
            went = world.facts[facts:]
            promoted = any(isinstance(f, SwapWent) and f.stage == "promoted" for f in went)
            turned = any(isinstance(f, SwapTurned) for f in went)
            assert promoted or turned, "only a promotion, or the way back from it, changes who answers"
    for _ in range(200):  # and whatever it was, it comes to an end
        if world.model.swap is None:
            break
        if world.model.swap.paused or world.model.swap.waits:
            world.feed(Resume()) if not world.reminders else world.step()
        else:
            world.step()
        check(world)
    assert world.model.swap is None and world.running is None and not world.reminders
    assert world.placed() == {world.route.stable} and not world.route.candidate
    begun = [fact for fact in world.facts if fact.__struct_config__.tag == "swap.begun"]
    assert len(begun) == len([fact for fact in world.facts if isinstance(fact, SwapEnded)])


def test_the_steps_of_the_canary_are_never_skipped_backwards() -> None:
    world = World().known().begin().finish()
    percents = [plan.route.canary.percent for plan in world.published if plan.route and plan.route.candidate]
    assert percents == sorted(percents) and percents[-2:] == [step.canary.percent for step in STEPS]
