"""An engine whose process dies says so at once: to who reads from it, to who asks next, to a ping."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
from safetensors.numpy import save_file

from flotilla.core.errors import Misconfigured, Unavailable
from flotilla.core.generation import ChatMessage, Piece, Prompt
from models.paged import VllmModel
from models.settings import EngineSettings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LONG = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=400, temperature=1.0)


def tiny(folder: Path) -> Path:
    """A llama of 2 layers with random weights and a vocabulary of bytes: it loads fast and says nonsense."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    write(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        chat_template=template,
        eos_token="<|end|>",
    )
    hidden, inner, vocabulary = 128, 256, len(tokens)
    write(
        folder / "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        torch_dtype="float32",
        hidden_act="silu",
        hidden_size=hidden,
        head_dim=64,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=0,
    )
    save_file(random_llama(hidden, inner, vocabulary), folder / "model.safetensors")
    return folder


def random_llama(hidden: int, inner: int, vocabulary: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return chance.normal(0, 0.05, (rows, columns)).astype(np.float32)

    ones = np.ones(hidden, np.float32)
    tensors = {"model.embed_tokens.weight": matrix(vocabulary, hidden), "model.norm.weight": ones}
    for layer in ("model.layers.0.", "model.layers.1."):
        tensors |= {
            f"{layer}{norm}.weight": ones.copy() for norm in ("input_layernorm", "post_attention_layernorm")
        }
        tensors |= {f"{layer}self_attn.{part}_proj.weight": matrix(hidden, hidden) for part in "qkvo"}
        tensors |= {f"{layer}mlp.{part}_proj.weight": matrix(inner, hidden) for part in ("gate", "up")}
        tensors[f"{layer}mlp.down_proj.weight"] = matrix(hidden, inner)
    return tensors


def write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmModel]:
    folder = tiny(tmp_path_factory.mktemp("tiny"))
    settings = EngineSettings(
        weights=str(folder), name="tiny", context_tokens_max=512, kv_cache_bytes=64 << 20
    )
    model = await VllmModel.open(settings)  # perhaps beside the engine of other tests
    yield model
    await model.close()


def engines() -> list[psutil.Process]:
    """Processes of engines, in the order of their start."""
    children = psutil.Process().children(recursive=True)
    return sorted((c for c in children if "EngineCore" in c.name()), key=lambda c: c.create_time())


async def test_a_killed_engine_is_unavailable(model: VllmModel) -> None:
    stream = model.generate(LONG)
    assert isinstance(await anext(stream), Piece)
    engines()[-1].kill()
    with pytest.raises(Unavailable) as lost:
        async for _ in stream:
            pass
    assert lost.value.retry_after_s
    with pytest.raises(Unavailable):
        await model.ping()
    with pytest.raises(Unavailable):
        await anext(model.generate(LONG))


async def test_closing_twice_is_closing_once(model: VllmModel) -> None:
    await model.close()
    await model.close()
    assert "closed" in repr(model)
    assert model.unfinished == 0


async def test_a_bad_folder_never_reaches_the_engine(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no config"):
        await VllmModel.open(EngineSettings(weights=str(tmp_path)))
