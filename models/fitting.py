"""Whether weights fit: the engine's architectures, the machine's memory, the engine that runs already.

Compared by what the headers say, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import psutil

from models import headers
from models.weights import broken, check, read_json, tensors

CGROUP = Path("/sys/fs/cgroup")
BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "half": 2, "float16": 2}
"""Of a parameter, by vLLM's `dtype`; as in the files for any other."""


def check_architecture(folder: Path, supported: Collection[str]) -> None:
    """Raises `Misconfigured` (`source`) if the engine knows none of the model's architectures."""
    named = [str(name) for name in read_json(folder, "config.json").get("architectures") or ()]
    if not set(named) & set(supported):
        raise broken(
            folder,
            f"holds a {', '.join(named)}, which the engine can't run",
            "Use a model of an architecture that vLLM lists as supported.",
        )


def free_bytes() -> int:
    """Memory that this process could still take: the machine's, or its container's if that is less."""
    free = psutil.virtual_memory().available
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no cgroup (v2), or one without a limit: "max"
        return free


def check_memory(folder: Path, *, dtype: str, cache_bytes: int, available_bytes: int, where: str) -> None:
    """Raises `Misconfigured` (`source`), with the numbers, if weights and KV cache together are larger than
    what there is `where` ("the machine")."""
    weights = weight_bytes(folder, dtype)
    if weights + cache_bytes > available_bytes:
        raise broken(
            folder,
            f"is too large for {where}: {_gb(weights)} of weights and {_gb(cache_bytes)} of KV cache, "
            f"{_gb(available_bytes)} are free",
            "Use a smaller or quantised model, a smaller kv_cache_bytes, or more memory or GPUs.",
        )


def weight_bytes(folder: Path, dtype: str) -> int:
    """What the weights take once they are loaded as `dtype`."""
    each = BYTES.get(dtype)
    return sum(t.elements * each if each else t.bytes for t in tensors(folder).values())


def _gb(bytes: int) -> str:
    return f"{bytes / 1e9:.2f} GB"


def check_like(folder: Path, running: Path) -> None:
    """Raises `Misconfigured` (`source`) unless `folder` can take the place of what runs from `running`: the
    same architecture, tensors of the same names and shapes, the same tokeniser."""
    check(folder)
    ours, theirs = (read_json(path, "config.json") for path in (running, folder))
    for key in ("architectures", "model_type", "quantization_config", "rope_theta", "rope_scaling"):
        if ours.get(key) != theirs.get(key):
            raise _other(folder, f"its {key} is {theirs.get(key)}, that of what runs is {ours.get(key)}")
    if difference := _difference(tensors(running), tensors(folder)):
        raise _other(folder, difference)
    if (running / "tokenizer.json").read_bytes() != (folder / "tokenizer.json").read_bytes():
        raise _other(folder, "its tokenizer.json is another one")


def _difference(running: headers.Tensors, offered: headers.Tensors) -> str:
    """The first difference in names or shapes, in words; "" if there is none."""
    for name in sorted(running.keys() | offered.keys()):
        if name not in offered:
            return f"it has no {name}"
        if name not in running:
            return f"what runs has no {name}"
        if running[name].shape != offered[name].shape:
            return f"its {name} is {offered[name].shape}, that of what runs is {running[name].shape}"
    return ""


def _other(folder: Path, why: str) -> Exception:
    return broken(
        folder, f"can't be loaded in place: {why}", "Start replicas of it beside the ones that run instead."
    )
