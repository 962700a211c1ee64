"""What a folder of weights says of itself: for whoever registers a version, and before an engine sees it.

Reads headers and settings only: of a model of any size, a few kilobytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from models import headers, weights
from models.adapters import CONFIG, TENSORS
from models.checksums import files_of

README_BYTES = 64 * 1024
_LICENCE = re.compile(r"^licen[sc]e:\s*[\"']?([\w.\-+ ]+)", re.MULTILINE | re.IGNORECASE)
_TITLES = {"Apache License": "apache-2.0", "MIT License": "mit", "GNU AFFERO": "agpl-3.0"}
# Its package says so, and GGUF carries it; the converted folder has no README.
_BY_FOLDER = {weights.NAME: "apache-2.0"}


class Inspected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`context_tokens` and `parameters` are 0 where nothing is said. For an adapter `base` is what it says
    it was made for, `rank` its own, and `shapes` the [inputs, outputs] of the base's parts that it changes."""

    architecture: str
    bytes: int = 0
    checksum: str = ""
    context_tokens: int = 0
    parameters: int = 0
    dtype: str = ""
    quantisation: str = ""
    licence: str = ""
    adapter: bool = False
    base: str = ""
    rank: int = 0
    shapes: dict[str, tuple[int, int]] = {}

    def as_json(self) -> str:
        return msgspec.json.encode(self).decode()


def check_folder(folder: Path) -> None:
    """Returns if an engine can be given `folder`, a model or an adapter; raises `Misconfigured` with the
    field `source` and what is missing, cut or mixed up otherwise."""
    if _is_adapter(folder):
        _check_adapter(folder)
    else:
        weights.check(folder)


def inspect(folder: Path, checksum: str = "") -> Inspected:
    """Raises `Misconfigured`, as `check_folder` does."""
    check_folder(folder)
    size = sum(path.stat().st_size for path in files_of(folder))
    found = _inspect_adapter(folder) if _is_adapter(folder) else _inspect_model(folder)
    return msgspec.structs.replace(found, bytes=size, checksum=checksum, licence=licence_of(folder))


def _inspect_model(folder: Path) -> Inspected:
    config, tensors = weights.read_json(folder, "config.json"), weights.tensors(folder)
    return Inspected(
        architecture=str(config["architectures"][0]),
        context_tokens=int(_text_part(config).get("max_position_embeddings") or 0),
        parameters=sum(tensor.elements for tensor in tensors.values()),
        dtype=_dtype(tensors),
        quantisation=str((config.get("quantization_config") or {}).get("quant_method") or ""),
    )


def _inspect_adapter(folder: Path) -> Inspected:
    config, tensors = weights.read_json(folder, CONFIG), _adapter_tensors(folder)
    return Inspected(
        architecture=str(config.get("peft_type") or "LORA"),
        parameters=sum(tensor.elements for tensor in tensors.values()),
        dtype=_dtype(tensors),
        adapter=True,
        base=str(config.get("base_model_name_or_path") or ""),
        rank=int(config.get("r") or 0),
        shapes=_changed(tensors),
    )


def _is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _check_adapter(folder: Path) -> None:
    kind = weights.read_json(folder, CONFIG).get("peft_type", "LORA")
    if kind != "LORA":
        raise weights.broken(
            folder, f"holds an adapter of the type {kind}; engines apply LORA alone", "Train a LoRA adapter."
        )
    if not _changed(_adapter_tensors(folder)):
        raise weights.broken(
            folder,
            "holds an adapter that changes nothing: no lora_A and lora_B",
            "Save it again with PEFT's `save_pretrained`.",
        )


def _adapter_tensors(folder: Path) -> headers.Tensors:
    try:
        return headers.read(folder / TENSORS)
    except headers.Broken as error:
        raise weights.broken(folder, f"has {error}", f"Copy {TENSORS} from the adapter again.") from error


def _changed(tensors: headers.Tensors) -> dict[str, tuple[int, int]]:
    """By the name of the base's part (`model.layers.0.self_attn.q_proj`): [inputs, outputs]."""
    found: dict[str, tuple[int, int]] = {}
    for name, tensor in tensors.items():
        part, lora_a, _ = name.partition(".lora_A")
        other = tensors.get(name.replace(".lora_A", ".lora_B"))
        if lora_a and other:
            found[part.removeprefix("base_model.model.")] = (tensor.shape[1], other.shape[0])
    return found


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """Models that also see have the settings of their text half apart."""
    return config.get("text_config") or config


def _dtype(tensors: headers.Tensors) -> str:
    """As most of the weights are stored; what config.json says is how they were trained."""
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.elements
    return max(sizes, key=lambda dtype: sizes[dtype])


def licence_of(folder: Path) -> str:
    """From README's front matter, config.json, or the title of a LICENSE file; "" if nothing says it."""
    readme = _head(folder, "README.md")
    front = readme.split("---", 2)[1] if readme.startswith("---") and readme.count("---") > 1 else ""
    if found := _LICENCE.search(front):
        return found.group(1).strip().lower()
    for name in ("config.json", CONFIG):
        if (folder / name).is_file() and isinstance(
            said := weights.read_json(folder, name).get("license"), str
        ):
            return said.lower()
    text = _head(folder, "LICENSE") or _head(folder, "LICENSE.txt")
    titled = next((id for title, id in _TITLES.items() if title.lower() in text[:400].lower()), "")
    return titled or next((id for start, id in _BY_FOLDER.items() if folder.name.startswith(start)), "")


def _head(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            return file.read(README_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
