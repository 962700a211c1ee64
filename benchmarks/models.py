"""Tokens a second and first token, through the fleet and from vLLM alone: `python -m benchmarks.models`.

Both get the same prompts (those that the fleet made for its questions), the same weights, settings and
sampling, on the same machine in the same run, in turn: A B A B. "Alone" is vLLM's own `AsyncLLM` in a
process of its own, without anything of ours. The fleet's first token counts from the message that a client
sends, so it has the gateway, the journal and the search in it; what the engine itself needed is shown too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from websockets.asyncio.client import connect

from benchmarks.fleet import OwnFleet
from benchmarks.report import Result, arguments, report
from benchmarks.solo import Solo
from flotilla.core.agents import BANK
from flotilla.core.facts import ReplyStarted
from flotilla.core.generation import Prompt
from flotilla.core.ids import ActorId
from flotilla.core.policy import prompting
from flotilla.stores.postgres import open_journal
from flotilla.views.sessions import recorded

AT_ONCE = (1, 4, 16)
DOCUMENTS = [
    {
        "id": f"cards/{name}",
        "title": f"{name} Card",
        "text": f"The {name} Card costs {cost} dollars a year and gives {back} percent cash back on all purchases. "
        f"Holders of the {name} Card may enter airport lounges {visits} times a year with one guest. "
        f"A lost {name} Card is replaced within {days} working days at no charge, at home and abroad.",
    }
    for name, cost, back, visits, days in (
        ("Blue", 0, 1, 0, 5),
        ("Silver", 45, 2, 1, 4),
        ("Gold", 95, 3, 2, 3),
        ("Platinum", 250, 5, 12, 1),
    )
]
QUESTIONS = [
    f"{what} the {name} Card?"
    for what in (
        "What does it cost to have",
        "How often may I enter lounges with",
        "How long does it take to replace",
        "How much cash back comes with",
    )
    for name in ("Blue", "Silver", "Gold", "Platinum")
]


class Reply(msgspec.Struct, frozen=True):
    """Seconds from the request; `tokens` made."""

    first_s: float
    total_s: float
    tokens: int
    timing: dict[str, float] = {}


async def ask_fleet(fleet: OwnFleet, question: str) -> Reply:
    """A new conversation a question, as customers come."""
    session = await asyncio.to_thread(fleet.session, "bank")
    url = f"{fleet.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws?after=1"
    async with connect(url, additional_headers={"Authorization": "Bearer dev"}) as socket:
        began, first = time.perf_counter(), 0.0
        await socket.send(json.dumps({"type": "message", "id": "m-1", "text": question}))
        async for frame in socket:
            event: dict[str, Any] = json.loads(frame)
            if event["type"] == "reply.delta" and not first:
                first = time.perf_counter() - began
            elif event["type"] == "reply.completed":
                data = event["data"]
                return Reply(
                    first,
                    time.perf_counter() - began,
                    data["usage"]["completion_tokens"],
                    data["timing"],
                )
    raise RuntimeError("The socket closed before the reply was complete.")


async def prompts(fleet: OwnFleet) -> list[tuple[Prompt, int]]:
    """What the fleet asks its model for these questions, from its own record, and the tokens of its replies:
    vLLM alone makes as many."""
    journal = await open_journal(fleet.local.postgres.url, secret=fleet.local.secret("visitors"))
    made: list[tuple[Prompt, int]] = []
    for question in QUESTIONS:
        session = await asyncio.to_thread(fleet.session, "bank")
        reply = await asyncio.to_thread(fleet.ask, session, question)
        stored = await journal.read(ActorId("demo", "session", session))
        facts = [recorded(entry).fact for entry in stored]
        started = next(fact for fact in facts if isinstance(fact, ReplyStarted))
        prompt = prompting.build(
            BANK.persona, started.passages, (), question, tokens_max=BANK.reply_tokens_max
        )
        made.append((prompt, reply["data"]["usage"]["completion_tokens"]))
    await journal.close()
    return made


async def round_of(ask: Any, items: Sequence[Any]) -> tuple[float, list[Reply]]:
    """Tokens a second of all at once, and each reply."""
    began = time.perf_counter()
    replies = await asyncio.gather(*(ask(item) for item in items))
    return sum(r.tokens for r in replies) / (time.perf_counter() - began), list(replies)


async def measure(fleet: OwnFleet, rounds: int) -> list[Result]:
    made = await prompts(fleet)
    solo = await Solo.start(fleet.home / "cache")
    try:
        for item in made:  # the fleet has seen each prompt once by now
            await solo.generate(*item)
        return [result for n in AT_ONCE for result in await _compare(fleet, solo, made, n, rounds)]
    finally:
        await solo.stop()


async def _compare(
    fleet: OwnFleet, solo: Solo, made: list[tuple[Prompt, int]], n: int, rounds: int
) -> list[Result]:
    async def ours(question: str) -> Reply:
        return await ask_fleet(fleet, question)

    async def theirs(item: tuple[Prompt, int]) -> Reply:
        return Reply(*await solo.generate(*item))

    rates: dict[str, list[float]] = {"fleet": [], "alone": []}
    replies: dict[str, list[Reply]] = {"fleet": [], "alone": []}
    for number in range(rounds + 1):
        at = [(number * n + i) % len(QUESTIONS) for i in range(n)]
        for name, ask, items in (
            ("fleet", ours, [QUESTIONS[i] for i in at]),
            ("alone", theirs, [made[i] for i in at]),
        ):
            rate, done = await round_of(ask, items)
            if number:  # the first round warms up
                rates[name].append(rate)
                replies[name] += done
    return _results(n, rates, replies)


def _results(n: int, rates: dict[str, list[float]], replies: dict[str, list[Reply]]) -> list[Result]:
    ratios = [a / b for a, b in zip(rates["fleet"], rates["alone"], strict=True)]
    first = {name: float(np.median([r.first_s for r in of])) * 1000 for name, of in replies.items()}
    ours = replies["fleet"]
    rows = [
        (f"tokens_per_s_ratio_{n}", float(np.median(ratios)), "ratio", "higher", 0.97),
        (f"tokens_per_s_{n}", float(np.median(rates["fleet"])), "tokens/s", "higher", None),
        (f"first_token_added_ms_{n}", first["fleet"] - first["alone"], "ms", "lower", None),
        (f"client_first_token_ms_{n}", first["fleet"], "ms", "lower", None),
        *(
            (f"{hop}_ms_{n}", float(np.median([r.timing[hop] for r in ours])), "ms", "lower", None)
            for hop in ("queued", "retrieval", "prompt", "first_token", "overhead")
        ),
    ]
    peers = {
        f"tokens_per_s_{n}": float(np.median(rates["alone"])),
        f"client_first_token_ms_{n}": first["alone"],
    }
    return [
        Result(
            measure=name,
            value=round(value, 3),
            unit=unit,
            better="higher" if better == "higher" else "lower",
            target=target,
            peer="vllm_alone" if name in peers else None,
            peer_value=round(peers[name], 3) if name in peers else None,
            samples=len(ours),
            spread=round((max(ratios) - min(ratios)) / float(np.median(ratios)), 3)
            if "ratio" in name
            else None,
        )
        for name, value, unit, better, target in rows
    ]


def main() -> None:
    options = arguments("models", "The fleet against vLLM alone.").parse_args()
    fleet = OwnFleet(FLOTILLA_MODEL="smollm2")
    try:
        fleet.up().know("bank", DOCUMENTS)
        results = asyncio.run(measure(fleet, rounds=3 if options.quick else 8))
    finally:
        fleet.down()
    report("models", results, options.json)


if __name__ == "__main__":
    main()
