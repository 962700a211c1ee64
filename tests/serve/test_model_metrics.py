"""What Prometheus is told of models: vLLM's names, OpenTelemetry's, and sums that never fall."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from actors.serving.gauging import Tallied
from actors.serving.meters import Meter, ReplicaSaid
from actors.serving.standing import Standing
from flotilla.core.errors import Unavailable
from flotilla.core.generation import EngineLoad, Finished, Usage
from flotilla.core.tallies import SHADOW, Tallies, Tally, bucket, size
from flotilla.core.versions import Plan, Version
from serve.genai_metrics import GenAiMetrics
from serve.replica_metrics import ReplicaMetrics
from serve.serving_metrics import ServingMetrics
from tests.actors.membership import LOG

ONE = Version(model="m", name="1", engine="scripted")
CLAUDE = Version(model="m", name="2", engine="anthropic")
VERSIONS = {ONE.id: ONE, CLAUDE.id: CLAUDE}


class Read:
    """The samples of what was written, parsed as Prometheus does."""

    def __init__(self, *collectors: Collector) -> None:
        text = "".join(generate_latest(one).decode() for one in collectors)  # type: ignore[arg-type]
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples: list[Any] = [s for family in self.families.values() for s in family.samples]

    def value(self, name: str, **labels: str) -> float:
        (found,) = (s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())
        return found


def told(
    first_ms: float = 30.0, total_ms: float = 1030.0, tokens: int = 11, reason: Any = "stop"
) -> Finished:
    usage = Usage(prompt_tokens=100, completion_tokens=tokens, cached_tokens=64)
    return Finished(reason=reason, usage=usage, first_token_ms=first_ms, total_ms=total_ms)


def test_a_replica_of_any_engine_has_vllms_names() -> None:
    meter = Meter(generated_tokens=11)
    meter.finished(told(), 11)
    meter.finished(told(tokens=5, reason="tools"), 0)  # its calls came with the end
    load = EngineLoad(running=2, waiting=3, queued_tokens=40, cache_used=0.25, adapters=("m@a", "m@b"))
    read = Read(ReplicaMetrics({"m@1.7": ReplicaSaid(version="m@2", load=load, meter=meter), "m@1.8": None}))
    of = {"model_name": "m@2", "engine": "m@1.7"}
    assert {
        name: read.value(name, **of)
        for name in (
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
            "vllm:prompt_tokens_total",
            "vllm:generation_tokens_total",
            "vllm:prefix_cache_queries_total",
            "vllm:prefix_cache_hits_total",
            "flotilla_adapters_loaded",
        )
    } == {
        "vllm:num_requests_running": 2,
        "vllm:num_requests_waiting": 3,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:prompt_tokens_total": 200,
        "vllm:generation_tokens_total": 16,
        "vllm:prefix_cache_queries_total": 200,
        "vllm:prefix_cache_hits_total": 128,
        "flotilla_adapters_loaded": 2,
    }
    assert read.value("vllm:request_success_total", **of, finished_reason="stop") == 2
    first = "vllm:time_to_first_token_seconds"
    assert [read.value(f"{first}_bucket", **of, le=le) for le in ("0.02", "0.04", "+Inf")] == [0, 2, 2]
    assert read.value(f"{first}_sum", **of) == pytest.approx(0.06)
    assert read.value("vllm:e2e_request_latency_seconds_bucket", **of, le="1.5") == 2
    each = "vllm:request_time_per_output_token_seconds"
    assert read.value(f"{each}_sum", **of) == pytest.approx(1.0 / 10 + 1.0 / 4)
    assert read.value("flotilla_replica_up", engine="m@1.7") == 1
    assert read.value("flotilla_replica_up", model_name="m@1", engine="m@1.8") == 0


def test_names_are_those_of_the_vllm_that_is_installed() -> None:
    found = find_spec("vllm")
    assert found is not None and found.origin is not None
    source = (Path(found.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    load = EngineLoad()
    meter = Meter()
    meter.finished(told(), 0)
    read = Read(ReplicaMetrics({"m@1.1": ReplicaSaid(version="m@1", load=load, meter=meter)}))
    theirs = [name for name in read.families if name.startswith("vllm:")]
    assert len(theirs) == 11
    assert [name for name in theirs if f'name="{name}"' not in source] == []


def test_replies_have_opentelemetrys_names_by_version() -> None:
    tally, shadow = Tally(running=1, errors=2), Tally()
    tally.reply(30.0, tokens=17, seconds=2.0, prompt_tokens=300)
    tally.reply(800.0, tokens=1, seconds=200.0, prompt_tokens=4)
    shadow.reply(10.0, tokens=3, seconds=0.1)
    shadow.score(0.75)
    read = Read(GenAiMetrics({"m@1": tally, SHADOW + "m@2": shadow}, VERSIONS.get))
    of = {"gen_ai_request_model": "m", "gen_ai_response_model": "m@1", "gen_ai_provider_name": "flotilla"}
    usage = "gen_ai_client_token_usage"
    counted = [
        read.value(f"{usage}_bucket", **of, gen_ai_token_type="input", le=le)
        for le in ("1.0", "4.0", "256.0")
    ]
    assert counted == [0, 1, 1]
    assert read.value(f"{usage}_sum", **of, gen_ai_token_type="input") == 304
    assert read.value(f"{usage}_sum", **of, gen_ai_token_type="output") == 18
    assert read.value(f"{usage}_bucket", **of, gen_ai_token_type="output", le="64.0") == 2
    first, lasted = "gen_ai_server_time_to_first_token_seconds", "gen_ai_client_operation_duration_seconds"
    assert [read.value(f"{first}_bucket", **of, le=le) for le in ("0.02", "0.04", "0.75", "1.0")] == [
        0,
        1,
        1,
        2,
    ]
    assert read.value(f"{first}_sum", **of) == pytest.approx(0.83)
    assert [read.value(f"{lasted}_bucket", **of, le=le) for le in ("1.28", "2.56", "81.92", "+Inf")] == [
        0,
        1,
        1,
        2,
    ]
    assert read.value(f"{lasted}_count", **of) == 2 and read.value(f"{lasted}_sum", **of) == 202
    assert read.value("flotilla_replies_failed_total", model_name="m@1") == 2
    assert read.value("flotilla_shadow_replies_total", model_name="m@2") == 1
    assert read.value("flotilla_shadow_likeness_total", model_name="m@2") == 0.75


def test_a_hosted_version_is_its_providers() -> None:
    read = Read(GenAiMetrics({"m@2": Tally(replies=1), "gone@1": Tally(replies=1)}, VERSIONS.get))
    samples = read.families["gen_ai_client_token_usage"].samples
    assert {s.labels["gen_ai_provider_name"] for s in samples} == {"anthropic"}
    assert {s.labels["gen_ai_response_model"] for s in samples} == {"m@2"}


def test_ways_to_the_models_and_swaps_under_way() -> None:
    standings = {
        "host-0": Standing(charges_dropped=3, hedged=2, breakers={"m@1": "open", "m@2": "closed"}),
        "gateway": Standing(fell_back=1, shadows_dropped=4, breakers={"m@1": "open"}),
    }
    plans = {"m": Plan(model="m", revision=3, stage="canary"), "n": Plan(model="n", revision=1)}
    read = Read(ServingMetrics(standings, plans))
    assert read.value("flotilla_charges_dropped_total", host="host-0") == 3
    assert read.value("flotilla_hedges_total", host="host-0") == 2
    assert read.value("flotilla_fallbacks_total", host="gateway") == 1
    assert read.value("flotilla_shadows_dropped_total", host="gateway") == 4
    assert read.value("flotilla_breakers", model_name="m@1", state="open") == 2
    assert read.value("flotilla_breakers", model_name="m@2", state="closed") == 1
    (under_way,) = read.families["flotilla_swap_under_way"].samples
    assert under_way.labels == {"model": "m", "stage": "canary"} and under_way.value == 1


@pytest.mark.parametrize(
    ("tokens", "n"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (16, 2), (17, 3), (4**13, 13)]
)
def test_a_size_is_the_least_power_of_four_that_holds_it(tokens: int, n: int) -> None:
    assert size(tokens) == n


def test_all_that_is_counted_can_be_added_and_taken_off() -> None:
    one, other = Tally(), Tally()
    one.reply(10.0, tokens=5, seconds=1.0, prompt_tokens=9)
    other.add(one)
    other.reply(20.0, tokens=50, seconds=3.0, prompt_tokens=90)
    other.add(one, times=-1)
    assert (other.replies, other.tokens, other.prompt_tokens, other.seconds) == (1, 50, 90, 3.0)
    assert other.first_seconds == pytest.approx(0.02)
    assert {at: n for at, n in other.lasted.items() if n} == {bucket(3000.0): 1}
    assert (
        {at: n for at, n in other.prompts.items() if n},
        {at: n for at, n in other.completions.items() if n},
    ) == (
        {4: 1},
        {3: 1},
    )


# -- sums that never fall


class Board:
    """A board whose pages a test writes."""

    def __init__(self) -> None:
        self.hung: dict[str, Tallies] = {}
        self.down = False

    async def post(self, process: str, tallies: Tallies) -> None:
        self.hung[process] = tallies

    async def pages(self) -> dict[str, Tallies]:
        if self.down:
            raise Unavailable("The board is down.")
        return dict(self.hung)


def pages(replies: Iterable[tuple[str, int]]) -> dict[str, Tallies]:
    return {process: {"m@1": Tally(replies=count, running=1)} for process, count in replies}


async def test_a_process_that_ends_takes_nothing_away() -> None:
    board = Board()
    tallied = Tallied(board, LOG)
    board.hung = pages([("a", 10), ("b", 5)])
    both = (await tallied.read(VERSIONS))["m@1"]
    assert (both.replies, both.running) == (15, 2)
    board.hung = pages([("b", 6)])
    left = (await tallied.read(VERSIONS))["m@1"]
    assert (left.replies, left.running) == (16, 1)
    board.hung = pages([("a", 11), ("b", 6)])  # it was only silent
    assert (await tallied.read(VERSIONS))["m@1"].replies == 17
    board.down = True
    assert (await tallied.read(VERSIONS))["m@1"].replies == 17
    assert await tallied.read({"other@1"}) == {}


async def test_thousands_of_ended_processes_are_kept_as_one_sum() -> None:
    board = Board()
    tallied = Tallied(board, LOG)
    for number in range(12):
        board.hung = pages((f"p{number}-{n}", 1) for n in range(200))
        await tallied.read(VERSIONS)
    assert (await tallied.read(VERSIONS))["m@1"].replies == 12 * 200
    assert repr(tallied) == "<Tallied: 1200 processes, 1 versions of others>"
