"""How much of a prompt is still in a replica's cache, and at what skew? `python -m benchmarks.affinity`.

Conversations of several turns (thinking 5.2 s in the median, most short and a few long, an agent's system
prompt in front) come at replicas with prefix caches: blocks of 16 tokens, the last used kept, the end of a
prompt forgotten before its beginning. Hosts route them with what they really have: the policy and the
book-keeping of `actors/serving`, their own requests, and beats that are a second old. Of the replicas one is
lost and two join on the way; of the hosts one is lost with what it remembers.

The oracle knows all caches and all loads as they are, and takes the replica that has most of the prompt among
those with at most 1.25 times the mean. Load is what a replica computes in a second: tokens that were not in its
cache, and tokens of replies; skew is the highest over the mean, in windows of a second and of five. A second
is short for that: round robin, which spreads requests and not work, shows what chance alone makes of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, quantiles
from typing import Any, cast

import msgspec

from actors.roster import Roster
from actors.serving.balance import Balance, reported
from benchmarks.prefixes import REPLICAS, SERVED, Replica, Turn, World, trace
from benchmarks.report import Result, arguments, report
from flotilla.core.generation import ChatMessage, Origin, Prompt
from flotilla.core.policy.affinity import SLACK_TOKENS, Affinity

HOSTS = 4
WARM_UP_S = 20.0
WINDOWS_S = (1, 5)
SKEW_TARGET = 1.25


# -- the ways to route


class Route:
    """Where a turn goes, by the name of the replica; and what is heard of it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)

    def pick(self, turn: Turn) -> tuple[Replica, Callable[[], None], Callable[[], None]]:
        raise NotImplementedError

    def lose_host(self) -> None:
        return None


def nothing() -> None:
    return None


class Randomly(Route):
    def pick(self, turn: Turn) -> tuple[Replica, Callable[[], None], Callable[[], None]]:
        return self.chance.choice(self.world.replicas), nothing, nothing


class RoundRobin(Route):
    """All hosts share the turn, which in a fleet they could not."""

    turn = -1

    def pick(self, turn: Turn) -> tuple[Replica, Callable[[], None], Callable[[], None]]:
        self.turn += 1
        return self.world.replicas[self.turn % len(self.world.replicas)], nothing, nothing


class Ours(Route):
    def __init__(self, world: World, seed: int) -> None:
        super().__init__(world, seed)
        self.hosts = [self._host() for _ in range(HOSTS)]

    def _host(self) -> Balance:
        return Balance(cast(Roster, self.world), self.world)

    def lose_host(self) -> None:
        """Its conversations go to the others, which know nothing of them."""
        self.hosts.pop()

    def pick(self, turn: Turn) -> tuple[Replica, Callable[[], None], Callable[[], None]]:
        host = self.hosts[turn.conversation % len(self.hosts)]
        prompt = prompt_of(turn)
        member = host.pick(SERVED, prompt)
        burden = host.burden(member, prompt)

        def done() -> None:
            burden.lift()
            host.answered(member, prompt, turn.reply)

        replica = next(replica for replica in self.world.replicas if replica.name == member.name)
        return replica, burden.begun, done


def prompt_of(turn: Turn) -> Prompt:
    text = "x" * (4 * turn.prompt)
    origin = Origin(tenant="t", conversation=str(turn.conversation), agent=str(turn.agent))
    return Prompt(messages=(ChatMessage(role="user", text=text),), tokens_max=400, origin=origin)


class Oracle(Route):
    def pick(self, turn: Turn) -> tuple[Replica, Callable[[], None], Callable[[], None]]:
        loads = {replica.name: reported(replica.member()) for replica in self.world.replicas}
        room = SKEW_TARGET * sum(loads.values()) / len(loads) + SLACK_TOKENS
        open_ = [replica for replica in self.world.replicas if loads[replica.name] <= room]
        blocks = turn.blocks(turn.prompt)
        return max(open_, key=lambda r: (r.cached(blocks), -loads[r.name])), nothing, nothing


# -- the run


class Outcome(msgspec.Struct, frozen=True):
    """`skews` are the highest load over the mean, by the length of the window in seconds."""

    cached: int
    asked: int
    skews: dict[int, list[float]]


