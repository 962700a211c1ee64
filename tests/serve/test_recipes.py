"""Recipes ask for what nodes offer, and carry what a process needs to start anywhere."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from flotilla.cli.raynode import RESOURCES
from flotilla.core.actor import Resources
from flotilla.core.ids import ActorId
from serve import recipes
from serve.settings import read_settings

SETTINGS = read_settings({"FLOTILLA_LISTEN": "127.0.0.1"})
ACTOR = ActorId("t", "solo", "s_1")
PROCESSES = Path(__file__).parents[2] / "serve/processes"
ALONE = recipes.dedicated(SETTINGS, ACTOR, Resources(cpus=2.0, gpus=0.5, memory_bytes=1 << 30))


@pytest.mark.parametrize(
    "recipe",
    [
        ALONE,
        *(recipes.recipe(SETTINGS, r, f"{r}-0") for r in ("host", "librarian", "embedder", "controller")),
    ],
    ids=lambda recipe: recipe.role,
)
def test_a_recipe_names_a_wiring_function_and_fits_a_node(recipe: recipes.Recipe) -> None:
    module, _, function = recipe.wire.partition(":")
    package, _, process = module.rpartition(".")
    written = ast.parse((PROCESSES / f"{process}.py").read_text()).body
    assert package == "serve.processes"
    assert function in {node.name for node in written if isinstance(node, ast.AsyncFunctionDef)}
    assert recipe.listen == "127.0.0.1"
    assert all(RESOURCES[name] >= amount for name, amount in recipe.resources.items())
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_dedicated_actor_gets_its_resources_and_knows_who_it_is() -> None:
    assert (ALONE.cpus, ALONE.gpus, ALONE.memory_bytes) == (2.0, 0.5, 1 << 30)
    assert ALONE.settings.actor == ACTOR and ALONE.settings.settings == SETTINGS
    assert ALONE.actor_name == "dedicated:t~solo~s_1"
