"""Families of metrics, gathered line by line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


class Bars(NamedTuple):
    """`counts[n]` observations were at most `bounds[n]` and more than the bound before; the last more than
    all. `total` is their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Families:
    """All with the same labels. A family without lines is not shown."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._families: dict[str, Metric] = {}

    def gauge(self, name: str, says: str, labels: Sequence[str], value: float) -> None:
        family = self._families.setdefault(name, GaugeMetricFamily(name, says, labels=self._labels))
        assert isinstance(family, GaugeMetricFamily)
        family.add_metric(labels, value)

    def counter(self, name: str, says: str, labels: Sequence[str], value: float) -> None:
        """`name` is without its ending `_total`."""
        family = self._families.setdefault(name, CounterMetricFamily(name, says, labels=self._labels))
        assert isinstance(family, CounterMetricFamily)
        family.add_metric(labels, value)

    def histogram(self, name: str, says: str, labels: Sequence[str], bars: Bars) -> None:
        family = self._families.setdefault(name, HistogramMetricFamily(name, says, labels=self._labels))
        assert isinstance(family, HistogramMetricFamily)
        les = (*(str(float(bound)) for bound in bars.bounds), "+Inf")
        family.add_metric(labels, list(zip(les, accumulate(bars.counts), strict=True)), bars.total)

    def all(self) -> list[Metric]:
        return list(self._families.values())
