"""Makes a model say again, token by token, the last words somebody has already read.

A reply that was cut in the middle of a word must go on as if it had never been cut. Giving the
half word to the tokeniser does not do that: "ban" is not how the model would have begun "bank". So
the prompt ends before that word, and here the model is held, bytes at a time, to tokens that agree
with what was read, until it has caught up ("token healing"). Greedy decoding then makes the choice
that it made the first time.

Runs inside vLLM's engine process, which loads it by name (`PROCESSOR`).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm import SamplingParams
    from vllm.config import VllmConfig

PROCESSOR = "models.replay:Replay"
KEY = "flotilla_replay"
"""Name of the text to replay in `SamplingParams.extra_args`."""


class Vocabulary:
    """A byte-level vocabulary (GPT-2's, as in Llama 3, Qwen and SmolLM), sorted by bytes."""

    def __init__(self, tokens: dict[str, int]) -> None:
        pairs = sorted((spelled, id) for token, id in tokens.items() if (spelled := spell(token)) is not None)
        self._spelled = [spelled for spelled, _ in pairs]
        self._ids = torch.tensor([id for _, id in pairs])
        self._by_id = {id: spelled for spelled, id in pairs}
        self._longest = max(map(len, self._spelled))

    def spell(self, ids: list[int]) -> bytes:
        return b"".join(self._by_id.get(id, b"") for id in ids)

    def agreeing(self, rest: bytes) -> torch.Tensor:
        """Ids of the tokens that begin with `rest`, or that `rest` begins with."""
        after = self._ids[
            bisect_left(self._spelled, rest) : bisect_left(self._spelled, rest + b"\xff" * self._longest)
        ]
        before = [
            i for n in range(1, min(len(rest), self._longest + 1)) if (i := self._find(rest[:n])) is not None
        ]
        return torch.cat([after, self._ids[before]]) if before else after

    def _find(self, spelled: bytes) -> int | None:
        at = bisect_left(self._spelled, spelled)
        return at if at < len(self._spelled) and self._spelled[at] == spelled else None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's way to write any byte as a printable character (openai/gpt-2, encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def spell(token: str) -> bytes | None:
    """The bytes of a byte-level token; None for one that is not made of bytes."""
    try:
        return bytes(_ALPHABET[letter] for letter in token)
    except KeyError:
        return None


def is_bytewise(tokenizer: Tokenizer) -> bool:
    """Whether replaying works with this tokeniser."""
    return (json.loads(tokenizer.to_str()).get("decoder") or {}).get("type") == "ByteLevel"


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return Vocabulary(
        {t: i for t, i in tokenizer.get_vocab(with_added_tokens=False).items() if t not in special}
    )


@lru_cache(maxsize=4)
def _load(folder: str) -> Vocabulary | None:
    """None where replaying doesn't work: then nobody asks for it."""
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return vocabulary(tokenizer) if is_bytewise(tokenizer) else None


class Replay(AdapterLogitsProcessor):
    """Holds requests that carry a text to replay to that text; others pass untouched."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        # Now: the folder may be gone when somebody asks, once other weights are loaded in its place.
        self._vocabulary = _load(str(vllm_config.model_config.tokenizer))

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        text: Any = (params.extra_args or {}).get(KEY)
        return _Held(text.encode(), self._vocabulary) if text and self._vocabulary else None


class _Held:
    def __init__(self, text: bytes, vocabulary: Vocabulary) -> None:
        self._text, self._vocabulary = text, vocabulary
        self._caught_up = False

    def __call__(self, output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        if self._caught_up:
            return logits
        rest = self._text[len(self._vocabulary.spell(output_ids)) :]
        self._caught_up = not rest
        return self._hold(rest, logits) if rest else logits

    def _hold(self, rest: bytes, logits: torch.Tensor) -> torch.Tensor:
        allowed = self._vocabulary.agreeing(rest).to(logits.device)
        held = torch.full_like(logits, -torch.inf)
        held[allowed] = logits[allowed]
        return held
