"""A BERT encoder as an ONNX graph, written straight from its safetensors weights.

ONNX Runtime reads a protobuf. torch's exporters would make one, but they want torch, `onnx` and ten seconds
of somebody's start-up; written here it takes half a second, every time, with nothing to cache. The nodes
are ONNX Runtime's fused BERT operators (domain `com.microsoft`), which its optimiser would otherwise have
to find again in an exported graph.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
Operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[np.float32]]

FLOAT, INT32 = 1, 6
IR_VERSION, OPSET = 8, 17


class BertShape(msgspec.Struct, frozen=True):
    """The fields of a checkpoint's config.json that decide the graph."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    hidden_act: str
    max_position_embeddings: int


def bert_model(weights: Weights, shape: BertShape) -> bytes:
    """A serialised ONNX model.

    Inputs `ids` and `mask`, int32 `(batch, tokens)`; output `states`, float32
    `(batch, tokens, hidden_size)`. Only the exact (erf) GELU is supported.
    """
    assert shape.hidden_act == "gelu", shape.hidden_act
    tensors = _embedding_tensors(weights) | {
        name: tensor for n in range(shape.num_hidden_layers) for name, tensor in _layer_tensors(weights, n)
    }
    nodes = [_embed(shape), *(node for n in range(shape.num_hidden_layers) for node in _layer(n, shape))]
    graph = b"".join(
        (
            *(_bytes(1, node) for node in nodes),
            _bytes(2, b"bert"),
            *(_bytes(5, _tensor(name, tensor)) for name, tensor in tensors.items()),
            *(_bytes(11, _value(name, INT32, ("batch", "tokens"))) for name in ("ids", "mask")),
            _bytes(12, _value("states", FLOAT, ("batch", "tokens", shape.hidden_size))),
        )
    )
    opsets = (_bytes(1, b"") + _int(2, OPSET), _bytes(1, b"com.microsoft") + _int(2, 1))
    return _int(1, IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, opset) for opset in opsets)


# --- weights, as the fused operators want them: (in, out), and query, key and value side by side ---


def _embedding_tensors(weights: Weights) -> dict[str, npt.NDArray[np.float32]]:
    return {
        "words": weights["embeddings.word_embeddings.weight"],
        "positions": weights["embeddings.position_embeddings.weight"],
        "segments": weights["embeddings.token_type_embeddings.weight"],
        "norm.gamma": weights["embeddings.LayerNorm.weight"],
        "norm.beta": weights["embeddings.LayerNorm.bias"],
    }


def _layer_tensors(weights: Weights, n: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    def of(name: str) -> npt.NDArray[np.float32]:
        return weights[f"encoder.layer.{n}.{name}"]

    parts = ("query", "key", "value")
    yield f"{n}.qkv.w", np.concatenate([of(f"attention.self.{p}.weight").T for p in parts], axis=1)
    yield f"{n}.qkv.b", np.concatenate([of(f"attention.self.{p}.bias") for p in parts])
    for ours, theirs in (("mix", "attention.output"), ("out", "output")):
        yield f"{n}.{ours}.w", of(f"{theirs}.dense.weight").T
        yield f"{n}.{ours}.b", of(f"{theirs}.dense.bias")
        yield f"{n}.{ours}.gamma", of(f"{theirs}.LayerNorm.weight")
        yield f"{n}.{ours}.beta", of(f"{theirs}.LayerNorm.bias")
    yield f"{n}.up.w", of("intermediate.dense.weight").T
    yield f"{n}.up.b", of("intermediate.dense.bias")


# --- nodes ---


def _embed(shape: BertShape) -> bytes:
    inputs = ("ids", "", "words", "positions", "segments", "norm.gamma", "norm.beta")
    return _fused("EmbedLayerNormalization", inputs, ("x0", "unused"), epsilon=shape.layer_norm_eps)


def _layer(n: int, shape: BertShape) -> Iterator[bytes]:
    x, out = f"x{n}", "states" if n == shape.num_hidden_layers - 1 else f"x{n + 1}"

    def at(*names: str) -> tuple[str, ...]:
        return tuple(f"{n}.{name}" for name in names)

    def add_norm(inputs: tuple[str, ...], output: str) -> bytes:
        return _fused("SkipLayerNormalization", inputs, (output,), epsilon=shape.layer_norm_eps)

    heads = shape.num_attention_heads
    yield _fused("Attention", (x, *at("qkv.w", "qkv.b"), "mask"), at("attended"), num_heads=heads)
    yield _node("MatMul", at("attended", "mix.w"), at("mixed"))
    yield add_norm((*at("mixed"), x, *at("mix.gamma", "mix.beta", "mix.b")), f"{n}.y")
    yield _node("MatMul", at("y", "up.w"), at("wide"))
    yield _fused("BiasGelu", at("wide", "up.b"), at("active"))
    yield _node("MatMul", at("active", "out.w"), at("narrow"))
    yield add_norm(at("narrow", "y", "out.gamma", "out.beta", "out.b"), out)


def _fused(op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **attributes: float) -> bytes:
    return _node(op, inputs, outputs, **attributes) + _bytes(7, b"com.microsoft")


def _node(op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **attributes: float) -> bytes:
    names = [(1, name) for name in inputs] + [(2, name) for name in outputs]
    return b"".join(
        (
            *(_bytes(field, name.encode()) for field, name in names),
            _bytes(3, outputs[0].encode()),
            _bytes(4, op.encode()),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
        )
    )


def _attribute(name: str, value: float) -> bytes:
    kind = _int(3, value) + _int(20, 2) if isinstance(value, int) else _float(2, value) + _int(20, 1)
    return _bytes(1, name.encode()) + kind


def _tensor(name: str, tensor: npt.NDArray[np.float32]) -> bytes:
    dims = b"".join(_int(1, dim) for dim in tensor.shape)
    return dims + _int(2, FLOAT) + _bytes(8, name.encode()) + _bytes(9, tensor.astype("<f4").tobytes())


def _value(name: str, kind: int, shape: tuple[str | int, ...]) -> bytes:
    dims = (_int(1, dim) if isinstance(dim, int) else _bytes(2, dim.encode()) for dim in shape)
    tensor_type = _int(1, kind) + _bytes(2, b"".join(_bytes(1, dim) for dim in dims))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor_type))


# --- protobuf's wire format: varint 0, length-delimited 2, fixed32 5 ---


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
