"""A model's registry and its swaps: every stage, every way back, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from flotilla.core.effects import Answer, Due, Record
from flotilla.core.errors import Conflict, FlotillaError, LimitReached, NotFound, Refused, TooLarge
from flotilla.core.swap import Model
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    Do,
    DropVersion,
    Judged,
    Pause,
    Promote,
    Publish,
    Resume,
    RollBack,
    Serve,
    Show,
    SwapTurned,
    VersionDropped,
)
from flotilla.core.swap_orders import CanaryStep, GateSet, Judge, SwapOrder
from flotilla.core.versions import Canary, Version
from tests.swaps import FULL, GATE, ME, STAGES, STEPS, World, check, stuck, verdict, version, well

ANYWHERE = STAGES[:]
MANUAL = msgspec.structs.replace(FULL, automatic=False)
IN_PLACE = SwapOrder(in_place=True, keep_s=60.0)


def refused(world: World, message: object, error: type[FlotillaError]) -> FlotillaError:
    """Nothing has changed, and the error says what to do."""
    before = CODEC_OF(world)
    with pytest.raises(error) as raised:
        world.model.on(message)
    assert CODEC_OF(world) == before
    return raised.value


def CODEC_OF(world: World) -> bytes:
    return msgspec.json.encode(world.model)


# -- the registry


def test_versions_are_added_once_and_never_change() -> None:
    world = World().known()
    seq = world.model.seq
    world.feed(AddVersion(version=version("2"), by="somebody else"))
    assert world.model.seq == seq and world.view.added_by == {"m@1": "ann", "m@2": "ann"}
    refused(world, AddVersion(version=version("2", note="other")), Conflict)
    assert set(world.view.versions) == {"m@1", "m@2"}
    check(world)


@pytest.mark.parametrize(
    ("added", "error", "field"),
    [
        (Version(model="other", name="1", engine="scripted"), Refused, "model"),
        (version("a/b"), Refused, "name"),
        (Version(model="m", name="1x", engine="vllm"), Refused, "source"),
        (version("b", base="m@1"), Refused, "base"),
        (version("b", base="m@9", adapter="/a"), NotFound, "base"),
        (version("b", base="nowhere", adapter="/a"), Refused, "base"),
        (version("b", base="other@1@2", adapter="/a"), Refused, "base"),
        (version("b", base="m@lora", adapter="/a"), Refused, "base"),
        (version("b", settings={"x": "y" * 20_000}), TooLarge, "settings"),
    ],
)
def test_versions_that_do_not_fit_are_refused(added: Version, error: type[FlotillaError], field: str) -> None:
    world = World().known()
    world.feed(AddVersion(version=version("lora", base="m@1", adapter="/a")))
    assert refused(world, AddVersion(version=added), error).field == field


def test_an_adapter_of_another_models_base_is_taken_on_trust() -> None:
    world = World().known()
    world.feed(AddVersion(version=version("far", base="other@1", adapter="/a")))
    assert "m@far" in world.model.plan().versions and world.placed() == {"m@1"}


def test_a_registry_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flotilla.core.swap_checks.VERSIONS_MAX", 2)
    refused(World().known(), AddVersion(version=version("3")), LimitReached)


def test_a_model_of_which_nothing_is_known() -> None:
    world = World()
    for message in (Show(), Serve(version="m@1"), BeginSwap(swap="s", to="m@1"), Promote()):
        refused(world, message, NotFound)


def test_serving_sets_the_first_version_and_the_number_of_replicas() -> None:
    world = World()
    world.feed(AddVersion(version=version("1")))
    assert world.board is None and world.model.plan().route is None, "there is nothing to hang up"
    world.feed(Serve(version="m@1", least=2, most=4, gpus=0.5, fallbacks=("other",)))
    (placed,) = world.board.placed
    assert (placed.version.id, placed.least, placed.most, placed.gpus) == ("m@1", 2, 4, 0.5)
    assert world.route.stable == "m@1" and world.route.fallbacks == ("other",)
    world.feed(AddVersion(version=version("2")))
    seq = world.model.seq
    world.feed(Serve(version="m@2"))
    assert world.model.seq == seq and world.route.stable == "m@1", "only a swap changes who answers"
    world.feed(Serve(most=9))
    assert world.board.placed[0].most == 9 and world.board.placed[0].least == 2
    check(world)


@pytest.mark.parametrize(
    ("serve", "error", "field"),
    [
        (Serve(version="m@7"), NotFound, "version"),
        (Serve(least=5, most=2), Refused, "least"),
        (Serve(least=-1), Refused, "least"),
        (Serve(most=0), Refused, "most"),
        (Serve(gpus=float("nan")), Refused, "gpus"),
        (Serve(fallbacks=("m",)), Refused, "fallbacks"),
        (Serve(fallbacks=("a b",)), Refused, "fallbacks"),
        (Serve(fallbacks=("x",) * 9), Refused, "fallbacks"),
    ],
)
def test_what_can_not_be_served(serve: Serve, error: type[FlotillaError], field: str) -> None:
    assert refused(World().known(), serve, error).field == field


def test_show_publishes_again_only_when_it_is_told_to() -> None:
    world = World().known()
    assert [type(effect) for effect in world.feed(Show())] == [Answer]
    assert [type(effect) for effect in world.feed(Show(hang=True))] == [Publish, Answer]


# -- dropping


def test_a_version_that_nobody_needs_is_dropped_and_its_name_is_never_used_again() -> None:
    world = World().known("1", "2", "3")
    for _ in range(2):  # the second one is the first, sent again
        world.feed(DropVersion(version="m@3", by="ann"))
        assert set(world.view.versions) == set(world.view.added_by) == {"m@1", "m@2"}
    assert [fact.by for fact in world.facts if isinstance(fact, VersionDropped)] == ["ann"]
    assert refused(world, AddVersion(version=version("3")), Conflict).field == "name"
    refused(world, BeginSwap(swap="s", to="m@3"), NotFound)
    refused(world, DropVersion(version="m@9"), NotFound)
    check(world)


def test_a_first_version_that_was_dropped_since_does_not_keep_a_fleet_from_starting() -> None:
    world = World().known().begin().finish()
    world.feed(DropVersion(version="m@1"))
    world.feed(Serve(version="m@1", least=2, most=2))
    assert world.route.stable == "m@2" and world.board.placed[0].least == 2
    check(world)


def test_an_adapter_goes_before_its_base() -> None:
    world = World().known("1", "2")
    world.feed(AddVersion(version=version("tone", base="m@2", adapter="/a")))
    assert "m@tone" in refused(world, DropVersion(version="m@2"), Conflict).detail
    world.feed(DropVersion(version="m@tone"))
    world.feed(DropVersion(version="m@2"))
    assert set(world.view.versions) == {"m@1"}


def test_an_adapter_that_could_be_asked_for_leaves_the_plan() -> None:
    world = World().known("1", "2")
    world.feed(AddVersion(version=version("tone", base="m@1", adapter="/a")))
    assert "m@tone" in world.board.versions
    world.feed(DropVersion(version="m@tone"))
    assert "m@tone" not in world.board.versions
    check(world)


@pytest.mark.parametrize("order", [FULL, IN_PLACE])
def test_what_is_used_is_not_dropped(order: SwapOrder) -> None:
    world = World().known("1", "2").begin(order)
    while world.model.swap is not None:
        for id in ("m@1", "m@2"):
            refused(world, DropVersion(version=id), Conflict if id != world.model.stable else FlotillaError)
        assert world.step()
    refused(world, DropVersion(version="m@2"), Refused)
    world.feed(DropVersion(version="m@1"))
    assert world.view.swaps[0].from_ == "m@1", "what there was is still told of"
    check(world)


def test_the_base_of_an_adapter_that_answers_is_not_dropped() -> None:
    world = World()
    world.feed(AddVersion(version=version("1")))
    world.feed(AddVersion(version=version("tone", base="m@1", adapter="/a")))
    world.feed(Serve(version="m@tone"))
    refused(world, DropVersion(version="m@1"), Conflict)


# -- going on, once


def test_a_promotion_is_resumed_to_retire_the_old_version_now() -> None:
    for watched in (True, False):
        world = World().known().begin().until("promoted")
        if not watched:
            world.step()
        assert "Resume" in refused(world, BeginSwap(swap="s-2", to="m@1"), Conflict).next
        world.feed(Resume(by="bob"))
        check(world)
        assert world.running is not None and world.running.stage == "retiring" and not world.reminders
        assert world.placed() == {"m@1", "m@2"}, "somebody may still be answered by the old one"
        world.finish()
        assert world.ends() == ["done"] and world.placed() == {"m@2"}
        world.begin(to="m@1", swap="s-2")


def test_a_promotion_in_place_is_resumed_to_its_end() -> None:
    world = World().known().begin(IN_PLACE).until("promoted")
    at = world.view.swap.at
    for _ in range(2):
        world.feed(Resume(at=at, by="bob"))
        assert world.ends() == ["done"]
    refused(world, Resume(), Conflict)
    check(world)


def test_a_resume_that_comes_twice_goes_on_once() -> None:
    world = World().known().begin(MANUAL).until("canary")
    world.report(well(world.running))
    at = world.view.swap.at
    assert world.view.swap.waits and world.view.swap.percents == (5, 50)
    world.feed(Resume(at=at))
    assert world.view.swap.step == 1
    world.report(well(world.running))  # held for 0 s: it waits again before the second one comes
    assert world.view.swap.waits and world.feed(Resume(at=at)) and world.view.swap.step == 1
    world.feed(Promote())
    world.feed(Resume(at=at))
    assert world.view.swap.stage == "promoted"
    check(world)


def test_a_pause_between_is_not_undone_by_an_old_resume() -> None:
    world = World().known().begin().until("canary")
    world.feed(Pause())
    at = world.view.swap.at
    world.feed(Resume(at=at))
    world.feed(Pause())
    world.feed(Resume(at=at))
    assert world.view.swap.paused


# -- a swap that goes well


def test_a_swap_goes_through_every_stage() -> None:
    world = World().known().begin()
    routes = {}
    while world.model.swap is not None:
        check(world)
        routes[world.model.swap.stage, world.model.swap.step] = world.route
        both = world.placed() == {"m@1", "m@2"}
        assert both, "both are there until it is over"
        assert world.step()
    assert list(routes) == STAGES == world.stages()
    for stage in STAGES[:3]:
        assert (routes[stage].stable, routes[stage].candidate) == ("m@1", "")
    shadow = routes["shadowing", 0]
    assert (shadow.candidate, shadow.shadow, shadow.canary.percent) == ("m@2", 0.2, 0)
    canary = routes["canary", 1]
    assert (canary.candidate, canary.canary.percent, canary.shadow) == ("m@2", 50, 0)
    assert canary.salt == "s-1" == routes["canary", 0].salt
    assert (routes["promoted", 0].stable, routes["promoted", 0].candidate) == ("m@2", "")
    assert world.placed() == {"m@2"} and world.ends() == ["done"]
    (ended,) = world.view.swaps
    assert list(ended.verdicts) == ["evaluating", "shadowing", "canary 0", "canary 1", "promoted"]
    assert ended.gated and ended.by == "ann" and world.view.swap is None
    assert world.view.scores["m@2"].quality == 0.9 and world.view.scores["m@1"].quality == 0.8
    assert not world.model.unfinished and not world.reminders
    check(world)


def test_effects_come_in_the_order_that_the_record_asks_for() -> None:
    world = World().known()
    effects = world.model.on(BeginSwap(swap="s-1", to="m@2", order=FULL))
    assert [type(effect) for effect in effects] == [Record, Publish, Answer, Do]
    assert isinstance(effects[1], Publish) and effects[1].plan.revision == world.model.seq


def test_what_is_not_ordered_is_left_out_and_said_so() -> None:
    world = World().known().begin(SwapOrder(steps=STEPS[:1]))
    assert world.view.swap is not None and not world.view.swap.gated
    world.finish()
    assert world.stages() == [
        ("loading", 0),
        ("warming", 0),
        ("canary", 0),
        ("promoted", 0),
        ("retiring", 0),
    ]
    assert any("no gate set" in note for note in world.view.swaps[0].notes)


def test_the_old_version_is_kept_until_its_time_is_up() -> None:
    world = World().known().begin().until("promoted")
    assert world.reminders["keep:s-1"].after_s == 60.0 and world.model.unfinished
    world.step()
    assert world.running is None and not world.model.unfinished, "its host may forget it meanwhile"
    assert world.view.swap is not None and not world.view.swap.waits
    assert world.placed() == {"m@1", "m@2"}
    world.step()
    assert world.running is not None and world.running.stage == "retiring"
    assert world.placed() == {"m@1", "m@2"}, "somebody may still be answered by it"
    world.step()
    assert world.placed() == {"m@2"}
    check(world)


def test_a_reminder_that_comes_while_it_is_still_watched_ends_the_watching() -> None:
    world = World().known().begin().until("promoted")
    world.feed(Due(name="keep:s-1", at=world_due().at))
    assert world.running is not None and world.running.stage == "retiring"
    assert world.feed(world_due()) == () and world.feed(world_due("keep:s-0")) == ()
    check(world)


def world_due(name: str = "keep:s-1") -> Due:
    from datetime import UTC, datetime

    return Due(name=name, at=datetime(2026, 11, 22, tzinfo=UTC))


def test_a_model_without_replicas_at_rest_has_one_of_each_while_it_is_swapped() -> None:
    world = World().known()
    world.feed(Serve(least=0))
    world.begin()
    assert world.board is not None and [placed.least for placed in world.board.placed] == [1, 1]
    world.finish()
    assert [placed.least for placed in world.board.placed] == [0]


# -- adapters


def test_an_adapter_runs_on_its_base() -> None:
    world = World().known("1")
    world.feed(AddVersion(version=version("bank", base="m@1", adapter="/a")))
    world.begin(to="m@bank").until("canary")
    assert world.placed() == {"m@1"} and world.route.candidate == "m@bank"
    assert world.running is not None and world.running.candidate.adapter == "/a"
    world.finish()
    assert world.route.stable == "m@bank" and world.placed() == {"m@1"}
    check(world)


def test_what_has_nothing_to_run_on_any_more_may_not_be_asked_for() -> None:
    world = World().known()
    world.feed(AddVersion(version=version("bank", base="m@1", adapter="/a")))
    assert world.board is not None and set(world.board.versions) == {"m@1", "m@bank"}
    world.begin().finish()
    assert set(world.board.versions) == {"m@2"} and set(world.view.versions) == {"m@1", "m@2", "m@bank"}


# -- by hand


def test_a_swap_by_hand_waits_at_the_end_of_each_step() -> None:
    world = World().known().begin(MANUAL).until("canary", 0)
    world.step()
    assert world.view.swap is not None and world.view.swap.waits
    assert world.running is not None and world.running.held, "its budgets are watched while it waits"
    assert world.route.canary.percent == 5
    check(world)
    world.feed(Resume(by="bob"))
    assert world.view.swap.step == 1 and not world.view.swap.waits
    world.step()
    assert world.view.swap.waits
    world.feed(Resume())
    assert world.view.swap.stage == "promoted"
    world.finish()
    assert world.ends() == ["done"]


def test_promotion_by_hand_goes_all_the_way() -> None:
    world = World().known().begin(MANUAL).until("canary", 0)
    world.step()
    world.feed(Promote(by="bob"))
    assert world.route.stable == "m@2" and not world.route.candidate
    world.feed(Promote(by="bob"))
    assert world.stages().count(("promoted", 0)) == 1
    world.finish()
    world.feed(Promote(by="bob"))
    assert world.ends() == ["done"]
    check(world)


@pytest.mark.parametrize(("stage", "step"), STAGES[:3])
def test_what_was_not_evaluated_is_not_promoted(stage: str, step: int) -> None:
    world = World().known().begin().until(stage, step)
    refused(world, Promote(), Conflict)


# -- held, and turned back


@pytest.mark.parametrize(("stage", "step"), ANYWHERE)
def test_a_swap_can_be_paused_anywhere_and_goes_on(stage: str, step: int) -> None:
    world = World().known().begin().until(stage, step)
    before = world.route
    world.feed(Pause(by="bob"))
    check(world)
    assert world.view.swap is not None and world.view.swap.paused
    if stage in ("canary", "promoted"):
        assert world.running is not None and world.running.held
    else:
        assert world.running is None
    assert not world.reminders, "nothing is thrown away while it is paused"
    if stage != "shadowing":
        assert world.route == before
    assert not world.step(), "nothing goes on"
    for late in world.stale:
        assert world.feed(late) == ()
    world.feed(Pause())
    world.feed(Resume(by="bob"))
    check(world)
    world.finish()
    assert world.ends() == ["done"] and world.stages() == STAGES


@pytest.mark.parametrize(("stage", "step"), ANYWHERE)
@pytest.mark.parametrize("paused", [False, True])
def test_a_swap_can_be_rolled_back_from_anywhere(stage: str, step: int, paused: bool) -> None:
    world = World().known().begin().until(stage, step)
    if paused:
        world.feed(Pause())
    world.feed(RollBack(reason="I don't like it", by="bob"))
    check(world)
    assert world.route.stable == "m@1" and not world.route.candidate, "at once"
    if stage == "loading":
        assert world.placed() == {"m@1"}
    else:
        assert world.placed() == {"m@1", "m@2"}, "its replies are finished where they are made"
        assert world.view.swap is not None and world.view.swap.back
        assert world.running is not None and (world.running.stage, world.running.undo) == ("retiring", True)
        for message in (Pause(), Resume(), Promote()):
            refused(world, message, Conflict)
        world.feed(RollBack())
    world.finish()
    assert world.placed() == {"m@1"} and world.ends() == ["rolled_back"] and not world.reminders
    assert world.view.swaps[0].reason == "I don't like it"
    world.feed(RollBack(by="bob"))
    assert world.ends() == ["rolled_back"]
    refused(world, Promote(), Conflict)
    check(world)


def test_what_is_done_can_not_be_rolled_back() -> None:
    world = World().known().begin().finish()
    error = refused(world, RollBack(), Conflict)
    assert error.next is not None
    world.begin(to="m@1", swap="s-2").finish()
    assert world.route.stable == "m@1" and world.placed() == {"m@1"}


@pytest.mark.parametrize(("stage", "step"), STAGES[4:7])
@pytest.mark.parametrize("held", [False, True])
def test_a_budget_that_burns_rolls_back_by_itself(stage: str, step: int, held: bool) -> None:
    world = World().known().begin().until(stage, step)
    if held:
        world.feed(Pause())
    assert world.running is not None
    world.report(Judged(key=world.running.key, verdict=verdict("errors: 9 of 10", "quality: 0.1")))
    assert world.route.stable == "m@1" and not world.route.candidate
    (turned,) = (fact for fact in world.facts if isinstance(fact, SwapTurned))
    assert turned.end == "rolled_back" and turned.reason == "errors: 9 of 10; quality: 0.1"
    check(world)
    world.finish()
    assert world.ends() == ["rolled_back"] and world.placed() == {"m@1"}
    label = f"{stage} {step}" if stage == "canary" else stage
    assert not world.view.swaps[0].verdicts[label].passed


def test_a_budget_that_burns_while_it_waits_rolls_back_too() -> None:
    world = World().known().begin(MANUAL).until("canary", 0)
    world.step()
    assert world.running is not None and world.running.held
    world.report(Judged(key=world.running.key, verdict=verdict("errors")))
    world.finish()
    assert world.ends() == ["rolled_back"]


@pytest.mark.parametrize("stage", ["evaluating", "shadowing"])
def test_a_gate_that_fails_leaves_the_running_version_alone(stage: str) -> None:
    world = World().known().begin().until(stage)
    world.step(found=verdict("gate: a mean score of 0.10"))
    assert world.route.stable == "m@1" and not world.route.candidate
    world.finish()
    assert world.ends() == ["failed"] and world.placed() == {"m@1"}
    assert world.view.swaps[0].reason == "gate: a mean score of 0.10"
    assert ("m@2" in world.view.scores) == (stage in ("evaluating", "shadowing"))
    check(world)


@pytest.mark.parametrize(("stage", "step"), ANYWHERE)
def test_a_stage_that_can_not_be_done_leaves_customers_with_a_version(stage: str, step: int) -> None:
    world = World().known().begin().until(stage, step)
    assert world.running is not None
    world.report(stuck(world.running))
    check(world)
    world.finish()
    promoted = stage in ("promoted", "retiring")
    assert world.ends() == (["done"] if promoted else ["failed"])
    assert world.placed() == {"m@2" if promoted else "m@1"}
    assert promoted or world.view.swaps[0].reason == f"{stage}: It is gone."


# -- in place


def test_a_swap_in_place_reloads_what_is_there() -> None:
    world = World().known().begin(IN_PLACE)
    assert world.board is not None and world.board.reloading == ("m@1", "m@2")
    assert world.placed() == {"m@1"} and world.route.stable == "m@1"
    world.step()
    assert world.route.stable == "m@2" and world.placed() == {"m@2"} and not world.board.reloading
    check(world)
    world.finish()
    assert world.stages() == [("loading", 0), ("promoted", 0)] and world.ends() == ["done"]
    assert not world.view.swaps[0].gated and "in place" in world.view.swaps[0].notes[0]


@pytest.mark.parametrize("stage", ["loading", "promoted"])
def test_a_swap_in_place_is_undone_in_place(stage: str) -> None:
    world = World().known().begin(IN_PLACE).until(stage)
    world.feed(RollBack(by="bob"))
    assert world.running is not None and world.running.undo and world.running.stage == "loading"
    assert world.board is not None and world.board.reloading == ("m@1", "m@2")
    assert world.route.stable == "m@1" and world.placed() == {"m@1"}
    check(world)
    world.step()
    assert world.ends() == ["rolled_back"] and not world.board.reloading and not world.reminders


def test_weights_that_can_not_be_put_back_are_left_to_the_controller() -> None:
    world = World().known().begin(IN_PLACE)
    assert world.running is not None
    world.report(stuck(world.running))
    assert world.running is not None and world.running.undo
    world.report(stuck(world.running))
    assert world.ends() == ["failed"] and world.placed() == {"m@1"}
    assert "started anew" in world.view.swaps[0].reason
    check(world)


@pytest.mark.parametrize(
    "other", [version("o", base="m@1", adapter="/a"), Version(model="m", name="o", engine="extract")]
)
def test_what_can_not_be_swapped_in_place(other: Version) -> None:
    world = World().known()
    world.feed(AddVersion(version=other))
    error = refused(world, BeginSwap(swap="s-1", to="m@o", order=IN_PLACE), Refused)
    assert error.field == "order.in_place"


# -- bad orders


def test_bad_swaps() -> None:
    world = World().known("1", "2", "3")
    assert refused(world, BeginSwap(swap="s-1", to="m@1"), Refused).field == "to"
    assert refused(world, BeginSwap(swap="s-1", to="m@9"), NotFound).field == "to"
    assert refused(world, BeginSwap(swap="a b", to="m@2"), Refused).field == "swap"
    refused(world, Promote(), NotFound)
    refused(world, Pause(), NotFound)
    world.begin()
    error = refused(world, BeginSwap(swap="s-2", to="m@3"), Conflict)
    assert "s-1" in error.detail and error.next
    seq = world.model.seq
    world.begin()
    assert world.model.seq == seq and world.answers[-1].swap is not None
    assert refused(world, BeginSwap(swap="s-1", to="m@3"), Conflict).field == "swap"
    world.finish()
    world.begin()
    assert world.answers[-1].swap is None and world.ends() == ["done"], "a swap is begun once"


def test_a_swap_needs_something_to_swap_from() -> None:
    world = World()
    world.feed(AddVersion(version=version("1")))
    assert refused(world, BeginSwap(swap="s-1", to="m@1"), Refused).next == (
        "Have it serve m@1: there is nothing to swap."
    )


def replaced(**fields: object) -> SwapOrder:
    return msgspec.structs.replace(FULL, **fields)


def step_of(**fields: object) -> SwapOrder:
    return replaced(steps=(msgspec.structs.replace(CanaryStep(canary=Canary(percent=1)), **fields),))


def gate_of(**fields: object) -> SwapOrder:
    return replaced(gate=msgspec.structs.replace(GATE, **fields))


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (replaced(shadow_share=1.5), "shadow_share"),
        (replaced(shadow_share=0.0), "shadow_share"),
        (replaced(shadow_replies=-1), "shadow_replies"),
        (replaced(load_max_s=0.0), "load_max_s"),
        (replaced(keep_s=-1.0), "keep_s"),
        (replaced(keep_s=float("inf")), "keep_s"),
        (replaced(steps=STEPS * 17), "steps"),
        (step_of(canary=Canary(percent=101)), "steps.0.canary.percent"),
        (step_of(canary=Canary(tenants=("a b",))), "steps.0.canary.tenants"),
        (step_of(canary=Canary(agents=("router",))), "steps.0.canary.agents"),
        (
            step_of(canary=Canary(conversations=tuple(f"t/{n}" for n in range(101)))),
            "steps.0.canary.conversations",
        ),
        (step_of(hold_s=-1.0), "steps.0.hold_s"),
        (step_of(hold_s=9.0, hold_max_s=1.0), "steps.0.hold_max_s"),
        (replaced(budgets=msgspec.structs.replace(FULL.budgets, replies_min=0)), "budgets.replies_min"),
        (gate_of(cases=()), "gate.cases"),
        (gate_of(cases=GATE.cases * 2), "gate.cases.1.id"),
        (gate_of(judges=(Judge(name="nobody"),)), "gate.judges.0.name"),
        (gate_of(judges=(Judge(name="facts", weight=0.0),)), "gate.judges.0.weight"),
        (gate_of(score_min=2.0), "gate.score_min"),
        (gate_of(tokens_max=0), "gate.tokens_max"),
    ],
)
def test_orders_that_can_not_be(order: SwapOrder, field: str) -> None:
    error = refused(World().known(), BeginSwap(swap="s-1", to="m@2", order=order), Refused)
    assert error.field == f"order.{field}"


def test_signals_of_stopped_works_change_nothing() -> None:
    world = World().known().begin()
    old = world.running
    assert old is not None
    world.step()
    assert world.feed(well(old)) == () and world.feed(stuck(old)) == ()
    check(world)


def test_history_is_bounded() -> None:
    world = World().known()
    for n in range(25):
        world.begin(SwapOrder(steps=(), keep_s=0.0), to=f"m@{2 - n % 2}", swap=f"s-{n}").finish()
    assert [view.id for view in world.view.swaps] == [f"s-{n}" for n in range(24, 4, -1)]
    assert isinstance(world.model, Model) and world.model.id == ME
    check(world)


def test_the_largest_gate_set_fits_into_a_message() -> None:
    cases = tuple(
        msgspec.structs.replace(GATE.cases[0], id=f"c-{n}", question="?" * 2000) for n in range(500)
    )
    order = replaced(gate=GateSet(name="g", cases=cases))
    size = len(msgspec.msgpack.encode(BeginSwap(swap="s-1", to="m@2", order=order)))
    assert size < Model.kind.limits.message_bytes_max
    world = World().known().begin(order).finish()
    assert world.ends() == ["done"]


def test_a_held_watch_that_finds_nothing_wrong_does_not_go_on() -> None:
    world = World().known().begin().until("canary", 0)
    world.feed(Pause())
    assert world.running is not None and world.running.held
    assert world.model.on(Judged(key=world.running.key, verdict=verdict())) == ()
    check(world)
