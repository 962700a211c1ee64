"""Keeps a reply close to the words of its sources, its numbers to those it was given, and it from
going round in circles.

A small model that answers from documents mixes their words with its own, and its own are where it
errs. Here the tokens that go on a run of words of the sources get a head start, so that it quotes
where it can (the idea is prompt look-up decoding's, used to steer instead of to guess ahead); a digit
must go on a number that stands in the prompt; and a run of words that the reply already holds is not
begun a second time.

Runs inside vLLM's engine process, which loads it by name (`PROCESSOR`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from tokenizers import Tokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm import SamplingParams
    from vllm.config import VllmConfig

PROCESSOR = "models.closeness:Closeness"
KEY = "flotilla_closeness"
"""Name of `(strength, tokens of the sources, tokens of the prompt that begin the reply)` in
`SamplingParams.extra_args`."""

WORD_SHARE = 0.25
"""Of the head start, after one token in common; after two it is whole."""
REPEAT_TOKENS = 5
PENALTY = 1e4  # finite, so that what has to be replayed can be

Followers = dict[tuple[int, ...], set[int]]


class Signs(msgspec.Struct, frozen=True):
    """Which tokens numbers are made of, and which end a line."""

    digits: frozenset[int]
    points: frozenset[int]
    breaks: frozenset[int]


def signs(tokenizer: Tokenizer) -> Signs:
    spelled = {id: tokenizer.decode([id]) for id in tokenizer.get_vocab().values()}
    return Signs(
        digits=frozenset(id for id, text in spelled.items() if any(map(str.isdigit, text))),
        points=frozenset(id for id, text in spelled.items() if text in (",", ".")),
        breaks=frozenset(id for id, text in spelled.items() if text.endswith("\n")),
    )


@lru_cache(maxsize=4)
def _load(folder: str) -> Signs:
    return signs(Tokenizer.from_file(str(Path(folder) / "tokenizer.json")))


class Closeness(AdapterLogitsProcessor):
    """Steers requests that ask for it; others pass untouched."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        # Now: the folder may be gone when somebody asks, once other weights are loaded in its place.
        self._signs = _load(str(vllm_config.model_config.tokenizer))

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        asked: Any = (params.extra_args or {}).get(KEY)
        if not asked:
            return None
        strength, sources, said_tokens = asked
        return Steer(strength, sources, said_tokens, self._signs)


class Steer:
    """One request's. The last `said_tokens` of its prompt are the reply's beginning."""

    def __init__(self, strength: float, sources: list[list[int]], said_tokens: int, signs: Signs) -> None:
        self._strength = strength
        self._said_tokens = said_tokens
        self._signs = signs
        self._next = _followers(sources)
        self._numbers: Followers = {}
        self._reply: list[int] | None = None
        self._runs: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)

    def __call__(self, prompt_ids: list[int], output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        reply = self._reply if self._reply is not None else self._begin(prompt_ids)
        self._extend(reply, output_ids[len(reply) - self._said_tokens :])
        logits = logits.clone()
        self._favour_quotes(reply, logits)
        self._hold_numbers(reply, logits)
        self._hinder_repeats(reply, logits)
        return logits

    def _begin(self, prompt_ids: list[int]) -> list[int]:
        asked = len(prompt_ids) - self._said_tokens
        self._numbers = _beginnings(_numbers(prompt_ids[:asked], self._signs))
        self._reply = []
        self._extend(self._reply, prompt_ids[asked:])
        return self._reply

    def _extend(self, reply: list[int], ids: list[int]) -> None:
        for id in ids:
            self._runs[tuple(reply[1 - REPEAT_TOKENS :])].add(id)
            reply.append(id)

    def _favour_quotes(self, reply: list[int], logits: torch.Tensor) -> None:
        after_two = self._next.get(tuple(reply[-2:]), set())
        after_one = self._next.get(tuple(reply[-1:]), set()) - after_two
        logits[list(after_two)] += self._strength
        logits[list(after_one)] += self._strength * WORD_SHARE

    def _hold_numbers(self, reply: list[int], logits: torch.Tensor) -> None:
        """Digits that begin or go on no number of the prompt are out, but for those that count lines."""
        number = tuple(_ending_number(reply, self._signs))
        before = reply[: len(reply) - len(number)]
        if before and before[-1] not in self._signs.breaks:
            logits[list(self._signs.digits - self._numbers.get(number, set()))] -= PENALTY

    def _hinder_repeats(self, reply: list[int], logits: torch.Tensor) -> None:
        if len(reply) >= REPEAT_TOKENS:
            logits[list(self._runs.get(tuple(reply[1 - REPEAT_TOKENS :]), ()))] -= PENALTY


def _followers(sources: list[list[int]]) -> Followers:
    """Which tokens come after each token, and after each pair, of the sources."""
    followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for ids in sources:
        for at in range(1, len(ids)):
            followers[tuple(ids[at - 1 : at])].add(ids[at])
            followers[tuple(ids[max(0, at - 2) : at])].add(ids[at])
    return dict(followers)


def _numbers(ids: Sequence[int], signs: Signs) -> Iterator[tuple[int, ...]]:
    """Runs of digits with single points inside: `10,000` is one."""
    number: list[int] = []
    for id in ids:
        if id in signs.digits or (id in signs.points and number and number[-1] in signs.digits):
            number.append(id)
        elif number:
            yield tuple(number)
            number = []
    if number:
        yield tuple(number)


def _ending_number(ids: Sequence[int], signs: Signs) -> list[int]:
    """The number that `ids` end with, unfinished perhaps."""
    return list(takewhile(lambda id: id in signs.digits or id in signs.points, reversed(ids)))[::-1]


def _beginnings(numbers: Iterator[tuple[int, ...]]) -> Followers:
    """What goes on each beginning of a number, the empty one included."""
    beginnings: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for number in numbers:
        for at in range(len(number)):
            beginnings[number[:at]].add(number[at])
    return dict(beginnings)
