"""Who says what when: all of it follows from the scenario and the seed, before anything is sent.

Every worker makes the whole schedule and plays its own conversations, so the traffic is the same however many
processes there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.load.scenario import WAYS, Every, Rate, Scenario, Think
from benchmarks.load.texts import TEXTS

WARM_GAPS = 10


class Schedule(msgspec.Struct, frozen=True):
    """Parallel lists, in the order of time: seconds from the beginning of the phase, the number of the
    conversation, and which of the texts it says."""

    at_s: Sequence[float]
    conversation: Sequence[int]
    text: Sequence[int]

    def of_worker(self, worker: int, workers: int) -> Schedule:
        """The part that one of several workers plays."""
        mine = [n for n, number in enumerate(self.conversation) if number % workers == worker]
        return Schedule(
            [self.at_s[n] for n in mine], [self.conversation[n] for n in mine], [self.text[n] for n in mine]
        )


def schedule(scenario: Scenario, seed: int, part: str, seconds: float, load: float) -> Schedule:
    """The turns of one phase, or of one step of it: `part` is its name. At `load` times the traffic."""
    chance = np.random.default_rng([seed, zlib.crc32(part.encode())])
    at, who = _arrivals(scenario, seed, chance, seconds, load)
    order = np.argsort(at, kind="stable")
    said = chance.integers(len(TEXTS), size=len(at))
    return Schedule(at[order].tolist(), who[order].tolist(), said.tolist())


def ways(scenario: Scenario, seed: int) -> list[int]:
    """The way of each conversation, as an index into `WAYS`: exact shares, in an order by chance."""
    shares = np.array(scenario.ways.shares) / sum(scenario.ways.shares)
    bounds = np.round(np.cumsum(shares) * scenario.conversations).astype(int)
    sorted_ways = np.searchsorted(bounds, np.arange(scenario.conversations), side="right")
    chosen = np.random.default_rng([seed, len(WAYS)]).permutation(sorted_ways)
    return [int(way) for way in chosen]


Times = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def _arrivals(
    scenario: Scenario, seed: int, chance: np.random.Generator, seconds: float, load: float
) -> Times:
    traffic, conversations = scenario.traffic, scenario.conversations
    match traffic:
        case Every():
            return _every(traffic.seconds / load, conversations, seed, seconds)
        case Think():
            return _thinking(traffic, conversations, chance, seconds, load)
        case Rate():
            return _by_chance(traffic.turns_per_s * load, conversations, chance, seconds)


def _every(every_s: float, conversations: int, seed: int, seconds: float) -> Times:
    """A conversation's place in the interval is that of the whole run: phases continue one another."""
    places = np.random.default_rng([seed]).permutation(conversations) / conversations * every_s
    rounds = np.arange(int(np.ceil(seconds / every_s))) * every_s
    at = (places[None, :] + rounds[:, None]).ravel()
    who = np.tile(np.arange(conversations), len(rounds))
    return at[at < seconds], who[at < seconds]


def _thinking(
    think: Think, conversations: int, chance: np.random.Generator, seconds: float, load: float
) -> Times:
    """They have talked for long when it begins: what was before is left out, so that the rate is even."""
    before = WARM_GAPS * (think.reply_s + think.median_s)
    whole = before + seconds * load
    rounds = int(4 * whole / (think.reply_s + think.median_s)) + 8
    pauses = chance.lognormal(np.log(think.median_s), think.sigma, (conversations, rounds))
    gaps = think.reply_s + np.minimum(pauses, think.most_s)
    gaps[:, 0] *= chance.random(conversations)
    at = (np.cumsum(gaps, axis=1).ravel() - before) / load
    who = np.repeat(np.arange(conversations), rounds)
    now = (at >= 0) & (at < seconds)
    return at[now], who[now]


def _by_chance(per_s: float, conversations: int, chance: np.random.Generator, seconds: float) -> Times:
    number = int(chance.poisson(per_s * seconds))
    at = np.sort(chance.random(number)) * seconds
    order = chance.permutation(conversations)
    return at, order[np.arange(number) % conversations]
