"""Weights: converted once, whole or not at all, and checked before vLLM sees them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flotilla.core.errors import Misconfigured
from models import conversion, weights
from models.weights import check, prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The smallest folder that passes."""
    write(tmp_path / "config.json", architectures=["X"], model_type="x", vocab_size=4, hidden_size=2)
    write(tmp_path / "tokenizer.json")
    write(tmp_path / "tokenizer_config.json", chat_template="{{ messages }}")
    save_file({"model.embed_tokens.weight": np.zeros((4, 2), np.float16)}, tmp_path / "model.safetensors")
    return tmp_path


def write(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def test_a_whole_folder_passes(folder: Path) -> None:
    check(folder)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "half a config": (lambda f: cut(f / "config.json"), "broken config.json"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "no architecture": (lambda f: write(f / "config.json", model_type="x"), "`architectures`"),
    "no tokeniser": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "no template": (lambda f: write(f / "tokenizer_config.json"), "no chat template"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "cut tensors": (lambda f: cut(f / "model.safetensors"), "cut model.safetensors"),
    "other bytes": (lambda f: (f / "model.safetensors").write_bytes(b"GGUF" * 9), "broken model.safetensors"),
    "an empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), "broken model.safetensors"),
    "a missing shard": (
        lambda f: write(f / "model.safetensors.index.json", weight_map={"a": "b.safetensors"}),
        "no b.safetensors",
    ),
    "two models": (
        lambda f: write(f / "config.json", architectures=["X"], model_type="x", vocab_size=9, hidden_size=2),
        "mixes two models",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_is_named_with_the_next_move(folder: Path, name: str) -> None:
    spoil, message = BREAKS[name]
    spoil(folder)
    with pytest.raises(Misconfigured) as broken:
        check(folder)
    assert message in broken.value.detail
    assert str(folder) in broken.value.detail
    assert broken.value.field == "source"
    assert broken.value.next


def test_a_path_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not a folder"):
        check(tmp_path / "nothing")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Misconfigured) as missing:
        weights.source()
    assert weights.PACKAGE in (missing.value.next or "")


def test_converts_once_and_a_killed_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = conversion.convert, []

    def killed(gguf: Path, folder: Path, progress: Callable[[float], None]) -> None:
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert not [path for path in (tmp_path / "weights").glob("*") if path.suffix not in (".lock", ".partial")]

    monkeypatch.setattr(conversion, "convert", lambda *a: calls.append(1) or real(*a))
    progress: list[float] = []
    first, second = prepare(tmp_path, progress.append), prepare(tmp_path)
    assert first == second
    assert calls == [1]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert not list((tmp_path / "weights").glob("*.partial"))


def test_names_of_llama_parts() -> None:
    assert conversion.hf_name("blk.3.attn_q.weight") == "model.layers.3.self_attn.q_proj.weight"
    assert conversion.hf_name("output_norm.weight") == "model.norm.weight"
