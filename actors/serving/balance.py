"""The replicas as this process sees them: who may be asked, how busy each is, which adapters it has."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from hashlib import blake2b

from actors.roster import Roster
from flotilla.core.clock import Clock
from flotilla.core.errors import Unavailable
from flotilla.core.generation import Prompt
from flotilla.core.members import Member
from flotilla.core.policy.affinity import Affinity
from flotilla.core.policy.breaker import Breaker
from flotilla.core.versions import Version

ROLE = "model"
NO_REPLICA_RETRY_S = 0.5
# What a reply is expected to cost beyond its prompt; a few hundred characters.
REPLY_TOKENS = 96
CHARS_PER_TOKEN = 4
# A prompt that was read counts for so long, less and less.
READ_LATELY_S = 2.0
# What a replica has told us (an adapter is loaded, it serves another version) counts until a beat must have said so.
BEATS_LAG_S = 3.0
# A version that nobody serves any more has failed; one that nobody was seen to serve has not been seen yet.
SERVED_LATELY_S = 600.0
RAW_PREFIX_CHARS = 512


class NoReplica(Unavailable):
    """Nobody who may be asked serves the version."""


class _Replica:
    """What is known of one life of a replica beyond its beats."""

    __slots__ = (
        "adapters",
        "breaker",
        "own",
        "own_then",
        "read",
        "read_at",
        "said",
        "seen",
        "told",
        "version",
    )

    def __init__(self, member: Member) -> None:
        self.breaker = Breaker(member.name)
        self.adapters: dict[str, float] = {}  # and when we had it loaded
        self.own = 0.0  # tokens that we wait for
        self.version = ""
        self.told: tuple[str, float] = "", 0.0  # the version by its own word, and until when that counts
        self.seen = member
        self.said = reported(member)
        self.own_then = 0.0
        self.read = 0.0  # tokens of prompts that we had it read lately
        self.read_at = 0.0

    def load(self, member: Member, now: float) -> float:
        """What it said last and what we have asked of it since then, and what it read for us lately, in tokens.
        The last keeps a replica from being given one long prompt after another, each read as it comes."""
        if member is not self.seen:
            self.seen, self.said, self.own_then = member, reported(member), self.own
        return max(self.own, self.said + self.own - self.own_then) + self._read_lately(now)

    def reads(self, tokens: int, now: float) -> None:
        self.read, self.read_at = self._read_lately(now) + tokens, now

    def _read_lately(self, now: float) -> float:
        return self.read * max(0.0, 1.0 - (now - self.read_at) / READ_LATELY_S) if self.read else 0.0


def reported(member: Member) -> float:
    load = member.load
    replies = load.get("running", 0.0) + load.get("waiting", 0.0)
    return load.get("queued_tokens", 0.0) + replies * REPLY_TOKENS


class Burden:
    """What one request adds to the load of its replica, until it is lifted."""

    __slots__ = ("_prompt", "_replica", "_reply")

    def __init__(self, replica: _Replica, prompt_tokens: int, reply_tokens: int) -> None:
        self._replica = replica
        self._prompt, self._reply = prompt_tokens, reply_tokens
        replica.own += prompt_tokens + reply_tokens

    def begun(self) -> None:
        """The prompt has been read."""
        self._replica.own -= self._prompt
        self._prompt = 0

    def lift(self) -> None:
        self._replica.own -= self._prompt + self._reply
        self._prompt = self._reply = 0


class Balance:
    def __init__(self, roster: Roster, clock: Clock, affinity: Affinity | None = None) -> None:
        self._roster = roster
        self._clock = clock
        self.affinity = Affinity() if affinity is None else affinity
        self._replicas: dict[str, _Replica] = {}  # by life
        self._served_at: dict[str, float] = {}  # when a version was last seen with a replica

    def __repr__(self) -> str:
        return f"<Balance of {len(self._replicas)} replicas, {self.affinity}>"

    # -- whom to ask

    def serving(self, version: Version) -> list[Member]:
        """Those that may be given something new."""
        id, now = version.runs_on, self._clock.monotonic()
        there = [
            member
            for member in self._roster.members(ROLE)
            if member.state == "up" and self._version(member, now) == id
        ]
        if there:
            self._served_at[id] = now
        return [member for member in there if self._of(member).breaker.state(now) != "open"]

    def _version(self, member: Member, now: float) -> str:
        replica = self._of(member)
        told, until = replica.told
        serves = told if now < until else member.info.get("version", "")
        if serves != replica.version:  # what it served before has not vanished: it was taken away
            self._served_at.pop(replica.version, None)
            replica.version = serves
        return serves

    def serves(self, member: Member, id: str) -> None:
        """It has told us so itself."""
        self._of(member).told = id, self._clock.monotonic() + BEATS_LAG_S

    def vanished(self, version: Version) -> bool:
        """Whether a replica of it was seen lately, and was not made another version's."""
        at = self._served_at.get(version.runs_on, -math.inf)
        return self._clock.monotonic() - at < SERVED_LATELY_S

    def pick(self, version: Version, prompt: Prompt, passed_over: Iterable[str] = ()) -> Member:
        """The replica for `prompt`. Raises `NoReplica`."""
        passed = set(passed_over)
        serving = self.serving(version)
        while members := [member for member in serving if member.name not in passed]:
            open_ = [member for member in members if not member.load.get("reloading")]
            member = self._pick(version, prompt, open_ or members)
            try:
                self._of(member).breaker.admit(self._clock.monotonic())
            except Unavailable:  # it is being tried with somebody else's request
                passed.add(member.name)
                continue
            return member
        raise NoReplica(
            f"No replica of {version.runs_on} is up.",
            next="It comes back by itself.",
            retry_after_s=NO_REPLICA_RETRY_S,
        )

    def others(self, version: Version, passed_over: Container[str]) -> bool:
        """Whether anybody but those serves it."""
        return any(member.name not in passed_over for member in self.serving(version))

    def _pick(self, version: Version, prompt: Prompt, members: Sequence[Member]) -> Member:
        tokens, loads = tokens_of(prompt), self._loads(members)
        if version.adapter:
            return self._pick_for_adapter(version, prompt, members, loads)
        return members[self.affinity.pick(key_of(prompt), [m.name for m in members], loads, tokens)]

    def _pick_for_adapter(
        self, version: Version, prompt: Prompt, members: Sequence[Member], loads: Sequence[float]
    ) -> Member:
        """Where it is loaded, while one of those has room; else where all processes would load it next."""
        tokens = tokens_of(prompt)
        there = [at for at, member in enumerate(members) if self.has(member, version)]
        if there:
            names = [members[at].name for at in there]
            at = there[self.affinity.pick(key_of(prompt), names, [loads[at] for at in there], tokens)]
            if loads[at] <= self.affinity.bound(loads, tokens):
                return members[at]
        return members[self.affinity.pick(f"adapter:{version.id}", [m.name for m in members], loads, tokens)]

    def _loads(self, members: Sequence[Member]) -> list[float]:
        now = self._clock.monotonic()
        return [self._of(member).load(member, now) for member in members]

    # -- what is asked of whom

    def burden(self, member: Member, prompt: Prompt) -> Burden:
        """Counts the request until it is lifted. The part of its prompt that the replica has kept is free."""
        left = max(0, tokens_of(prompt) - self.affinity.held(key_of(prompt), member.name))
        self._of(member).reads(left, self._clock.monotonic())
        return Burden(self._of(member), left, min(prompt.tokens_max, REPLY_TOKENS))

    def answered(self, member: Member, prompt: Prompt, tokens: int) -> None:
        """It holds the conversation now, with `tokens` tokens of a reply."""
        self.affinity.remember(key_of(prompt), member.name, tokens_of(prompt) + tokens)

    def note(self, member: Member, ok: bool) -> None:
        self._of(member).breaker.note(self._clock.monotonic(), ok)

    def queues(self, member: Member) -> bool:
        """Whether it said last that requests wait there: it is slow because it is busy."""
        latest = self._roster.named(ROLE, member.name)
        return latest is not None and latest.load.get("waiting", 0.0) > 0

    # -- adapters

    def has(self, member: Member, version: Version) -> bool:
        asked_at = self._of(member).adapters.get(version.id, -math.inf)
        lately = asked_at + BEATS_LAG_S > self._clock.monotonic()
        return lately or f"adapter:{version.id}" in member.load

    def loaded(self, member: Member, version: Version) -> None:
        now, adapters = self._clock.monotonic(), self._of(member).adapters
        for id, asked_at in list(adapters.items()):
            if asked_at + BEATS_LAG_S <= now:
                del adapters[id]
        adapters[version.id] = now

    # --

    def _of(self, member: Member) -> _Replica:
        replica = self._replicas.get(member.life)
        if replica is None:
            replica = self._replicas[member.life] = _Replica(member)
        return replica

    def prune(self) -> None:
        """Forgets the lives that are over."""
        for life, replica in list(self._replicas.items()):
            there = self._roster.named(ROLE, replica.seen.name)
            if replica.own <= 0 and (there is None or there.life != life):
                del self._replicas[life]
        long_ago = self._clock.monotonic() - SERVED_LATELY_S
        self._served_at = {id: at for id, at in self._served_at.items() if at > long_ago}


def key_of(prompt: Prompt) -> str:
    """What shares a prefix: the conversation or, for those who name none, how it begins."""
    origin = prompt.origin
    if origin.conversation:
        return f"{origin.tenant}/{origin.conversation}"
    first = "\0".join(_opening(prompt)) or prompt.raw[:RAW_PREFIX_CHARS]
    return f"{origin.tenant}#{blake2b(first.encode(), digest_size=8).hexdigest()}"


def _opening(prompt: Prompt) -> Iterator[str]:
    """Up to the first word of the customer: that stays as the conversation grows."""
    for message in prompt.messages:
        yield message.text
        if message.role == "user":
            return


def tokens_of(prompt: Prompt) -> int:
    """About how many it has."""
    chars = len(prompt.raw) + len(prompt.said) + sum(len(message.text) for message in prompt.messages)
    return chars // CHARS_PER_TOKEN
