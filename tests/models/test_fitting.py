"""What can't work is found by headers: other shapes, too large, another base. Nothing is loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flotilla.core.errors import AdapterMissing, Misconfigured, Overloaded
from models import adapters
from models.adapters import Shelf
from models.fitting import check_architecture, check_like, check_memory, free_bytes, weight_bytes
from models.variants import adapted, rounded, squeezed, tiny
from models.weights import check, tensors

CACHE = Path(os.environ.get("FLOTILLA_HOME", Path(__file__).parents[2] / ".flotilla")) / "cache"


@pytest.fixture(scope="module")
def base() -> Path:
    return tiny(CACHE)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(field: str, what: str, call: Callable[[], None]) -> None:
    with pytest.raises(Misconfigured, match=what) as error:
        call()
    assert (error.value.field, bool(error.value.next)) == (field, True)


def test_an_unknown_architecture_is_named(base: Path) -> None:
    check_architecture(base, {"LlamaForCausalLM"})
    refused("source", "holds a LlamaForCausalLM", lambda: check_architecture(base, {"Other"}))


def test_too_large_says_the_numbers(base: Path) -> None:
    whole = weight_bytes(base, "float32")
    assert whole == 2 * weight_bytes(base, "bfloat16") > 25_000_000

    def at(free: int) -> None:
        check_memory(base, dtype="float32", cache_bytes=10**9, available_bytes=free, where="this machine")

    at(whole + 10**9)
    refused("source", r"0\.03 GB of weights and 1\.00 GB of KV cache, 0\.50 GB", lambda: at(5 * 10**8))
    assert 0 < free_bytes() < 1 << 50


def test_a_tensor_of_the_index_in_no_shard(base: Path, tmp_path: Path) -> None:
    folder = copied(base, tmp_path / "sharded")
    index = {"weight_map": dict.fromkeys([*tensors(base), "model.layers.2.extra"], "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("source", "model.layers.2.extra", lambda: check(folder))


def test_variants_are_whole_and_other_in_bytes(base: Path) -> None:
    ours = load_file(base / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    for folder in (rounded(base), squeezed(base), tiny(CACHE, seed=1)):
        check_like(folder, base)
        assert (folder / "model.safetensors").read_bytes() != (base / "model.safetensors").read_bytes()
    eight = load_file(squeezed(base) / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert 0 < np.abs(eight - ours).max() < np.abs(ours).max() / 100
    assert all(len(np.unique(row)) <= 255 for row in eight)


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("architectures", lambda f: change(f / "config.json", architectures=["MistralForCausalLM"])),
        ("tokenizer.json", lambda f: change(f / "tokenizer.json", version="2.0")),
        ("no model.norm.weight", lambda f: keep(f, lambda name: name != "model.norm.weight")),
    ],
)
def test_what_cannot_take_a_place(
    base: Path, tmp_path: Path, what: str, spoil: Callable[[Path], None]
) -> None:
    folder = copied(base, tmp_path / "other")
    spoil(folder)
    refused("source", what, lambda: check_like(folder, base))


def keep(folder: Path, wanted: Callable[[str], bool]) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if wanted(name)}, path)


def test_other_shapes_cannot_take_a_place(base: Path) -> None:
    refused("source", r"its .* is \[", lambda: check_like(tiny(CACHE, hidden=256), base))


def test_an_adapter_fits_its_base_only(base: Path) -> None:
    adapters.check(adapted(base), base)
    refused("adapter", "another base", lambda: adapters.check(adapted(base), tiny(CACHE, hidden=256)))
    refused("adapter", "rank 8, the engine takes 4", lambda: adapters.check(adapted(base), base, rank_max=4))


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("no adapter_config.json", lambda f: (f / "adapter_config.json").unlink()),
        ("broken adapter_config.json", lambda f: os.truncate(f / "adapter_config.json", 20)),
        ("cut adapter_model.safetensors", lambda f: os.truncate(f / "adapter_model.safetensors", 9000)),
        ("no adapter_model.safetensors", lambda f: (f / "adapter_model.safetensors").unlink()),
        ("is no LoRA", lambda f: change(f / "adapter_config.json", peft_type="IA3")),
        ("use_dora", lambda f: change(f / "adapter_config.json", use_dora=True)),
        ("no rank", lambda f: change(f / "adapter_config.json", r=0)),
    ],
)
def test_a_broken_adapter(base: Path, tmp_path: Path, what: str, spoil: Callable[[Path], None]) -> None:
    folder = copied(adapted(base), tmp_path / "lora")
    spoil(folder)
    refused("adapter", what, lambda: adapters.check(folder, base))


def test_a_shelf_lets_the_least_recently_used_go() -> None:
    shelf = Shelf(2)
    for id in "ab":
        shelf.put(shelf.made(id, id))
    with shelf.using("a"):
        shelf.make_room()
    assert shelf.ids == ("a",)
    assert [adapter.id for adapter in shelf.gone()] == ["b"]
    assert shelf.gone() == []


def test_a_shelf_keeps_what_is_used() -> None:
    shelf = Shelf(1)
    shelf.put(shelf.made("a", "a"))
    with shelf.using("a"):
        with pytest.raises(Overloaded):
            shelf.make_room()
        shelf.take("a")
        assert shelf.gone() == []
        with pytest.raises(AdapterMissing), shelf.using("a"):
            pass
        with pytest.raises(Overloaded):
            shelf.make_room()
    assert len(shelf.gone()) == 1
    shelf.make_room()
