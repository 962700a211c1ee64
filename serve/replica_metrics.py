"""Every replica under vLLM's names (vllm/v1/metrics/loggers.py), whatever its engine, so that dashboards made
for vLLM show it. `model_name` is the version that it serves, `engine` the replica."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from actors.serving.meters import FIRST_TOKEN_S, LATENCY_S, TOKEN_S, Meter, ReplicaSaid
from flotilla.core.generation import EngineLoad
from flotilla.core.versions import version_of
from serve.families import Bars, Families

_LABELS = ("model_name", "engine")
# vLLM knows no end by a call of a tool: to it that is a stop like others.
_REASONS = {"tools": "stop"}


class ReplicaMetrics(Collector):
    """`said` is what each replica answered, None for one that didn't."""

    def __init__(self, said: Mapping[str, ReplicaSaid | None]) -> None:
        self._said = said

    def collect(self) -> Iterable[Metric]:
        families, reasons = Families(*_LABELS), Families(*_LABELS, "finished_reason")
        for name, said in self._said.items():
            labels = (said.version if said else version_of(name), name)
            families.gauge("flotilla_replica_up", "Whether it answered in time.", labels, said is not None)
            if said is not None:
                _load(families, labels, said.load)
                _tokens(families, labels, said.meter)
                _times(families, labels, said.meter)
                _ended(reasons, labels, said.meter)
        return [*families.all(), *reasons.all()]


def _load(families: Families, labels: tuple[str, str], load: EngineLoad) -> None:
    gauges = {
        "vllm:num_requests_running": ("Requests that are being answered.", load.running),
        "vllm:num_requests_waiting": ("Requests that wait for their first step.", load.waiting),
        "vllm:kv_cache_usage_perc": ("Share of the KV cache in use, 0 to 1.", load.cache_used),
        "flotilla_replica_queued_tokens": ("Prompt tokens that wait.", load.queued_tokens),
        "flotilla_adapters_loaded": ("Adapters that are loaded.", len(load.adapters)),
    }
    for name, (says, value) in gauges.items():
        families.gauge(name, says, labels, value)


def _tokens(families: Families, labels: tuple[str, str], meter: Meter) -> None:
    counters = {
        "vllm:prompt_tokens": ("Tokens of prompts whose replies are whole.", meter.prompt_tokens),
        "vllm:generation_tokens": ("Tokens that were generated.", meter.generated_tokens),
        "vllm:prefix_cache_queries": ("Prompt tokens looked for in the prefix cache.", meter.prompt_tokens),
        "vllm:prefix_cache_hits": ("Prompt tokens found in the prefix cache.", meter.cached_tokens),
    }
    for name, (says, value) in counters.items():
        families.counter(name, says, labels, value)


def _times(families: Families, labels: tuple[str, str], meter: Meter) -> None:
    first, whole, each = meter.first_token, meter.whole, meter.per_token
    families.histogram(
        "vllm:time_to_first_token_seconds",
        "Time to the first token, by the engine's clock.",
        labels,
        Bars(FIRST_TOKEN_S, first.counts, first.total_s),
    )
    families.histogram(
        "vllm:e2e_request_latency_seconds",
        "Time to the last token, by the engine's clock.",
        labels,
        Bars(LATENCY_S, whole.counts, whole.total_s),
    )
    families.histogram(
        "vllm:request_time_per_output_token_seconds",
        "A reply's time for each token after the first.",
        labels,
        Bars(TOKEN_S, each.counts, each.total_s),
    )


def _ended(families: Families, labels: tuple[str, str], meter: Meter) -> None:
    reasons: Counter[str] = Counter()
    for reason, count in meter.ended.items():
        reasons[_REASONS.get(reason, reason)] += count
    for reason, count in reasons.items():
        families.counter("vllm:request_success", "Replies that are whole.", (*labels, reason), count)
