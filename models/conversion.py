"""From GGUF to the Hugging Face files that vLLM reads, for llama-architecture models.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and the reordering of rows:
llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from flotilla.core.errors import Misconfigured

Array = npt.NDArray[Any]

# GGUF's names for the parts of a llama block (llama.cpp's convert_hf_to_gguf) and Hugging Face's.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL = 3  # gguf.TokenType.CONTROL: tokens that text never spells


def convert(gguf: Path, folder: Path, progress: Callable[[float], None]) -> None:
    """Writes the Hugging Face files for a llama-architecture GGUF into `folder`."""
    reader = GGUFReader(gguf)
    meta = _Metadata(reader)
    if meta["general.architecture"] != "llama":
        raise Misconfigured(
            f"{gguf.name} holds a {meta['general.architecture']} model; only llama ones are converted.",
            field="weights",
            next="Set `weights` to a Hugging Face folder with config.json and safetensors.",
        )
    _write_json(folder / "config.json", _config(meta))
    _write_json(folder / "generation_config.json", _generation(meta))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(meta))
    _write_tokenizer(folder / "tokenizer.json", meta)
    _write_tensors(folder / "model.safetensors", reader, meta, progress)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


class _Metadata:
    """A GGUF file's key-value header."""

    def __init__(self, reader: Any) -> None:
        self._fields = reader.fields

    def __getitem__(self, key: str) -> Any:
        return self._fields[key].contents()

    def token(self, role: str) -> str:
        return self["tokenizer.ggml.tokens"][self[f"tokenizer.ggml.{role}_token_id"]]


def _config(meta: _Metadata) -> dict[str, Any]:
    heads, hidden = meta["llama.attention.head_count"], meta["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",  # as it was trained; the file holds float16
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": hidden // heads,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "max_position_embeddings": meta["llama.context_length"],
        "rope_theta": meta["llama.rope.freq_base"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": meta["llama.vocab_size"],
        "tie_word_embeddings": True,
    } | _generation(meta)


def _generation(meta: _Metadata) -> dict[str, Any]:
    return {f"{role}_token_id": meta[f"tokenizer.ggml.{key}_token_id"] for role, key in _ROLES.items()}


_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding"}


def _tokenizer_config(meta: _Metadata) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": meta["tokenizer.chat_template"],
        "model_max_length": meta["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "unk_token": meta.token("unknown"),
    } | {f"{role}_token": meta.token(key) for role, key in _ROLES.items()}


def _write_tokenizer(path: Path, meta: _Metadata) -> None:
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    # What GGUF calls the `smollm` pre-tokenizer: digits one by one, then GPT-2's bytes.
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), bytewise]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.save(str(path))


def _write_tensors(path: Path, reader: Any, meta: _Metadata, progress: Callable[[float], None]) -> None:
    tensors: dict[str, Array] = {}
    for done, tensor in enumerate(reader.tensors, 1):
        values = dequantize(tensor.data, tensor.tensor_type)
        # float16 holds what Q4_1 and Q8_0 can say (their scales are float16) in half the bytes.
        tensors[hf_name(tensor.name)] = _unpermute(tensor.name, values, meta).astype(np.float16)
        progress(done / len(reader.tensors))
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes it for the owner only


def hf_name(gguf_name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    part, *rest = gguf_name.split(".")
    if part != "blk":
        return ".".join((_TOP[part], *rest))
    layer, inner, *rest = rest
    return ".".join(("model.layers", layer, _BLOCK[inner], *rest))


def _unpermute(name: str, values: Array, meta: _Metadata) -> Array:
    """Undoes the reordering of query and key rows that convert_hf_to_gguf does for llama's rotary."""
    if "attn_q" in name:
        heads = meta["llama.attention.head_count"]
    elif "attn_k" in name:
        heads = meta["llama.attention.head_count_kv"]
    else:
        return values
    paired = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return paired.swapaxes(1, 2).reshape(values.shape)
