"""Conversations that share prefixes, and replicas that keep what they have read: a world for routing."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from flotilla.core.members import Member
from flotilla.core.versions import Version

BLOCK = 16
CACHE_BLOCKS = 25_000  # 400,000 tokens
PREFILL_TOKENS_PER_S = 20_000.0
TOKEN_S = 0.02
THINK_MEDIAN_S, THINK_SPREAD = 5.2, 0.8
TURNS_MAX = 24
AGENTS = 24
REPLICAS = 8
BEAT_EVERY_S = 1.0
SERVED = Version(model="m", name="1", engine="scripted")


# -- what comes


class Turn(msgspec.Struct, frozen=True):
    """One request. `shared` tokens of its prompt are its agent's."""

    at: float
    conversation: int
    agent: int
    shared: int
    prompt: int
    reply: int

    def blocks(self, tokens: int) -> list[int]:
        """Names of the whole blocks of its first `tokens` tokens."""
        ours = self.shared // BLOCK
        return [
            ((self.agent if n < ours else AGENTS + self.conversation) << 20) | n
            for n in range(tokens // BLOCK)
        ]


def trace(seed: int, seconds: float, per_s: float) -> list[Turn]:
    """All turns in `seconds`, by time."""
    chance = random.Random(seed)
    prompts = [chance.randrange(200, 1200) for _ in range(AGENTS)]
    lengths = [1 / n**1.1 for n in range(1, TURNS_MAX + 1)]
    popular = [1 / n for n in range(1, AGENTS + 1)]
    mean = sum(n * w for n, w in enumerate(lengths, 1)) / sum(lengths)
    turns: list[Turn] = []
    at, number = 0.0, 0
    while (at := at + chance.expovariate(per_s / mean)) < seconds:
        number += 1
        agent = chance.choices(range(AGENTS), popular)[0]
        length = chance.choices(range(1, TURNS_MAX + 1), lengths)[0]
        first = Turn(at, number, agent, prompts[agent], prompts[agent], 0)
        turns += _conversation(chance, first, length)
    return sorted((turn for turn in turns if turn.at < seconds), key=lambda turn: turn.at)


def _conversation(chance: random.Random, before: Turn, length: int) -> Iterator[Turn]:
    at, prompt = before.at, before.prompt
    for _ in range(length):
        prompt += round(chance.lognormvariate(3.7, 0.8))  # 40 in the median
        reply = min(400, round(chance.lognormvariate(4.4, 0.6)))  # 81
        yield Turn(at, before.conversation, before.agent, before.shared, prompt, reply)
        prompt += reply
        at += reply * TOKEN_S + THINK_MEDIAN_S * chance.lognormvariate(0.0, THINK_SPREAD)


# -- who answers


class Replica:
    def __init__(self, name: str) -> None:
        self.name = name
        self.cache: OrderedDict[int, None] = OrderedDict()
        self.free_at = 0.0  # when it has read all prompts that wait
        self.queued = 0
        self.running = 0
        self.computed: dict[int, float] = {}  # tokens by second

    def cached(self, blocks: Sequence[int]) -> int:
        """Tokens of the prompt that it has."""
        have = self.cache
        return BLOCK * sum(1 for _ in itertools.takewhile(have.__contains__, blocks))

    def keep(self, blocks: Sequence[int]) -> None:
        have = self.cache
        for block in reversed(blocks):
            have[block] = None
            have.move_to_end(block)
        while len(have) > CACHE_BLOCKS:
            have.popitem(last=False)

    def compute(self, at: float, tokens: float) -> None:
        self.computed[int(at)] = self.computed.get(int(at), 0.0) + tokens

    def member(self) -> Member:
        load = {"running": float(self.running), "waiting": 0.0, "queued_tokens": float(self.queued)}
        return Member(
            role="model", name=self.name, life=self.name, address="", info={"version": SERVED.id}, load=load
        )


class World:
    """Time, the replicas, and what was last heard of them: a clock and a roster for the hosts."""

    def __init__(self) -> None:
        self.time = 0.0
        self.replicas = [Replica(f"m@1.{n}") for n in range(REPLICAS)]
        self.lost: list[Replica] = []
        self.beats: list[Member] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def members(self, role: str) -> list[Member]:
        return self.beats

    def later(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), what))

    def until(self, at: float) -> None:
        while self._events and self._events[0][0] <= at:
            self.time, _, what = heapq.heappop(self._events)
            what()
        self.time = at

    def beat(self) -> None:
        self.beats = [replica.member() for replica in self.replicas]
        self.later(self.time + BEAT_EVERY_S, self.beat)

    def lose(self, place: int) -> None:
        """It is passed over at once: its sockets break."""
        lost = self.replicas.pop(place)
        lost.computed = {
            second: tokens for second, tokens in lost.computed.items() if second < int(self.time)
        }
        self.lost.append(lost)
        names = {replica.name for replica in self.replicas}
        self.beats = [member for member in self.beats if member.name in names]

    def join(self, number: int) -> None:
        self.replicas.append(Replica(f"m@1.{number}"))
        self.beats = [*self.beats, self.replicas[-1].member()]

    # -- a request at a replica

    def answer(
        self, turn: Turn, replica: Replica, begun: Callable[[], None], done: Callable[[], None]
    ) -> int:
        """How many tokens of the prompt were cached."""
        cached = replica.cached(turn.blocks(turn.prompt))
        fresh = turn.prompt - cached
        replica.free_at = max(self.time, replica.free_at) + fresh / PREFILL_TOKENS_PER_S
        replica.queued += fresh
        replica.running += 1
        replica.keep(turn.blocks(turn.prompt + turn.reply))
        replica.compute(replica.free_at, fresh)
        for n in range(turn.reply):
            replica.compute(replica.free_at + n * TOKEN_S, 1.0)

        def read() -> None:
            replica.queued -= fresh
            begun()

        def finished() -> None:
            replica.running -= 1
            done()

        self.later(replica.free_at, read)
        self.later(replica.free_at + turn.reply * TOKEN_S, finished)
        return cached
