"""The replies of each version under OpenTelemetry's names for generative AI, as Prometheus writes them, from
what all hosts and gateways have counted; and what has no name there, under ours.

The buckets are those of the conventions. Times are counted in buckets of our own, which grow by a tenth
each, so a bound is right within 5 %.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from flotilla.core.tallies import SHADOW, Tallies, Tally, middle
from flotilla.core.versions import Version
from serve.families import Bars, Families

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
DURATION_S = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))
# The providers that the conventions know by name; what runs here is ours.
_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "google": "gcp.gemini"}
_LABELS = (
    "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model",
)  # fmt: skip


class GenAiMetrics(Collector):
    """`known` finds a version; a series each, of those that are in plans."""

    def __init__(self, tallies: Tallies, known: Callable[[str], Version | None]) -> None:
        self._tallies = tallies
        self._known = known

    def collect(self) -> Iterable[Metric]:
        times, tokens = Families(*_LABELS), Families(*_LABELS, "gen_ai_token_type")
        ours = Families("model_name")
        for id, tally in self._tallies.items():
            if id.startswith(SHADOW):
                _shadow(ours, id.removeprefix(SHADOW), tally)
            elif version := self._known(id):
                labels = ("chat", _PROVIDERS.get(version.engine, "flotilla"), version.model, id)
                _times(times, labels, tally)
                _tokens(tokens, labels, tally)
                _ours(ours, id, tally)
        return [*times.all(), *tokens.all(), *ours.all()]


def _times(families: Families, labels: tuple[str, ...], tally: Tally) -> None:
    families.histogram(
        "gen_ai_server_time_to_first_token_seconds",
        "Time to the first token, of replies that are whole.",
        labels,
        Bars(FIRST_TOKEN_S, _in(FIRST_TOKEN_S, tally.first_token), tally.first_seconds),
    )
    families.histogram(
        "gen_ai_client_operation_duration_seconds",
        "Time to the end, of replies that are whole.",
        labels,
        Bars(DURATION_S, _in(DURATION_S, tally.lasted), tally.seconds),
    )


def _tokens(families: Families, labels: tuple[str, ...], tally: Tally) -> None:
    kinds = {
        "input": (tally.prompts, tally.prompt_tokens),
        "output": (tally.completions, tally.tokens),
    }
    for kind, (sizes, total) in kinds.items():
        counts = [*(sizes.get(n, 0) for n in range(len(TOKENS))), _more_than(sizes, len(TOKENS))]
        says = "Tokens of replies that are whole."
        families.histogram("gen_ai_client_token_usage", says, (*labels, kind), Bars(TOKENS, counts, total))


def _more_than(sizes: Mapping[int, int], most: int) -> int:
    return sum(count for size, count in sizes.items() if size >= most)


def _in(bounds: tuple[float, ...], buckets: Mapping[int, int]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    for at, count in buckets.items():
        counts[bisect_left(bounds, middle(at) / 1000)] += count
    return counts


def _ours(families: Families, id: str, tally: Tally) -> None:
    families.gauge("flotilla_replies_running", "Replies that are being made.", [id], tally.running)
    families.gauge("flotilla_tasks_held", "Tasks that go on with the version.", [id], tally.held)
    families.counter("flotilla_replies", "Replies that are whole.", [id], tally.replies)
    families.counter("flotilla_replies_failed", "Replies that failed at it.", [id], tally.errors)


def _shadow(families: Families, id: str, tally: Tally) -> None:
    families.counter("flotilla_shadow_replies", "Replies made for comparison.", [id], tally.replies)
    families.counter("flotilla_shadow_failed", "Replies for comparison that failed.", [id], tally.errors)
    families.counter("flotilla_shadow_likeness", "Sum of how alike they were, 0 to 1.", [id], tally.quality)
