"""A prefix cache as engines have one, of messages in place of blocks: what was read before is not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec


class Read(msgspec.Struct, frozen=True):
    """A message, as far as a cache cares."""

    role: str
    text: str
    tokens: int


class PrefixCache:
    """Holds up to `tokens_max` tokens; what was not used for longest goes first. A message is known by all
    that comes before it, so that what two conversations begin with is held once."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        self._held: OrderedDict[int, int] = OrderedDict()
        self._tokens = 0

    @property
    def used(self) -> float:
        """The share of its room in use, 0 to 1."""
        return self._tokens / self._tokens_max if self._tokens_max else 0.0

    def cached(self, scope: str, messages: Sequence[Read]) -> int:
        """How many tokens of `messages` are held, from the first one on."""
        tokens = 0
        for key, message in zip(_keys(scope, messages), messages, strict=True):
            if key not in self._held:
                break
            tokens += message.tokens
        return tokens

    def hold(self, scope: str, messages: Sequence[Read]) -> None:
        # From the last one on: of a chain that is let go the end goes first, its beginning may serve others.
        for key, message in reversed(list(zip(_keys(scope, messages), messages, strict=True))):
            if key not in self._held:
                self._held[key] = message.tokens
                self._tokens += message.tokens
            self._held.move_to_end(key)
        while self._tokens > self._tokens_max:
            self._tokens -= self._held.popitem(last=False)[1]

    def forget(self) -> None:
        self._held.clear()
        self._tokens = 0


def _keys(scope: str, messages: Sequence[Read]) -> list[int]:
    keys, key = list[int](), hash(scope)
    for message in messages:
        key = hash((key, message.role, message.text))
        keys.append(key)
    return keys
