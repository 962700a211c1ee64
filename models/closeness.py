"""Keeps a reply close to the words of its sources, and from going round in circles.

A small model that answers from documents mixes their words with its own, and its own are where it
errs. Here the tokens that go on a run of words of its sources get a head start, so that it quotes
where it can (the idea is prompt look-up decoding's, used to steer instead of to guess ahead), and a
run of words that the reply already holds is not begun a second time.

Measured with SmolLM2-135M on sixteen questions to a bank: replies with a verifiable quote went from
9 to 13.

Runs inside vLLM's engine process, which loads it by name (`PROCESSOR`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
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
REPEAT_PENALTY = 1e4  # finite, so that what has to be replayed can be


class Closeness(AdapterLogitsProcessor):
    """Steers requests that ask for it; others pass untouched."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        asked: Any = (params.extra_args or {}).get(KEY)
        if not asked:
            return None
        strength, sources, said_tokens = asked
        return Steer(strength, sources, said_tokens)


class Steer:
    """One request's. The last `said_tokens` of its prompt are the reply's beginning."""

    def __init__(self, strength: float, sources: list[list[int]], said_tokens: int) -> None:
        self._strength = strength
        self._said_tokens = said_tokens
        self._next = _followers(sources)
        self._reply: list[int] | None = None
        self._runs: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)

    def __call__(self, prompt_ids: list[int], output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        if self._reply is None:
            self._reply = []
            self._extend(self._reply, prompt_ids[len(prompt_ids) - self._said_tokens :])
        self._extend(self._reply, output_ids[len(self._reply) - self._said_tokens :])
        return self._steer(self._reply, logits.clone())

    def _extend(self, reply: list[int], ids: list[int]) -> None:
        for id in ids:
            self._runs[_tail(reply, REPEAT_TOKENS - 1)].add(id)
            reply.append(id)

    def _steer(self, reply: list[int], logits: torch.Tensor) -> torch.Tensor:
        after_two = self._next.get(_tail(reply, 2), set())
        after_one = self._next.get(_tail(reply, 1), set()) - after_two
        logits[list(after_two)] += self._strength
        logits[list(after_one)] += self._strength * WORD_SHARE
        if len(reply) >= REPEAT_TOKENS:
            logits[list(self._runs.get(_tail(reply, REPEAT_TOKENS - 1), ()))] -= REPEAT_PENALTY
        return logits


def _tail(ids: list[int], length: int) -> tuple[int, ...]:
    return tuple(ids[-length:])


def _followers(sources: list[list[int]]) -> dict[tuple[int, ...], set[int]]:
    """Which tokens come after each token, and after each pair, of the sources."""
    followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for ids in sources:
        for at in range(1, len(ids)):
            followers[tuple(ids[at - 1 : at])].add(ids[at])
            followers[tuple(ids[max(0, at - 2) : at])].add(ids[at])
    return dict(followers)
