"""Where a value lies on an axis, from 0 to 1, and what is written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.reporting.folder import Floats

Kind = Literal["linear", "log", "nines"]
NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """`nines` is for percentiles: each further nine takes as much room as the one before."""

    low: float
    high: float
    kind: Kind = "linear"
    unit: str = ""

    def place(self, values: Floats) -> Floats:
        low, high = self._scaled(np.array([self.low, self.high], dtype=np.float64))
        return np.clip((self._scaled(values) - low) / (high - low), 0.0, 1.0)

    def _scaled(self, values: Floats) -> Floats:
        match self.kind:
            case "linear":
                return values
            case "log":
                return np.log10(np.maximum(values, self.low))
            case "nines":
                return -np.log10(np.maximum(1e-9, 1.0 - values / 100.0))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        values = self._values()
        places = self.place(np.array(values, dtype=np.float64))
        return [(float(place), short(value)) for place, value in zip(places, values, strict=True)]

    def _values(self) -> list[float]:
        match self.kind:
            case "linear":
                return _round_steps(self.low, self.high)
            case "log":
                return _powers(self.low, self.high)
            case "nines":
                return [value for value in NINES if self.low <= value <= self.high]


def linear(series: Sequence[Floats], unit: str = "") -> Axis:
    """From 0 to a little above the highest value."""
    highest = max((float(np.nanmax(values)) for values in series if np.isfinite(values).any()), default=1.0)
    return Axis(low=0.0, high=(highest or 1.0) * 1.06, unit=unit)


def logarithmic(series: Sequence[Floats], unit: str = "") -> Axis:
    """From below the lowest value above 0 to above the highest."""
    found = [values[np.isfinite(values) & (values > 0)] for values in series]
    found = [values for values in found if len(values)]
    low = min((float(values.min()) for values in found), default=1.0)
    high = max((float(values.max()) for values in found), default=10.0)
    return Axis(low=low * 0.8, high=max(high * 1.25, low * 3), kind="log", unit=unit)


def seconds(until: float) -> Axis:
    return Axis(low=0.0, high=max(until, 1.0), unit="s")


def _round_steps(low: float, high: float) -> list[float]:
    """About six, 1, 2 or 5 times a power of ten apart; minutes for long times look the same."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Each power of ten, with more between where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    factors = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3.5 else (1,)
    values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [value for value in values if low <= value <= high]


def short(value: float | None) -> str:
    """Three digits that count: 0.0123, 1.23, 12.3, 123, 12,300."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 99.5 < value < 100:
        return f"{value:.6g}"  # 99.99 is not 100
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:,.0f}"
