"""The checker of models: what keeps the promises passes, and each broken one is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simulation.model_history import BOARDS_LOST, State, check_models, states
from simulation.observations import Change, Entry, Fault, Hung, Observation, Received, Saw, Told

TEXTS = {"m@1": ("the card costs", "at nine"), "m@2": ("THE CARD COSTS", "AT NINE")}
BOTH = ("m@1", "m@2")
PROMOTED = (
    Change(seq=1, type="version.added"),
    Change(seq=2, type="model.served", version="m@1"),
    Change(seq=3, type="swap.begun", swap="s", to="m@2"),
    Change(seq=4, type="swap.went", swap="s", stage="canary"),
    Change(seq=5, type="swap.went", swap="s", stage="promoted"),
)
TURNED = (
    *PROMOTED,
    Change(seq=6, type="swap.turned", swap="s", end="rolled_back"),
    Change(seq=7, type="swap.ended", swap="s", end="rolled_back"),
)


def rules(
    seen: Sequence[Observation] = (), entries: Sequence[Entry] = (), changes: Sequence[Change] = TURNED
) -> set[str]:
    found = check_models(seen, changes, {"session/s": entries}, TEXTS, (" (not sure)",))
    return {violation.rule for violation in found}


def hung(revision: int, stable: str, **words: object) -> Hung:
    return Hung(at=1.0, revision=revision, stable=stable, **{"placed": BOTH, **words})  # type: ignore[arg-type]


def reply(text: str, model: str, type: str = "reply.completed", turn: str = "t") -> Entry:
    return Entry(seq=1, type=type, turn=turn, text=text, model=model)


def test_the_stable_version_follows_from_promotions_and_rollbacks() -> None:
    assert [state.stable for state in states(TURNED)] == ["", "", *["m@1"] * 3, "m@2", "m@1", "m@1"]
    assert states(TURNED)[-1] == State(stable="m@1")
    done = states([*PROMOTED, Change(seq=6, type="swap.ended", swap="s", end="done")])
    assert done[-1] == State(stable="m@2")


def test_plans_that_are_the_record_s_pass() -> None:
    seen = [hung(2, "m@1"), hung(4, "m@1", candidate="m@2"), hung(5, "m@2"), hung(7, "m@1", placed=("m@1",))]
    assert rules(seen) == set()


@pytest.mark.parametrize(
    "plan",
    [hung(4, "m@2"), hung(5, "m@1"), hung(6, "m@2"), hung(8, "m@1"), hung(3, "m@1", candidate="m@2")],
)
def test_a_plan_that_is_not_the_record_s_is_seen(plan: Hung) -> None:
    assert rules([plan]) == {"stable"}


def test_versions_that_are_wanted_keep_their_replicas() -> None:
    assert rules([hung(4, "m@1", placed=("m@1",))]) == {"unplaced"}
    assert rules([hung(7, "m@1", cut=("m@2",))]) == {"unplaced"}
    assert rules([Fault(at=0.5, what="kill"), hung(7, "m@1", cut=("m@2",))]) == set()


def test_no_process_sees_an_older_plan_unless_the_boards_were_lost() -> None:
    new, old = (Saw(at=1.0, process="host/1", revision=revision) for revision in (5, 4))
    assert rules([new, old]) == {"backwards"}
    assert rules([new, Fault(at=1.0, what=BOARDS_LOST), old]) == set()
    assert rules([new, Saw(at=1.0, process="host/2", revision=4)]) == set()


def test_what_an_operator_was_told_is_in_the_record() -> None:
    assert rules([Told(at=1.0, client="o", seq=5, stable="m@2")]) == set()
    assert rules([Told(at=1.0, client="o", seq=5, stable="m@1")]) == {"lost"}
    assert rules([Told(at=1.0, client="o", seq=8, stable="m@1")]) == {"lost"}


@pytest.mark.parametrize("text", ["the card costs", "THE CARD COSTS", "the CARD COSTS", "the card"])
def test_a_reply_is_the_whole_text_of_the_version_that_it_names(text: str) -> None:
    assert rules(entries=[reply(text, "m@1")]) == (set() if text == "the card costs" else {"mixed"})
    assert rules(entries=[reply(text + " (not sure)", "m@2")]) == (set() if text.isupper() else {"mixed"})


def test_a_reply_that_was_broken_off_is_the_beginning_of_one() -> None:
    assert rules(entries=[reply("THE CA", "", "reply.interrupted")]) == set()
    assert rules(entries=[reply("THE ca", "", "reply.interrupted")]) == {"mixed"}


IN_PLACE = (
    *PROMOTED[:2],
    Change(seq=3, type="swap.begun", swap="s", to="m@2", in_place=True),
    Change(seq=4, type="swap.went", swap="s", stage="loading"),
    Change(seq=5, type="swap.went", swap="s", stage="promoted"),
    Change(seq=6, type="swap.ended", swap="s", end="done"),
)
RELOADED = [
    hung(4, "m@1", placed=("m@1",), reloading=BOTH),
    hung(5, "m@2", placed=("m@2",), cut=("m@1",)),
    hung(6, "m@2", placed=("m@2",)),
]


def test_in_place_those_that_are_there_have_the_replicas_and_either_answers() -> None:
    got = Received(at=2.0, client="r", session="session/s", seq=1, type="reply.completed", turn="t")
    assert rules([*RELOADED, got], [reply("AT NINE", "m@2")], IN_PLACE) == set()
    assert rules([hung(4, "m@1", placed=("m@2",), reloading=BOTH)], changes=IN_PLACE) == {"unplaced"}
    later = hung(6, "m@2", placed=("m@2",), cut=("m@3",))
    assert rules([*RELOADED, later], changes=IN_PLACE) == {"unplaced"}


def test_only_who_has_lost_its_weights_is_gone_on_with() -> None:
    forth, back = reply("the card COSTS", "m@2"), reply("THE CARD costs", "m@1")
    assert rules(RELOADED, [forth], IN_PLACE) == set()
    assert rules(RELOADED[:1], [forth], IN_PLACE) == rules(RELOADED, [back], IN_PLACE) == {"mixed"}
    assert rules(RELOADED, [reply("the card COS", "", "reply.interrupted")], IN_PLACE) == set()
    assert rules(RELOADED, [reply("the card NINE", "m@2")], IN_PLACE) == {"mixed"}
    assert rules(RELOADED, [reply("the cARD costs", "m@1")], IN_PLACE) == set(), "it is back in the end"
    steps = [reply("the card costs", "m@1", "step.done"), reply("AT NINE", "m@2", "step.done")]
    assert rules(RELOADED, steps, IN_PLACE) == set()


def test_nobody_is_blamed_for_what_others_have_not_heard_yet() -> None:
    counted = [*RELOADED[:2], hung(6, "m@2", placed=("m@2",), errors=1)]
    assert rules(counted, changes=IN_PLACE) == {"blamed"}
    assert rules([Fault(at=0.5, what="kill"), *counted], changes=IN_PLACE) == set()
    assert rules([hung(4, "m@1"), hung(5, "m@2", errors=1)]) == set()


def test_a_task_stays_at_its_version() -> None:
    first, second = reply("the card costs", "m@1", "step.done"), reply("AT NINE", "m@2", "step.done")
    assert rules(entries=[first, second]) == {"changed"}
    assert rules(entries=[first, reply("AT NINE", "m@2", "step.done", turn="other")]) == set()


def test_nobody_is_answered_by_a_version_that_is_only_compared() -> None:
    got = Received(at=2.0, client="r", session="session/s", seq=1, type="reply.completed", turn="t")
    entries = [reply("AT NINE", "m@2")]
    assert rules([hung(3, "m@1"), got], entries) == {"unasked"}
    assert rules([hung(4, "m@1", candidate="m@2"), got], entries) == set()


def test_replies_that_fail_are_seen() -> None:
    assert rules(entries=[reply("", "", "reply.failed")]) == {"failed"}
    assert rules(entries=[reply("not-found", "", "task.failed")]) == {"failed"}
    assert rules(entries=[reply("unavailable", "", "task.failed")]) == set()
