"""What a vLLM engine is busy with, from the statistics that it sends with every step."""

from __future__ import annotations

from time import monotonic
from typing import Any

from flotilla.core.generation import EngineLoad
from models.recent import FirstTokens


class Gauge:
    """Listens as one of vLLM's stat loggers (`vllm.v1.metrics.loggers.StatLoggerBase`, by its shape: to
    inherit from it would import vLLM before its environment is set)."""

    def __init__(self) -> None:
        self._steps: dict[int, Any] = {}  # the latest statistics by the number of the engine
        self._first_tokens = FirstTokens()

    def of_engine(self, config: Any, number: int) -> Gauge:
        """vLLM makes a logger for each of its engines; this is that of all."""
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if scheduler_stats is not None:
            self._steps[engine_idx] = scheduler_stats
        if iteration_stats is not None and iteration_stats.time_to_first_tokens_iter:
            now = monotonic()
            for seconds in iteration_stats.time_to_first_tokens_iter:
                self._first_tokens.add(now, 1000 * seconds)

    def log_engine_initialized(self) -> None: ...

    def log(self) -> None: ...

    def record_sleep_state(self, *args: Any, **kwargs: Any) -> None: ...

    def load(self, *, unfinished: int, queued_tokens: int, adapters: tuple[str, ...]) -> EngineLoad:
        """`unfinished` are requests as their readers see them. An engine that has gone idle sends no more
        statistics, so the last ones count for no more than that."""
        running = min(unfinished, sum(stats.num_running_reqs for stats in self._steps.values()))
        shares = [stats.kv_cache_usage for stats in self._steps.values()]
        return EngineLoad(
            running=running,
            waiting=unfinished - running,
            queued_tokens=queued_tokens,
            first_token_ms=self._first_tokens.p95(monotonic()),
            cache_used=sum(shares) / len(shares) if shares and unfinished else 0.0,
            adapters=adapters,
        )
