"""What a gateway has refused by itself, and how late its loop is, in Prometheus' families."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.admission import Gate


class GateMetrics(Collector):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterable[Metric]:
        loop = GaugeMetricFamily("flotilla_gateway_loop_seconds", "How late the gateway's loop is, at least.")
        loop.add_metric([], self._gate.loop_s)
        asking = GaugeMetricFamily("flotilla_gateway_asking", "New work that a host has not answered yet.")
        asking.add_metric([], self._gate.shedding.waiting)
        shed = CounterMetricFamily(
            "flotilla_gateway_shed", "New work refused without asking a host, by reason.", labels=("reason",)
        )
        for reason, count in self._gate.counts.items():
            shed.add_metric([reason], count)
        return loop, asking, shed
