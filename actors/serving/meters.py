"""What a replica counts of its engine's work: the same for every engine, in vLLM's terms and buckets."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from flotilla.core.generation import EngineLoad, Finished, Generated

# Upper bounds in seconds: vLLM's own (vllm/v1/metrics/buckets.py), so that its dashboards read them.
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
LATENCY_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip


class Spread(msgspec.Struct):
    """`counts[n]` of the observations were at most the nth bound and more than the one before it; the last
    of them more than all bounds. Which bounds, its owner says."""

    counts: list[int]
    total_s: float = 0.0

    def observe(self, bounds: tuple[float, ...], seconds: float) -> None:
        self.counts[bisect_left(bounds, seconds)] += 1
        self.total_s += seconds


def _spread(bounds: tuple[float, ...]) -> Spread:
    return Spread([0] * (len(bounds) + 1))


class Meter(msgspec.Struct):
    """Since the process began, of one version. `cached_tokens` are those of `prompt_tokens` that the engine
    had in its prefix cache; `ended` counts the replies by the reason that they ended for. Of a reply that was
    cancelled only its tokens are known."""

    generated_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ended: dict[str, int] = {}
    first_token: Spread = msgspec.field(default_factory=lambda: _spread(FIRST_TOKEN_S))
    whole: Spread = msgspec.field(default_factory=lambda: _spread(LATENCY_S))
    per_token: Spread = msgspec.field(default_factory=lambda: _spread(TOKEN_S))

    def finished(self, end: Finished, told: int) -> None:
        """A reply is whole; `told` of its tokens were counted as they came."""
        self.generated_tokens += max(0, end.usage.completion_tokens - told)
        self.prompt_tokens += end.usage.prompt_tokens
        self.cached_tokens += end.usage.cached_tokens
        self.ended[end.reason] = self.ended.get(end.reason, 0) + 1
        self.first_token.observe(FIRST_TOKEN_S, end.first_token_ms / 1000)
        self.whole.observe(LATENCY_S, end.total_ms / 1000)
        if end.usage.completion_tokens > 1:
            making_s = max(0.0, end.total_ms - end.first_token_ms) / 1000
            self.per_token.observe(TOKEN_S, making_s / (end.usage.completion_tokens - 1))


class Making:
    """A reply while it is made: its first piece and its end say which version made it, all of it counts."""

    __slots__ = ("_by", "_meter", "_told")

    def __init__(self, meter: Meter, *, by: str) -> None:
        self._meter = meter
        self._by = by
        self._told = 0

    def counted(self, part: Generated) -> Generated:
        if isinstance(part, Finished):
            self._meter.finished(part, self._told)
            return msgspec.structs.replace(part, model=self._by)
        first = not self._told
        self._told += part.tokens
        self._meter.generated_tokens += part.tokens
        return msgspec.structs.replace(part, model=self._by) if first else part


class ReplicaSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "metrics"."""

    version: str
    load: EngineLoad
    meter: Meter


class Meters:
    """By the version that was served."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def __repr__(self) -> str:
        return f"<Meters of {', '.join(self._meters)}>"

    def of(self, version: str) -> Meter:
        return self._meters.setdefault(version, Meter())

    def said(self, version: str, load: EngineLoad) -> ReplicaSaid:
        return ReplicaSaid(version=version, load=load, meter=self.of(version))
