"""What a plot shows, before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.reporting.axes import Axis
from benchmarks.reporting.folder import Floats, Mark, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`colour` is a variable of the style sheet. With `base` it is an area between the two."""

    name: str
    x: Floats
    y: Floats
    colour: str
    dashed: bool = False
    base: Floats | None = None

    @property
    def shown(self) -> Floats:
        """The values that the reader is told: an area's own, not where it ends."""
        return self.y if self.base is None else self.y - self.base


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """`x` of all series is the same if `timed`, and marks and phases are shown."""

    title: str
    about: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    timed: bool = True
    steps: bool = False
    limit: tuple[float, str] | None = None
    """A horizontal line: a target or a bound."""
    marks: tuple[Mark, ...] = ()
    phases: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a chart of stacked bars: parts in their order, with their colours."""

    name: str
    about: str
    parts: tuple[tuple[str, float, str], ...]


def stacked(x: Floats, values: dict[str, Floats], colours: tuple[str, ...]) -> tuple[Series, ...]:
    """Areas, each on top of the one before; where nothing at all was seen there are none."""
    seen = np.any([np.isfinite(own) for own in values.values()], axis=0) if values else np.zeros(len(x), bool)
    x, values = x[seen], {name: own[seen] for name, own in values.items()}
    base = np.zeros(len(x))
    found: list[Series] = []
    for number, (name, own) in enumerate(values.items()):
        top = base + np.nan_to_num(own)
        found.append(Series(name=name, x=x, y=top, base=base, colour=colours[number % len(colours)]))
        base = top
    return tuple(found)
