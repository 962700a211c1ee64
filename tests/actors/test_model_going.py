"""Who can't be asked any more once a swap is over: a version, and what runs where it does."""

from __future__ import annotations

import pytest

from actors.residents import model as residence
from flotilla.core.swap_facts import Do
from flotilla.core.swap_orders import SwapOrder
from flotilla.core.versions import Version


def version(name: str, base: str = "") -> Version:
    return Version(model="m", name=name, engine="scripted", base=base, adapter="/a" if base else "")


ALL = [version("1"), version("2"), version("a", "m@1"), version("b", "m@1"), version("c", "m@2")]
KNOWN = {one.id: one for one in ALL}


def going(stable: str, candidate: str, *, undo: bool = False) -> set[str]:
    do = Do(
        swap="s",
        stage="retiring",
        step=0,
        attempt=1,
        stable=stable,
        candidate=KNOWN[candidate],
        order=SwapOrder(),
        undo=undo,
    )
    return set(residence._going(KNOWN, do))  # type: ignore[reportPrivateUsage]


def test_a_version_takes_its_adapters_along() -> None:
    assert going("m@1", "m@2") == {"m@1", "m@a", "m@b"}
    assert going("m@1", "m@2", undo=True) == {"m@2", "m@c"}


def test_an_adapter_takes_its_base_along_and_what_else_runs_there() -> None:
    assert going("m@a", "m@2") == {"m@1", "m@a", "m@b"}
    assert going("m@1", "m@c", undo=True) == {"m@2", "m@c"}


@pytest.mark.parametrize(("stable", "candidate"), [("m@1", "m@a"), ("m@a", "m@b"), ("m@a", "m@1")])
def test_whoever_stays_on_the_same_replicas_is_not_waited_for(stable: str, candidate: str) -> None:
    assert going(stable, candidate) == {stable}
    assert going(stable, candidate, undo=True) == {candidate}
