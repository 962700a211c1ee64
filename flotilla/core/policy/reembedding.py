"""What to do next with a collection that is to have another embedder's vectors.

Each step is one commit to the collection's table, and what to do is read off the table alone: whoever takes
over after a crash, at any point, goes on with `next_step`. Searches go by the live vectors throughout.

    begin ─ fill … ─ index ─ switch ─ drop the old ─ done
"""

from __future__ import annotations

from typing import Literal

import msgspec

Step = Literal["drop_left", "drop_building", "begin", "fill", "index", "switch", "done"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as it is: the embedders of its live vectors, of those that are being made beside them and
    of those that are left over. `missing` are the passages without a vector of the wanted embedder, `indexed`
    says whether its vectors need no index or have one."""

    live: str
    building: str = ""
    left: tuple[str, ...] = ()
    missing: int = 0
    indexed: bool = True


def next_step(shape: Shape, wanted: str) -> Step:
    """Towards a collection whose vectors are those of `wanted`, all of them and no others."""
    if shape.left:
        return "drop_left"
    if shape.building and (shape.building != wanted or shape.live == wanted):
        return "drop_building"
    if shape.live != wanted and not shape.building:
        return "begin"
    if shape.missing:  # of the live ones too: a process that knew nothing of the switch wrote them
        return "fill"
    if shape.live == wanted:
        return "done"
    return "switch" if shape.indexed else "index"
