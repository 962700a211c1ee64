"""One ranking of several: nothing lost, pointed hits first, shelves lift."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.policy.fusion import HEAD, fuse, reciprocal_ranks, shelf_lifts, shelves

IDS = st.lists(st.integers(0, 60).map(lambda n: f"shelf{n % 5}/doc{n}#0"), unique=True, max_size=60)


def document(passage: str) -> str:
    return passage.partition("#")[0]


def fused(*rankings: list[str]) -> tuple[str, ...]:
    return fuse(rankings, {id: document(id) for ranking in rankings for id in ranking})


@given(IDS, IDS)
def test_everything_found_is_ranked_once(a: list[str], b: list[str]) -> None:
    ranking = fused(a, b)
    assert len(ranking) == len(set(ranking))
    assert set(ranking) == {*a, *b}


@given(IDS, IDS)
def test_what_a_search_holds_for_best_is_in_the_head(a: list[str], b: list[str]) -> None:
    assert {*a[:1], *b[:1]} <= set(fused(a, b)[:HEAD])


@given(IDS, IDS)
def test_the_order_of_rankings_does_not_matter(a: list[str], b: list[str]) -> None:
    assert fused(a, b) == fused(b, a)


@given(st.lists(st.uuids().map(lambda id: f"{id.hex}#0"), unique=True, max_size=60))
def test_without_shelves_one_ranking_stays_as_it_is(ranking: list[str]) -> None:
    assert fused(ranking) == tuple(ranking)


def test_ranks_add_up() -> None:
    assert reciprocal_ranks([["a", "b"], ["b"]], 10) == pytest.approx({"a": 1 / 11, "b": 1 / 12 + 1 / 11})


def test_past_the_head_a_well_found_shelf_goes_first() -> None:
    alone = [f"alone{n}/doc#0" for n in range(40)]
    together = [f"gold/doc{n}#0" for n in range(40)]
    ranking = fused([id for pair in zip(alone, together, strict=True) for id in pair])
    assert all(id.startswith("gold/") for id in ranking[HEAD : HEAD + 10])


def test_shelves_are_nested() -> None:
    assert shelves("cards/gold_2") == ("cards/gold_", "cards/", "")
    assert shelves("faq") == ("",)


def test_a_shelf_within_which_nothing_else_stands_counts_once() -> None:
    nested, flat = shelf_lifts({"a/b/c/1": 1.0, "a/b/c/2": 1.0}), shelf_lifts({"c1": 1.0, "c2": 1.0})
    assert set(nested.values()) == set(flat.values())
