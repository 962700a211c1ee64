"""What becomes of the turns that are answered in time when three times as many come as the fleet can answer?

    python -m benchmarks.overload [--quick] [--json FILE]

A fleet of its own with the scripted model, and an open loop of Poisson arrivals over many open WebSockets: the
rate rises by steps until less than 95 % of the turns have their first words within a second. The knee is the
best goodput of all steps. Then one, two and three times the knee, a few rounds in turn, so that what else the
machine does meets all alike. Beside the flood a quiet tenant with a turn every second, first alone.
The peer is the same fleet with FLOTILLA_QUEUE_TARGET_S=0: it refuses nothing.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import uvloop

from benchmarks.crowd import DOCUMENTS, QUESTION
from benchmarks.fleet import OwnFleet
from benchmarks.overload_crowd import Crowd, Heard, Turn, arrivals, played
from benchmarks.report import Result, arguments, report

SLO_S = 1.0
CONVERSATIONS = 1_200
QUIET_CONVERSATIONS = 20
QUIET_PER_S = 1.0
FIRST_PER_S, STEP = 20.0, 1.4
KEPT_UP = 0.95
BEHIND_MAX = 2
QUIET_KEY = "quiet-tenant-of-overload"
SETTINGS = {
    "FLOTILLA_SCRIPTED_TOKEN_S": "0.01",
    "FLOTILLA_TRACES": "none",
    "FLOTILLA_API_KEYS": f"quiet:{QUIET_KEY}",
}


def main() -> None:
    options = arguments("overload", __doc__ or "").parse_args()
    rounds, seconds = (1, 5.0) if options.quick else (3, 10.0)
    shedding = uvloop.run(_measured(rounds, seconds))
    plain = uvloop.run(_measured(1, seconds, knee=shedding.knee, FLOTILLA_QUEUE_TARGET_S="0"))
    report("overload", results(shedding, plain), options.json)


class Measured:
    """`spans`: what was heard at each multiple of the knee, a round after the other."""

    def __init__(self, knee: float) -> None:
        self.knee = knee
        self.spans: dict[float, list[Heard]] = {1.0: [], 2.0: [], 3.0: []}
        self.quiet_alone: Heard = Heard([], 0, 1.0)

    def goodput(self, times: float, tenant: str = "demo") -> float:
        return statistics.median(heard.of(tenant).goodput(SLO_S) for heard in self.spans[times])

    def share(self, times: float) -> float:
        """Of the goodput at the knee, in the same round."""
        pairs = zip(self.spans[times], self.spans[1.0], strict=True)
        return statistics.median(a.goodput(SLO_S) / b.goodput(SLO_S) for a, b in pairs)

    def all(self, times: float) -> Heard:
        spans = self.spans[times]
        return Heard([turn for heard in spans for turn in heard.turns], 0, sum(s.seconds for s in spans))


async def _measured(rounds: int, seconds: float, knee: float = 0.0, **settings: str) -> Measured:
    fleet = OwnFleet(**SETTINGS, **settings)
    crowds: list[Crowd] = []
    try:
        fleet.up()  # on this loop, which has nothing else to do: in a thread it would outlive a Ctrl-C
        fleet.know("bank", DOCUMENTS)
        demo = Crowd(fleet, "demo", "dev", QUESTION)
        quiet = Crowd(fleet, "quiet", QUIET_KEY, QUESTION)
        crowds = [demo, quiet]
        await demo.open(CONVERSATIONS, "bank")
        await quiet.open(QUIET_CONVERSATIONS, "bank")
        measured = Measured(knee or await _knee(demo, seconds))
        measured.quiet_alone = await played(quiet.ask, arrivals(random.Random(0), QUIET_PER_S, seconds))
        for number in range(rounds):
            for times, spans in measured.spans.items():
                spans.append(await _span(demo, quiet, times * measured.knee, seconds, number))
                print(f"{times:g} × {measured.knee:.0f}/s: {spans[-1]!r}", flush=True)
        return measured
    finally:
        for crowd in crowds:
            crowd.close()
        fleet.down()


async def _knee(crowd: Crowd, seconds: float) -> float:
    """The best of all steps, up to the second in a row at which it didn't keep up: one may be the machine's."""
    best, rate, behind = 0.0, FIRST_PER_S, 0
    while behind < BEHIND_MAX:
        heard = await played(crowd.ask, arrivals(random.Random(rate), rate, seconds))
        print(f"{rate:.0f}/s: {heard!r}", flush=True)
        best = max(best, heard.goodput(SLO_S))
        kept_up = heard.good(SLO_S) >= KEPT_UP * (len(heard.turns) + heard.missed)
        behind = 0 if kept_up else behind + 1
        rate *= STEP
    return best


async def _span(demo: Crowd, quiet: Crowd, rate: float, seconds: float, number: int) -> Heard:
    """The quiet tenant's turns come in between."""
    chance = random.Random(f"{number} {rate}")
    plan = dict.fromkeys(arrivals(chance, rate, seconds), demo)
    plan |= dict.fromkeys(arrivals(chance, QUIET_PER_S, seconds), quiet)
    times = sorted(plan)
    crowds = iter([plan[at] for at in times])

    def ask(intended: float) -> Turn | None:
        return next(crowds).ask(intended)

    return await played(ask, times)


def results(shedding: Measured, plain: Measured) -> Sequence[Result]:
    thrice = shedding.all(3.0)
    refusals = thrice.refusals
    told = [refusal.get("retry_after_s") for refusal in refusals]
    quiet, alone = thrice.of("quiet"), shedding.quiet_alone
    return [
        Result(measure="knee_turns_per_s", value=shedding.knee, unit="/s", better="higher"),
        *(_share(shedding, plain, times) for times in (2.0, 3.0)),
        _share_of_refusals(told),
        _result("first_words_p95_at_3_knees_ms", thrice.first_ms(95), "ms", plain.all(3.0).first_ms(95)),
        _result("quiet_first_words_p95_ms", quiet.first_ms(95), "ms", plain.all(3.0).of("quiet").first_ms(95)),
        _result("quiet_first_words_p95_alone_ms", alone.first_ms(95), "ms"),
        Result(
            measure="quiet_refused", value=len(quiet.refusals), unit="turns", better="lower", target=0,
            samples=len(quiet.turns),
        ),
        _result("generator_late_p99_ms", thrice.generator_lag_ms, "ms"),
    ]  # fmt: skip


def _share(shedding: Measured, plain: Measured, times: float) -> Result:
    return Result(
        measure=f"goodput_at_{times:g}_knees",
        value=shedding.share(times),
        unit="of the knee's",
        better="higher",
        target=0.9,
        peer="refusing nothing",
        peer_value=plain.goodput(times) / shedding.goodput(1.0),
        samples=len(shedding.spans[times]),
    )


def _share_of_refusals(told: Sequence[float | None]) -> Result:
    share = sum(bool(seconds) for seconds in told) / len(told) if told else 1.0
    return Result(
        measure="refusals_with_retry_after",
        value=share,
        unit="share",
        better="higher",
        target=1.0,
        samples=len(told),
    )


def _result(measure: str, value: float, unit: str, peer: float | None = None) -> Result:
    return Result(
        measure=measure,
        value=value,
        unit=unit,
        better="lower",
        peer="refusing nothing" if peer is not None else None,
        peer_value=peer,
    )


if __name__ == "__main__":
    main()
