"""A task that was begun by weights which are being loaded in place goes on with those."""

from __future__ import annotations

from typing import Any

from actors.serving.catalogue import Catalogue
from flotilla.core.versions import Plan, Route
from tests.serving_runtime.replica_rig import ask, version

ONE = version("m@1")
PLAN = Plan(model="m", revision=1, route=Route(stable="m@1"), versions={"m@1": ONE}, reloading=("m@1", "m@2"))


def resolved(**more: Any) -> str:
    catalogue = Catalogue()
    catalogue.take({"m": PLAN})
    return catalogue.resolve(ask(model="m@2", **more)).id


def test_a_task_stays_with_what_is_being_loaded() -> None:
    assert resolved(pinned=True) == resolved(said="The card") == "m@2"


def test_what_has_not_begun_is_answered_by_the_stable_version() -> None:
    assert resolved() == "m@1"