def play(turns: Sequence[Turn], seconds: float, way: type[Route], seed: int) -> Outcome:
    world = World()
    world.beat()
    route = way(world, seed)
    changes = {0.4: lambda: world.lose(2), 0.5: lambda: world.join(REPLICAS), 0.6: route.lose_host,
               0.75: lambda: world.join(REPLICAS + 1)}  # fmt: skip
    for share, change in changes.items():
        world.later(share * seconds, change)
    cached = asked = 0
    for turn in turns:
        world.until(turn.at)
        replica, begun, done = route.pick(turn)
        found = world.answer(turn, replica, begun, done)
        if turn.at >= WARM_UP_S:
            cached, asked = cached + found, asked + turn.prompt
    return Outcome(cached, asked, {n: list(_skews(world, seconds, changes, n)) for n in WINDOWS_S})


def _skews(world: World, seconds: float, changes: Iterable[float], window_s: int) -> Iterator[float]:
    """Of the windows in which the same replicas were there; those behind a change are given five seconds."""
    unsettled = {int(share * seconds) + n for share in changes for n in range(5)}
    for first in range(int(WARM_UP_S), int(seconds) - window_s, window_s):
        window = range(first, first + window_s)
        sums = [sum(r.computed.get(n, 0.0) for n in window) for r in (*world.replicas, *world.lost)]
        if not unsettled.intersection(window):
            yield max(sums) / fmean(tokens for tokens in sums if tokens)


def decision_us(replicas: int, known: bool) -> float:
    """Microseconds of processor time for a choice by the policy alone; the best of five rounds."""
    mind, names = Affinity(), [f"m@1.{n}" for n in range(replicas)]
    loads = [float(n % 7) for n in range(replicas)]
    keys = [f"t/c_{n}" for n in range(2000)]
    for n, key in enumerate(keys if known else ()):
        mind.remember(key, names[n % replicas], 100)
    return min(_each_us(lambda key: mind.pick(key, names, loads, 100.0), keys) for _ in range(5))


def choice_us(replicas: int) -> float:
    """The same with everything around it, as a host chooses: who serves it, whose breaker is closed, the loads."""
    world = World()
    world.replicas = [Replica(f"m@1.{n}") for n in range(replicas)]
    world.beats = [replica.member() for replica in world.replicas]
    balance = Balance(cast(Roster, world), world)
    prompts = [prompt_of(Turn(0.0, n, 0, 200, 400, 80)) for n in range(500)]
    for prompt in prompts:
        balance.answered(balance.pick(SERVED, prompt), prompt, 80)
    return min(_each_us(lambda prompt: balance.pick(SERVED, prompt), prompts) for _ in range(5))


def _each_us(choose: Callable[[Any], object], of: Sequence[object]) -> float:
    began = time.thread_time()
    for one in of:
        choose(one)
    return (time.thread_time() - began) * 1e6 / len(of)


def measure(seconds: float, per_s: float, seed: int) -> list[Result]:
    turns = trace(seed, seconds, per_s)
    ways = {"random": Randomly, "round_robin": RoundRobin, "ours": Ours, "oracle": Oracle}
    found = {name: play(turns, seconds, way, seed) for name, way in ways.items()}
    ours, best = found["ours"], found["oracle"]
    results = [
        figure("share_of_oracle", ours.cached / best.cached, "", target=0.95, samples=len(turns)),
        figure("skew_1s", fmean(ours.skews[1]), "×", target=SKEW_TARGET),
    ]
    for name, outcome in found.items():
        results.append(figure(f"cached_share_{name}", outcome.cached / outcome.asked, ""))
        for window_s, skews in outcome.skews.items():
            results.append(figure(f"skew_{window_s}s_mean_{name}", fmean(skews), "×"))
            results.append(figure(f"skew_{window_s}s_p95_{name}", quantiles(skews, n=20)[-1], "×"))
    for count in (4, 16, 64):
        results.append(figure(f"decision_known_{count}_us", decision_us(count, True), "µs", target=50.0))
        results.append(figure(f"decision_unknown_{count}_us", decision_us(count, False), "µs", target=50.0))
        results.append(figure(f"whole_choice_{count}_us", choice_us(count), "µs", target=50.0))
    return results


def figure(
    measure: str, value: float, unit: str, *, target: float | None = None, samples: int | None = None
) -> Result:
    """What has a unit is better when it is lower; a share, when it is higher."""
    better = "lower" if unit else "higher"
    return Result(
        measure=measure, value=round(value, 4), unit=unit, better=better, target=target, samples=samples
    )


def main() -> None:
    parser = arguments("affinity", "Prefix-affine routing against random, round robin and an oracle.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds, per_s = (90.0, 300.0) if options.quick else (120.0, 400.0)
    report("affinity", measure(seconds, per_s, options.seed), options.json)


if __name__ == "__main__":
    main()
