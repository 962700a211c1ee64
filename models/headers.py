"""What safetensors files say of themselves before their data: names, shapes, types and sizes.

Format: u64 length, JSON, data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec

HEADER_BYTES_MAX = 100_000_000  # safetensors' own limit


class Tensor(msgspec.Struct, frozen=True):
    """`dtype` is safetensors' own name for it (`F16`)."""

    shape: list[int]
    bytes: int
    dtype: str = ""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


Tensors = dict[str, Tensor]


class Broken(Exception):
    """A file that is missing, cut, or something else; the message goes behind "has …"."""


def read(path: Path) -> Tensors:
    """By name. Raises `Broken` for a file that is not whole."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, HEADER_BYTES_MAX)))
            size = file.seek(0, os.SEEK_END)
        header.pop("__metadata__", None)
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        tensors = {name: _tensor(tensor) for name, tensor in header.items()}
    except FileNotFoundError:
        raise Broken(f"no {path.name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"a broken {path.name} (no safetensors header)") from error
    if size != 8 + length + end:
        raise Broken(f"a cut {path.name}: {size} bytes of {8 + length + end}")
    return tensors


def _tensor(said: dict[str, Any]) -> Tensor:
    begin, end = said["data_offsets"]
    return Tensor(list(said["shape"]), end - begin, said["dtype"])
