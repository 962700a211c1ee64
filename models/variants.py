"""Other versions to swap to, made from a folder of weights: for tests, demonstrations and benchmarks.

- `rounded`: every weight rounded to bfloat16, and stored so (the built-in folder is float16).
- `squeezed`: the matrices rounded to 8 bits a weight, one scale a row, and stored as float16 again: what an
  8-bit quantisation would say, at the size and speed of float16. It is no quantised checkpoint.
- `adapted`: a LoRA adapter for it, made with `peft`, whose B matrices are small random numbers: it says
  something else than its base, nothing better.
- `tiny`: a llama of 2 layers with random weights and the built-in tokeniser: it loads fast and says nonsense.

    python -m models.variants        prints the folders, making them first if needed
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from flotilla.core.errors import Misconfigured
from models.weights import made_once, prepare

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float32]

RANK = 8
NOISE = 0.02
"""Standard deviation of an adapter's B: enough for other words, too little for nonsense."""


def rounded(folder: Path) -> Path:
    return _beside(folder, "bf16", lambda made: _rewrite(folder, made, _to_bfloat16))


def squeezed(folder: Path) -> Path:
    return _beside(folder, "int8-rounded", lambda made: _rewrite(folder, made, _to_8_bits_and_back))


def adapted(folder: Path, *, name: str = "lora", seed: int = 0, rank: int = RANK) -> Path:
    """A PEFT folder. Another `seed` makes another adapter. Raises `Misconfigured` without `peft`."""
    return _beside(folder, f"{name}-r{rank}-s{seed}", lambda made: _make_adapter(folder, made, seed, rank))


def tiny(cache: Path, *, seed: int = 0, hidden: int = 128) -> Path:
    """Under `cache`, as `models.weights.prepare` does it. Another `seed`: other weights of the same shapes."""
    source = prepare(cache)
    return _beside(source, f"tiny-h{hidden}-s{seed}", lambda made: _make_tiny(source, made, seed, hidden))


def _beside(folder: Path, kind: str, make: Callable[[Path], None]) -> Path:
    made = folder.with_name(f"{folder.name}-{kind}")
    made_once(made, make)
    return made


# -- the same model with other numbers


def _rewrite(source: Path, folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415  (torch takes seconds)

    for path in source.iterdir():
        if path.suffix == ".safetensors":
            changed = {name: change(name, tensor) for name, tensor in load_file(path).items()}
            save_file(changed, folder / path.name, metadata={"format": "pt"})
            (folder / path.name).chmod(0o644)
        elif path.is_file():
            shutil.copy(path, folder / path.name)


def _to_bfloat16(_: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.bfloat16()


def _to_8_bits_and_back(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Symmetric, by row; the embedding and the norms stay as they are, as most quantisations leave them."""
    if tensor.ndim != 2 or "embed" in name:
        return tensor
    values = tensor.float()
    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return ((values / scale).round().clamp(-127, 127) * scale).to(tensor.dtype)


# -- an adapter


def _make_adapter(base: Path, folder: Path, seed: int, rank: int) -> None:
    try:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415  (not needed to run a fleet)
    except ImportError as error:
        raise Misconfigured(
            "peft, which makes adapters, is not installed.", field="peft", next="Run `uv pip install peft`."
        ) from error
    import torch  # noqa: PLC0415  (takes seconds)
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "up_proj"])
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, NOISE)
    model.peft_config["default"].base_model_name_or_path = base.name  # no path of this machine
    model.save_pretrained(folder)


# -- a model of no size


def _make_tiny(source: Path, folder: Path, seed: int, hidden: int) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    said = json.loads((source / "config.json").read_text(encoding="utf-8"))
    inner, layers = 2 * hidden, 2
    shape = {
        "hidden_size": hidden,
        "head_dim": 64,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(said | shape, indent=2), encoding="utf-8")
    weights = random_llama(hidden, inner, layers, said["vocab_size"], seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def random_llama(hidden: int, inner: int, layers: int, vocabulary: int, seed: int) -> dict[str, Array]:
    chance = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        return chance.normal(0, 0.05, (rows, columns)).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(vocabulary, hidden),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    for layer in (f"model.layers.{number}." for number in range(layers)):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{norm}.weight"] = np.ones(hidden, np.float32)
        tensors |= {f"{layer}self_attn.{part}_proj.weight": matrix(hidden, hidden) for part in "qkvo"}
        tensors |= {f"{layer}mlp.{part}_proj.weight": matrix(inner, hidden) for part in ("gate", "up")}
        tensors[f"{layer}mlp.down_proj.weight"] = matrix(hidden, inner)
    return tensors


def main() -> None:
    base = prepare(Path(os.environ.get("FLOTILLA_HOME", ".flotilla")) / "cache")
    for folder in (base, rounded(base), squeezed(base), adapted(base)):
        sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
