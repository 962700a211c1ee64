"""A version for some tenants may not become the one that answers everybody."""

from __future__ import annotations

import msgspec
import pytest

from flotilla.core.errors import Conflict, Refused
from flotilla.core.swap_facts import AddVersion, BeginSwap, Promote, Resume, RollBack, Serve
from flotilla.core.swap_orders import SwapOrder
from tests.swaps import FULL, World, version

BY_HAND = msgspec.structs.replace(FULL, automatic=False)


def world(candidate: tuple[str, ...], stable: tuple[str, ...] = ()) -> World:
    made = World()
    made.feed(AddVersion(version=version("1", tenants=stable), by="ann"))
    made.feed(Serve(version="m@1"))
    made.feed(AddVersion(version=version("2", tenants=candidate), by="ann"))
    return made


@pytest.mark.parametrize(
    "order",
    [
        FULL,
        msgspec.structs.replace(FULL, steps=()),
        msgspec.structs.replace(BY_HAND, steps=()),
        SwapOrder(in_place=True),
    ],
)
def test_who_is_answered_now_is_answered_behind_the_swap(order: SwapOrder) -> None:
    at = world(("acme",))
    with pytest.raises(Refused) as refused:
        at.model.on(BeginSwap(swap="s-1", to="m@2", order=order))
    assert refused.value.field == "to" and "acme" in refused.value.detail
    assert at.model.swap is None
    with pytest.raises(Refused):
        world(("acme",), stable=("acme", "bank")).begin(order)


def test_it_may_be_loaded_and_tried_by_hand_and_not_promoted() -> None:
    at = world(("acme",)).begin(BY_HAND).until("canary", 0)
    assert at.step()
    with pytest.raises(Conflict):
        at.model.on(Promote())
    at.feed(Resume())
    assert at.until("canary", 1).step()
    with pytest.raises(Conflict) as conflict:
        at.model.on(Resume())
    assert conflict.value.next
    at.feed(RollBack())
    assert at.model.stable == "m@1" and at.model.swap is not None and at.model.swap.turned


def test_a_version_for_more_tenants_may_take_the_place_of_one_for_fewer() -> None:
    assert world(("acme", "bank"), stable=("acme",)).begin(FULL).finish().ends() == ["done"]
    assert world((), stable=("acme",)).begin(FULL).finish().ends() == ["done"]
