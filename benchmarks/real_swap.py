"""A swap under load, with vLLM and real weights: `python -m benchmarks.real_swap`.

SmolLM2-135M answers a few customers, who ask one thing after the other. Then it is swapped for the same
weights in 8 bits, beside and back, and in place and back. What is asked: how many replies failed or were cut,
and how late the 99th percentile of the first tokens was in each part of the swap, against the time right
before it in the same run. On two cores the second engine takes the processor's time from the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.fleet import OwnFleet
from benchmarks.operating import Operator, serves, stage
from benchmarks.report import Result, arguments, report
from benchmarks.solo import Asked
from benchmarks.talking import Said, Talk, talking
from models.variants import squeezed
from models.weights import prepare

MODEL = "smollm2"
CUSTOMERS = 4
TOKENS = 32
STEADY_S, QUICK_STEADY_S = 90.0, 45.0
HOLD_S, QUICK_HOLD_S = 15.0, 6.0
TIMEOUT_S = 400.0
STEPS = (5.0, 25.0, 50.0)
# On a machine of two cores the engines share the processor: this is about what customers notice, not about budgets.
BUDGETS = {"first_token_ratio_max": 1000.0}
QUESTIONS = [
    Asked(messages=[{"role": "user", "content": text}], tokens_max=TOKENS)
    for text in (
        "What does a bank do?",
        "Tell me about the sea.",
        "How do I bake bread?",
        "What is a good name for a cat?",
        "Why is the sky blue?",
        "Write a line about autumn.",
        "What should I see in Rome?",
        "How does a bicycle stay upright?",
    )
]

Spans = dict[str, tuple[float, float]]
"""When each part began and ended (`time.monotonic`)."""


async def measure(fleet: OwnFleet, steady_s: float, hold_s: float) -> list[Result]:
    operator = Operator(fleet.url, MODEL)
    await operator.add("2", source=str(squeezed(prepare(fleet.home / "cache"))), note="8 bits a weight")
    spans: Spans = {}
    async with talking(fleet.url, MODEL, QUESTIONS, CUSTOMERS) as talk:
        await talk.until_more(4 * CUSTOMERS)  # warm
        await _beside(operator, spans, steady_s, hold_s)
        await _back(operator, spans)
        await _in_place(operator, spans, steady_s, hold_s)
    await operator.close()
    return _all(talk, spans)


async def _beside(operator: Operator, spans: Spans, steady_s: float, hold_s: float) -> None:
    await _steady("steady", spans, steady_s)
    steps = [{"canary": {"percent": percent}, "hold_s": hold_s} for percent in STEPS]
    began = time.monotonic()
    await operator.swap("2", steps=steps, budgets=BUDGETS, keep_s=3600)
    await operator.until(lambda view: stage(view) == "canary", TIMEOUT_S)
    loaded = time.monotonic()
    await operator.until(lambda view: stage(view) == "promoted", TIMEOUT_S)
    promoted = time.monotonic()
    await asyncio.sleep(hold_s)
    spans["loading"] = began, loaded
    spans["canary"] = loaded, promoted
    spans["promoted"] = promoted, time.monotonic()
    spans["beside"] = began, time.monotonic()


async def _back(operator: Operator, spans: Spans) -> None:
    began = time.monotonic()
    await operator.steer("rollback")
    await operator.until(lambda view: view["serving"]["stable"].endswith("@1"), TIMEOUT_S)
    await operator.until(lambda view: not view["swap"] and not serves(view, "2"), TIMEOUT_S)
    spans["back"] = began, time.monotonic()


async def _in_place(operator: Operator, spans: Spans, steady_s: float, hold_s: float) -> None:
    await _steady("steady_2", spans, steady_s)
    for to, name in (("2", "in_place"), ("1", "in_place_again")):
        began = time.monotonic()
        await operator.swap(to, in_place=True, budgets=BUDGETS, keep_s=1)
        await operator.until(lambda view, to=to: not view["swap"] and serves(view, to), TIMEOUT_S)
        await asyncio.sleep(hold_s)
        spans[name] = began, time.monotonic()


async def _steady(name: str, spans: Spans, seconds: float) -> None:
    began = time.monotonic()
    await asyncio.sleep(seconds)
    spans[name] = began, time.monotonic()


# -- what came of it


def firsts(said: Sequence[Said]) -> list[float]:
    return [1000 * one.answer.reply.first_s for one in said if one.answer]


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99)) if values else float("nan")


def _all(talk: Talk, spans: Spans) -> list[Result]:
    failed = [one for one in talk.said if one.problem and not one.cut]
    cut = [one for one in talk.said if one.cut]
    for one in (*failed, *cut):
        print(one.problem)
    texts = {(one.question, one.answer.version, one.answer.reply.text) for one in talk.said if one.answer}
    results = [
        Result(
            measure="failed_replies",
            value=len(failed),
            unit="",
            better="lower",
            target=0,
            samples=len(talk.said),
        ),
        Result(
            measure="cut_replies", value=len(cut), unit="", better="lower", target=0, samples=len(talk.said)
        ),
        # One for each question and version, if nothing depended on who else was asking.
        Result(
            measure="different_texts", value=len(texts), unit="", better="lower", samples=2 * len(QUESTIONS)
        ),
    ]
    before = {"steady": "steady", "in_place": "steady_2", "in_place_again": "steady_2"}
    for name, span in spans.items():
        print(_slowest_second(name, talk.between(*span), span[0]))
        results += _part(name, talk.between(*span), talk.between(*spans[before.get(name, "steady")]), span)
    return results


def _slowest_second(name: str, said: Sequence[Said], began: float) -> str:
    """Whether a percentile is that of the whole part, or of one moment in it."""
    seconds: dict[int, list[Said]] = {}
    for one in said:
        seconds.setdefault(int(one.at - began), []).append(one)
    worst = max(seconds, key=lambda second: max(firsts(seconds[second]), default=0.0), default=None)
    if worst is None:
        return f"{name}: nobody asked"
    others = [one for second, asked in seconds.items() if second != worst for one in asked]
    slowest = max(firsts(seconds[worst]), default=float("nan"))
    return f"{name}: second {worst} was the slowest, {slowest:.0f} ms; p99 of the others {_p99(firsts(others)):.0f} ms"


def _part(name: str, said: Sequence[Said], steady: Sequence[Said], span: tuple[float, float]) -> list[Result]:
    mine, theirs = firsts(said), firsts(steady)
    if not mine or not theirs:
        return []
    tokens = sum(one.answer.reply.tokens for one in said if one.answer)
    targeted = name in ("beside", "in_place", "in_place_again")
    rows = [
        (f"{name}_first_token_p99_ratio", _p99(mine) / _p99(theirs), "ratio", 1.2 if targeted else None),
        (f"{name}_first_token_p99_ms", _p99(mine), "ms", None),
        (f"{name}_first_token_p50_ms", float(np.median(mine)), "ms", None),
        (f"{name}_s", span[1] - span[0], "s", None),
        (f"{name}_ms_per_token", 1000 * (span[1] - span[0]) / max(1, tokens), "ms", None),
    ]
    return [
        Result(measure=m, value=round(v, 3), unit=unit, better="lower", target=target, samples=len(mine))
        for m, v, unit, target in rows
    ]


def main() -> None:
    options = arguments("real_swap", "A swap under load, with vLLM.").parse_args()
    times = (QUICK_STEADY_S, QUICK_HOLD_S) if options.quick else (STEADY_S, HOLD_S)
    fleet = OwnFleet(FLOTILLA_MODEL=MODEL)
    try:
        fleet.up()
        results = asyncio.run(measure(fleet, *times))
    finally:
        fleet.down()
    report("real_swap", results, options.json)


if __name__ == "__main__":
    main()
