"""The checker of choices: canaries that keep their promises pass, adapters too, and each broken one is named."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.chosen import check_chosen
from simulation.observations import Chose, Entry, Hung, Observation, Received

BASES = {"m@tuned": "m@1", "m@other": "m@1"}
BOTH = ("m@1", "m@2")


def canary(percent: float, revision: int, salt: str = "s") -> Hung:
    return Hung(
        at=1.0,
        revision=revision,
        stable="m@1",
        candidate="m@2",
        percent=percent,
        salt=salt,
        placed=BOTH,
        versions=BOTH,
    )


def chose(revision: int, conversation: str, version: str) -> Chose:
    return Chose(at=2.0, revision=revision, conversation=conversation, version=version)


def rules(seen: Sequence[Observation], entries: Sequence[Entry] = ()) -> set[str]:
    return {broken.rule for broken in check_chosen(seen, {"session/s": entries}, BASES, calm_until=10.0)}


def test_who_is_in_stays_in_as_the_canary_grows() -> None:
    plans = [canary(20.0, 4), canary(50.0, 5)]
    grows = [chose(4, "a", "m@1"), chose(5, "a", "m@2"), chose(4, "b", "m@2"), chose(5, "b", "m@2")]
    assert rules([*plans, *grows]) == set()
    assert rules([*plans, chose(4, "a", "m@2"), chose(5, "a", "m@1")]) == {"kept"}


def test_nobody_changes_within_a_step_whichever_process_chooses() -> None:
    assert rules([canary(20.0, 4), chose(4, "a", "m@1"), chose(4, "a", "m@2")]) == {"kept"}
    late = [canary(20.0, 4), canary(50.0, 5), chose(5, "a", "m@2"), chose(4, "a", "m@1")]
    assert rules(late) == set(), "a process that has not read of the next step yet"


def test_another_swap_begins_with_others() -> None:
    plans = [canary(20.0, 4), canary(50.0, 9, salt="t")]
    assert rules([*plans, chose(4, "a", "m@2"), chose(9, "a", "m@1")]) == set()


def test_a_shadow_and_a_promotion_are_no_canary() -> None:
    shadow = Hung(at=1.0, revision=4, stable="m@1", candidate="m@2", shadow=True, placed=BOTH)
    promoted = Hung(at=1.0, revision=5, stable="m@2", placed=BOTH)
    assert (
        rules([shadow, promoted, chose(4, "a", "m@1"), chose(5, "a", "m@2"), chose(5, "a", "m@1")]) == set()
    )


def drawn(most: int, percent: float = 20.0) -> list[Observation]:
    """Forty conversations, so many of which are in."""
    choices = [chose(4, f"c_{n}", "m@2" if n < most else "m@1") for n in range(40)]
    return [canary(percent, 4), *choices]


def test_a_canary_has_about_its_share_of_the_conversations() -> None:
    for most in (2, 8, 16):
        assert rules(drawn(most)) == set()
    assert rules(drawn(32)) == {"share"}
    assert rules(drawn(0, percent=60.0)) == {"share"}
    assert rules(drawn(40, percent=100.0)) == set()
    assert rules(drawn(39, percent=100.0)) == {"share"}


ASKED = Entry(seq=1, type="session.opened", wanted="m@tuned")
SERVES = Hung(at=1.0, revision=3, stable="m@1", placed=("m@1",), versions=("m@1", *BASES))


def answered(by: str, *plans: Hung, at: float = 5.0, began: float = 4.0) -> set[str]:
    """With the base answering since the second second."""
    up = Received(at=2.0, client="r", session="session/s", seq=2, type="reply.completed", turn="first")
    turn = Received(at=began, client="r", session="session/s", seq=3, type="message.accepted", turn="t")
    got = Received(at=at, client="r", session="session/s", seq=4, type="reply.completed", turn="t")
    entries = [
        Entry(seq=2, type="reply.completed", turn="first", model="m@tuned"),
        Entry(seq=4, type="reply.completed", turn="t", model=by),
    ]
    return rules([*plans, up, turn, got], [ASKED, *entries])


def test_who_asks_for_an_adapter_gets_it() -> None:
    assert answered("m@tuned", SERVES) == set()
    assert answered("m@1", SERVES) == answered("m@other", SERVES) == {"instead"}


def test_unless_something_is_wrong_or_its_base_is_leaving() -> None:
    assert answered("m@1", SERVES, at=11.0) == set()
    assert answered("m@1", SERVES, began=2.9) == set()  # not all have read that the base is there
    reloaded = Hung(at=2.0, revision=4, stable="m@1", placed=("m@1",), reloading=BOTH)
    left = Hung(at=2.0, revision=4, stable="m@2", placed=("m@2",))
    assert answered("m@1", SERVES, reloaded) == answered("m@2", SERVES, left) == set()
