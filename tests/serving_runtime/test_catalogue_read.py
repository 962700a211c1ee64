"""A board that was lost is hung up again one plan after the other: until the default model's hangs there, no name says
anything, and whoever has just started waits instead of telling a customer that there is no such model."""

from __future__ import annotations

from typing import Any

import pytest

from actors.serving.catalogue import Catalogue
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Origin
from flotilla.core.versions import Plan, Route
from tests.serving_runtime.replica_rig import ask, version

CUSTOMER = Origin(tenant="t")


def plan(model: str) -> Plan:
    one = version(f"{model}@1")
    return Plan(model=model, revision=1, route=Route(stable=one.id), versions={one.id: one})


@pytest.mark.parametrize("wanted", ["", "m", "m@1", "m@adapter", "other"])
def test_part_of_a_board_says_nothing_of_a_name(wanted: str) -> None:
    catalogue = Catalogue("m")
    catalogue.take({"plain": plan("plain")})
    with pytest.raises(Unavailable) as told:
        catalogue.choose(CUSTOMER, wanted)
    assert told.value.retry_after_s


@pytest.mark.parametrize("kept", [{"said": "The"}, {"pinned": True}])
def test_what_was_begun_by_a_model_of_which_only_others_have_read_waits(kept: dict[str, Any]) -> None:
    catalogue = Catalogue("m")
    catalogue.take({"m": plan("m")})
    with pytest.raises(Unavailable):
        catalogue.resolve(ask(model="plain@1", **kept))
    with pytest.raises(NotFound):
        catalogue.resolve(ask(model="plain@1"))
    catalogue.take({"plain": plan("plain")})
    assert catalogue.resolve(ask(model="plain@1", **kept)).id == "plain@1"


def test_with_the_default_model_each_name_says_something() -> None:
    catalogue = Catalogue("m")
    catalogue.take({"plain": plan("plain"), "m": plan("m")})
    assert catalogue.choose(CUSTOMER).id == catalogue.choose(CUSTOMER, "m").id == "m@1"
    assert catalogue.choose(CUSTOMER, "plain").id == "plain@1"
    with pytest.raises(NotFound):
        catalogue.choose(CUSTOMER, "m@2")
