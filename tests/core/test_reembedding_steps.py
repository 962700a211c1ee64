"""What comes next with a collection that is to have another embedder's vectors."""

from __future__ import annotations

from itertools import product

import pytest

from flotilla.core.policy.reembedding import Shape, Step, next_step


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        (Shape(live="old"), "begin"),
        (Shape(live="old", building="new", missing=3), "fill"),
        (Shape(live="old", building="new", indexed=False), "index"),
        (Shape(live="old", building="new"), "switch"),
        (Shape(live="new", left=("old",)), "drop_left"),
        (Shape(live="new"), "done"),
        (Shape(live="old", building="other", missing=2), "drop_building"),
        (Shape(live="new", building="other", missing=2), "drop_building"),
        (Shape(live="new", missing=1), "fill"),
        (Shape(live="new", indexed=False), "done"),
    ],
)
def test_the_next_step(shape: Shape, step: Step) -> None:
    assert next_step(shape, "new") == step


def after(shape: Shape, step: Step) -> Shape:
    """What a step makes of it."""
    given = {name: getattr(shape, name) for name in Shape.__struct_fields__}
    changes: dict[Step, dict[str, object]] = {
        "drop_left": {"left": ()},
        "drop_building": {"building": "", "missing": 0},
        "begin": {"building": "new", "missing": 2, "indexed": False},
        "fill": {"missing": max(0, shape.missing - 1)},
        "index": {"indexed": True},
        "switch": {"live": "new", "building": "", "left": (shape.live,)},
        "done": {},
    }
    return Shape(**{**given, **changes[step]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(live=live, building=building, left=left, missing=missing, indexed=indexed)
        for live, building, left, missing, indexed in product(
            ("old", "new"), ("", "new", "other"), ((), ("gone",)), (0, 2), (True, False)
        )
        if live != building
    ],
    ids=str,
)
def test_from_anywhere_it_comes_to_an_end_with_only_the_new_vectors(shape: Shape) -> None:
    for _ in range(12):
        step = next_step(shape, "new")
        if step == "done":
            break
        if step == "switch":
            assert shape.missing == 0 and shape.indexed
        shape = after(shape, step)
    assert (shape.live, shape.building, shape.left, shape.missing) == ("new", "", (), 0)
