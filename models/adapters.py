"""LoRA adapters: whether one fits its base, and which of them an engine has loaded.

A PEFT folder names the base's parts that it changes, and has two thin matrices for each: A, [rank, inputs],
and B, [outputs, rank]. Their headers tell an adapter for another base apart before an engine sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from flotilla.core.errors import AdapterMissing, Misconfigured, Overloaded
from models import headers, weights

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM's kernels are made for (vllm.config.lora.MaxLoRARanks)."""
BUSY_RETRY_S = 2.0
# Variants that PEFT knows and vLLM's engine doesn't (vllm.lora.peft_helper).
_UNSUPPORTED = ("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "modules_to_save")
_PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.weight)?")


def check(folder: Path, base_folder: Path, *, rank_max: int = RANKS[-1]) -> None:
    """Returns if the adapter in `folder` fits the model in `base_folder`; raises `Misconfigured` (field
    `adapter`) that says why not otherwise. Reads headers only."""
    config = _config(folder)
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if rank > rank_max:
        raise _unfit(
            folder,
            f"has rank {rank}, the engine takes {rank_max}",
            f"Set adapter_rank_max to {rank} or more.",
        )
    base = weights.tensors(base_folder)
    for name, tensor in _tensors(folder).items():
        _check_tensor(folder, name, tensor.shape, base, rank)


def _config(folder: Path) -> dict[str, Any]:
    again = f"Copy {CONFIG} from the adapter again."
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        raise _unfit(folder, f"has no {CONFIG}", "Give the folder that PEFT saved the adapter to.") from None
    except ValueError as error:
        raise _unfit(folder, f"has a broken {CONFIG} ({error})", again) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _unfit(folder, "is no LoRA adapter", "Give the folder of a LoRA that PEFT saved.")
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise _unfit(folder, f"has no rank (`r`) in {CONFIG}", again)
    if odd := [key for key in _UNSUPPORTED if config.get(key)]:
        raise _unfit(folder, f"uses {', '.join(odd)}", "Train a plain LoRA adapter.")
    return config


def _tensors(folder: Path) -> headers.Tensors:
    try:
        return headers.read(folder / TENSORS)
    except headers.Broken as error:
        raise _unfit(folder, f"has {error}", f"Copy {TENSORS} from the adapter again.") from error


def _check_tensor(folder: Path, name: str, shape: list[int], base: headers.Tensors, rank: int) -> None:
    named = _PART.fullmatch(name)
    if named is None:
        raise _unfit(folder, f"holds {name}, which is no part of a LoRA", "Train a plain LoRA adapter.")
    part, matrix = named[1], named[2].removeprefix("embedding_")
    if len(shape) != 2:
        raise _unfit(folder, f"holds {name} of shape {shape}, no matrix", "Train a plain LoRA adapter.")
    changed = base.get(f"{part}.weight")
    if changed is None and any(name.startswith(f"{part}.") for name in base):
        return  # packed by a quantisation: its shape says nothing
    other = "Load it on the base that it was trained for."
    if changed is None:
        raise _unfit(folder, f"is for another base: this one has no {part}", other)
    outputs, inputs = changed.shape if "embedding" not in named[2] else changed.shape[::-1]
    thin, wide = shape if matrix == "A" else shape[::-1]
    if wide != (inputs if matrix == "A" else outputs) or thin > rank:
        raise _unfit(
            folder, f"is for another base: its {name} is {shape}, the base's {part} is {changed.shape}", other
        )


def _unfit(folder: Path, what: str, next: str) -> Misconfigured:
    return Misconfigured(f"The adapter in {folder} {what}.", field="adapter", next=next)


class Adapter:
    """One that is loaded. `number` and `label` are the engine's names for it, new with every load, so that
    no prefix cached for other weights is taken for its own."""

    def __init__(self, id: str, folder: str, number: int) -> None:
        self.id, self.folder, self.number = id, folder, number
        self.label = f"{id}#{number}"
        self.users = 0


class Shelf:
    """Which adapters are loaded, up to `most`; those that were unloaded while somebody used them keep their
    place until nobody does."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: dict[str, Adapter] = {}  # in the order of their last use
        self._leaving: list[Adapter] = []
        self._numbers = count(1)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    @contextmanager
    def using(self, id: str) -> Generator[Adapter | None]:
        """The adapter, kept while it is used; None for the id "". Raises `AdapterMissing`."""
        if not id:
            yield None
            return
        adapter = self._loaded.pop(id, None)
        if adapter is None:
            raise AdapterMissing(
                f"The adapter {id} is not loaded here.",
                field="adapter",
                next="Load it, or ask a replica that has it.",
                retry_after_s=BUSY_RETRY_S,
            )
        self._loaded[id] = adapter
        adapter.users += 1
        try:
            yield adapter
        finally:
            adapter.users -= 1

    def made(self, id: str, folder: str) -> Adapter:
        """One to be put on the shelf once the engine has it."""
        return Adapter(id, folder, next(self._numbers))

    def put(self, adapter: Adapter) -> None:
        self._loaded[adapter.id] = adapter

    def take(self, id: str) -> None:
        """Nobody new may use it; nothing if there is none of that id."""
        if adapter := self._loaded.pop(id, None):
            self._leaving.append(adapter)

    def make_room(self) -> None:
        """Takes the least recently used one if the shelf is full. Raises `Overloaded` if all are in use."""
        if len(self._loaded) + sum(adapter.users > 0 for adapter in self._leaving) < self._most:
            return
        idle = next((adapter for adapter in self._loaded.values() if not adapter.users), None)
        if idle is None:
            raise Overloaded(
                f"All {self._most} places for adapters are in use.",
                field="adapter",
                next="Try again, or raise adapters_max.",
                retry_after_s=BUSY_RETRY_S,
            )
        self.take(idle.id)

    def gone(self) -> list[Adapter]:
        """Those that the engine can drop now: each is named once."""
        idle = [adapter for adapter in self._leaving if not adapter.users]
        self._leaving = [adapter for adapter in self._leaving if adapter.users]
        return idle
