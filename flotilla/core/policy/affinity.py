"""Which replica gets a prompt: the one that holds its conversation's prefix, unless the load says otherwise.

An engine keeps the keys and values of what it has read. The next prompt of a conversation begins with the
last one, so at the replica that answered then most of it costs nothing, and at any other all of it. What
speaks against going there is load, and load is bounded:

- Each process remembers where its conversations were answered. One that it doesn't know goes where rendezvous
  hashing puts it, which is the same replica whichever process asks, and stays there as others come and go.
  (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.)
- No replica is given more than 1.1 times the mean load, and a little. Past that, the next replicas in the
  conversation's own order are looked at, and the least loaded of the first few that have room gets it.
  (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018; the choice among few is
  Mitzenmacher's, "The Power of Two Choices in Randomized Load Balancing", 2001.)
- A conversation leaves its replica only if that is fuller by more than what it would have to read again
  elsewhere: else a short queue would cost it a long prompt.

A load is in tokens that wait to be computed. Nothing here reads a clock or knows who is alive: the caller
names the replicas that may be asked. `python -m benchmarks.affinity` measures it against an oracle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

# Of what waits. What is computed, second by second, then stays within 1.25 times the mean: conversations that
# stay at home, and beats that are a second old, take the rest (docs/decisions/0019).
SKEW_MAX = 1.1
# Above the bound, so that a replica with two or three requests isn't full when the others have none.
SLACK_TOKENS = 256.0
# About 300 bytes each.
CONVERSATIONS_KEPT = 50_000
CHOICES = 4

_MASK = (1 << 64) - 1


class Affinity:
    """What one process knows of where conversations are, and its judgement. It forgets those that were
    answered longest ago."""

    def __init__(
        self, *, kept: int = CONVERSATIONS_KEPT, skew: float = SKEW_MAX, slack_tokens: float = SLACK_TOKENS
    ) -> None:
        self._homes: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._kept = kept
        self._skew = skew
        self._slack = slack_tokens

    def __repr__(self) -> str:
        return f"<Affinity: {len(self._homes)} conversations>"

    def __len__(self) -> int:
        return len(self._homes)

    def pick(self, key: str, names: Sequence[str], loads: Sequence[float], tokens: float = 0.0) -> int:
        """The place in `names`, of which there must be one, of the replica for `key`. `loads` are theirs in
        tokens, `tokens` what the prompt would add. Changes nothing. A few µs; 30 for 64 replicas if the
        conversation is unknown or its replica is full."""
        room = self.bound(loads, tokens)
        home = self._homes.get(key)
        if home is not None and home[0] in names:
            at = names.index(home[0])
            if loads[at] <= room + home[1]:
                return at
        return _first_with_room(scores(key, names), loads, room)

    def bound(self, loads: Sequence[float], tokens: float) -> float:
        """The load up to which a replica is given more."""
        return self._skew * (sum(loads) + tokens) / len(loads) + self._slack

    def remember(self, key: str, name: str, tokens: int) -> None:
        """The replica `name` has read `tokens` tokens of the conversation."""
        self._homes[key] = (name, tokens)
        self._homes.move_to_end(key)
        if len(self._homes) > self._kept:
            self._homes.popitem(last=False)

    def held(self, key: str, name: str) -> int:
        """How many tokens of the conversation `name` has probably kept."""
        home = self._homes.get(key)
        return home[1] if home is not None and home[0] == name else 0


def scores(key: str, names: Sequence[str]) -> list[int]:
    """The highest is the owner of `key`, the second highest is if that one is gone, and so on."""
    start = _number(key)
    return [_mixed(start ^ _seed(name)) for name in names]


def _first_with_room(scored: Sequence[int], loads: Sequence[float], room: float) -> int:
    first = scored.index(max(scored))
    if loads[first] <= room:
        return first
    order = sorted(range(len(scored)), key=scored.__getitem__, reverse=True)
    free = [at for at in order if loads[at] <= room][:CHOICES]
    # Nobody has room only by rounding: the least loaded is never above the mean.
    return min(free or order, key=loads.__getitem__)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(4096)
def _seed(name: str) -> int:
    return _number(name)


def _mixed(number: int) -> int:
    """64 bits that depend on all 64 (the end of Steele, Lea and Flood's SplitMix, 2014): a digest of each
    pair of key and name would take three times as long."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
