"""Names of things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core import ids
from flotilla.core.ids import ActorId, actor_of, is_name, new_id


def test_ids_are_distinct_names_with_their_prefix() -> None:
    made = [new_id("s") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(id.startswith("s_") and len(id) == 28 and is_name(id) for id in made)


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for ms in (0, 1, 31, 32, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1):
        monkeypatch.setattr(ids.time, "time_ns", lambda ms=ms: ms * 1_000_000)
        made.append(new_id("s"))
    assert made == sorted(made)


@pytest.mark.parametrize("name", ["a", "A-9_.:z", "x" * 128, "c-7"])
def test_a_name_is_letters_digits_and_four_signs(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "a,b", "é", "a\n", "\n", "a\0", "{a}", "٣"])
def test_everything_else_is_no_name(name: str) -> None:
    assert not is_name(name)


NAMES = st.from_regex(r"\A[A-Za-z0-9_.:\-]{1,128}\Z")


@given(NAMES, NAMES, NAMES)
def test_an_actor_is_found_again_by_its_key(tenant: str, kind: str, name: str) -> None:
    actor = ActorId(tenant, kind, name)
    assert actor_of(tenant, actor.key) == actor
    assert str(actor) == f"{tenant}/{actor.key}"


@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_different_actors_have_different_addresses(a: tuple, b: tuple) -> None:
    assert (str(ActorId(*a)) == str(ActorId(*b))) == (a == b)
