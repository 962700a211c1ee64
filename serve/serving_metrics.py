"""The way to the models, as each host and this gateway count it, and the swaps under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from actors.serving.standing import Standing
from flotilla.core.versions import Plans
from serve.families import Families


class ServingMetrics(Collector):
    def __init__(self, standings: Mapping[str, Standing], plans: Plans) -> None:
        self._standings = standings
        self._plans = plans

    def collect(self) -> Iterable[Metric]:
        hosts, breakers = Families("host"), Families("model_name", "state")
        swaps = Families("model", "stage")
        for host, standing in self._standings.items():
            _standing(hosts, host, standing)
        for (id, state), count in _states(self._standings.values()).items():
            breakers.gauge("flotilla_breakers", "Processes whose breaker is so.", [id, state], count)
        for model, plan in self._plans.items():
            if plan.stage:
                swaps.gauge("flotilla_swap_under_way", "1 at the stage it is at.", [model, plan.stage], 1)
        return [*hosts.all(), *breakers.all(), *swaps.all()]


def _standing(families: Families, host: str, standing: Standing) -> None:
    families.gauge(
        "flotilla_charges_waiting", "Charges that wait for the ledger.", [host], standing.charges_waiting
    )
    counters = {
        "flotilla_charges_dropped": ("Charges that were lost.", standing.charges_dropped),
        "flotilla_hedges": ("Requests that were asked of two replicas.", standing.hedged),
        "flotilla_fallbacks": ("Replies that another version made.", standing.fell_back),
        "flotilla_shadows_dropped": ("Comparisons left out, being too many.", standing.shadows_dropped),
    }
    for name, (says, value) in counters.items():
        families.counter(name, says, [host], value)


def _states(standings: Iterable[Standing]) -> Counter[tuple[str, str]]:
    return Counter((id, state) for standing in standings for id, state in standing.breakers.items())
