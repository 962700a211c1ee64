"""LoRA on a CPU that leaves those alone who use no adapter. Imported inside vLLM's engine process only, which
finds `Extension` by its name.

vLLM 0.32's kernels for CPUs take "no adapter" (-1) for an index, and so for the last place: a prompt without an
adapter was changed by whichever adapter was there, if another prompt of the same step used one. And in steps
in which nobody uses one they multiply the logits of every token all the same (`benchmarks/adapters.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from models import restraint
from models.paged_worker import Reloading

NAME = f"{__name__}.Sparing"


class Sparing(PunicaWrapperCPU):
    """Does nothing in steps without adapters; in others as vLLM's own, but for the rows of those without."""

    _unused = False
    _bare_tokens = _bare_prompts = torch.empty(0, dtype=torch.long)

    def update_metadata(self, mapping: Any, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(mapping, *args, **kwargs)
        self._bare_tokens = _bare(mapping.index_mapping)
        self._bare_prompts = _bare(mapping.prompt_mapping)
        self._unused = not any(mapping.index_mapping) and not any(mapping.prompt_mapping)

    def add_lora_linear(self, y: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if not self._unused:
            with _kept(y, self._bare_tokens):
                super().add_lora_linear(y, *args, **kwargs)

    def add_lora_embedding(self, y: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if not self._unused:
            with _kept(y, self._bare_tokens):
                super().add_lora_embedding(y, *args, **kwargs)

    def add_lora_logits(self, y: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if not self._unused:
            with _kept(y, self._bare_prompts):
                super().add_lora_logits(y, *args, **kwargs)


def _bare(adapters: Sequence[int]) -> torch.Tensor:
    """The rows without an adapter, whose number is 0."""
    return torch.tensor([row for row, adapter in enumerate(adapters) if not adapter], dtype=torch.long)


@contextmanager
def _kept(made: torch.Tensor, rows: torch.Tensor) -> Generator[None]:
    """These rows are afterwards what they were before."""
    flat = made.view(-1, made.shape[-1])
    before = flat[rows]
    yield
    flat[rows] = before


class Extension(Reloading):
    """What vLLM mixes into its worker: importing it is the one moment before the model is loaded."""


restraint.mind()

if current_platform.is_cpu():
    type(current_platform).get_punica_wrapper = classmethod(lambda _: NAME)  # type: ignore[method-assign]
