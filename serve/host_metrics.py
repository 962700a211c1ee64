"""What the hosts count, in Prometheus' families. docs/operating.md says what each is good for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from actors.inspection import KindStatus, Status
from actors.timing import BOUNDS_S, Histogram

_COUNTS = {
    "messages": "Signals that actors have handled, from outside and of their own work.",
    "facts": "Facts that were appended to the journal.",
    "activations": "Actors that were woken from their journals.",
    "passivations": "Actors that were put to sleep, moved or lost.",
    "crashes": "Times that a message broke its actor.",
    "letters": "Messages that were set aside after breaking their actor each time.",
    "refused": "Messages that were refused or came too late.",
}
_TIMES: dict[str, tuple[str, Callable[[KindStatus], Histogram]]] = {
    "turn_seconds": ("How long an actor was busy with a message, its appends included.", lambda k: k.turns),
    "wait_seconds": ("How long a message waited in the mailbox.", lambda k: k.waits),
    "activation_seconds": ("How long it took to fold an actor's journal.", lambda k: k.activations),
}
_BY_KIND, _BY_HOST = ("host", "kind"), ("host",)


class HostMetrics(Collector):
    """`said` is what each host answered, None for one that didn't."""

    def __init__(self, said: Mapping[str, Status | None]) -> None:
        self._said = said
        self._known = {host: status for host, status in said.items() if status is not None}

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("flotilla_host_up", "Whether the host answered in time.", labels=_BY_HOST)
        for host, status in self._said.items():
            up.add_metric([host], float(status is not None))
        return [up, *self._hosts(), *self._alarms(), *self._waits(), *self._kinds(), *self._times()]

    def _hosts(self) -> Iterable[Metric]:
        lost = CounterMetricFamily(
            "flotilla_tells_lost", "Messages told to actors that could not be sent.", labels=_BY_HOST
        )
        for host, status in self._known.items():
            lost.add_metric([host], status.tells_lost)
        return [
            self._gauge("flotilla_host_activations", "Actors awake.", lambda s: s.activations),
            self._gauge("flotilla_host_ready", "Actors that have something to do.", lambda s: s.ready),
            self._gauge("flotilla_host_links", "Links to other processes that are up.", lambda s: s.links),
            self._gauge("flotilla_host_draining", "Whether it lets go of its actors.", lambda s: s.draining),
            lost,
        ]

    def _gauge(self, name: str, says: str, of: Callable[[Status], float]) -> Metric:
        gauge = GaugeMetricFamily(name, says, labels=_BY_HOST)
        for host, status in self._known.items():
            gauge.add_metric([host], of(status))
        return gauge

    def _alarms(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily(
            "flotilla_reminder_lag_seconds", "How late the latest reminder is.", labels=_BY_HOST
        )
        failing = GaugeMetricFamily(
            "flotilla_reminders_failing", "Reminders whose actors can't take them.", labels=_BY_HOST
        )
        delivered = CounterMetricFamily(
            "flotilla_reminders_delivered", "Reminders that their actors have handled.", labels=_BY_HOST
        )
        for host, status in self._known.items():
            if alarm := status.alarm:
                lag.add_metric([host], alarm.lag_s)
                failing.add_metric([host], alarm.failing)
                delivered.add_metric([host], alarm.delivered)
        return lag, failing, delivered

    def _waits(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily(
            "flotilla_new_work_waiting", "New work that has nothing to show yet.", labels=_BY_HOST
        )
        limit = GaugeMetricFamily(
            "flotilla_new_work_limit", "How much new work may wait before more is refused.", labels=_BY_HOST
        )
        standing = GaugeMetricFamily(
            "flotilla_queue_standing_seconds",
            "The smallest wait at a queue lately.",
            labels=("host", "queue"),
        )
        shed = CounterMetricFamily(
            "flotilla_shed", "New work refused, by the queue that stood.", labels=("host", "reason")
        )
        for host, status in self._known.items():
            if waits := status.waits:
                waiting.add_metric([host], waits.waiting)
                limit.add_metric([host], waits.limit)
                for queue, seconds in waits.standing_s.items():
                    standing.add_metric([host, queue], seconds)
                for reason, count in waits.refused.items():
                    shed.add_metric([host, reason], count)
        return waiting, limit, standing, shed

    def _kinds(self) -> Iterable[Metric]:
        active = GaugeMetricFamily("flotilla_actors_awake", "Actors awake, by kind.", labels=_BY_KIND)
        counters = [
            CounterMetricFamily(f"flotilla_actor_{name}", says, labels=_BY_KIND)
            for name, says in _COUNTS.items()
        ]
        for host, kind, status in self._each_kind():
            active.add_metric([host, kind], status.active)
            for name, counter in zip(_COUNTS, counters, strict=True):
                counter.add_metric([host, kind], status.counts.get(name, 0))
        return [active, *counters]

    def _times(self) -> Iterable[Metric]:
        for name, (says, of) in _TIMES.items():
            family = HistogramMetricFamily(f"flotilla_actor_{name}", says, labels=_BY_KIND)
            for host, kind, status in self._each_kind():
                family.add_metric([host, kind], _buckets(of(status)), of(status).total_s)
            yield family

    def _each_kind(self) -> Iterable[tuple[str, str, KindStatus]]:
        return ((h, kind, status) for h, s in self._known.items() for kind, status in s.kinds.items())


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    found: list[tuple[str, float]] = []
    so_far = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), histogram.counts, strict=True):
        so_far += count
        found.append((bound, so_far))
    return found
