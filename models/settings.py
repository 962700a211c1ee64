"""What an engine is started with: settings travel to the process that opens it, engines don't."""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

from flotilla.core.errors import Misconfigured
from flotilla.core.versions import Version
from models.adapters import RANKS
from models.engines import decode

Device = Literal["auto", "cpu", "gpu"]

# Set before vLLM, torch or huggingface_hub are imported: they read them once.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to say about one vLLM engine. None means: what suits the device.

    `engine` goes to vLLM's `AsyncEngineArgs` as it is and wins over everything else.
    """

    weights: str
    name: str = ""
    """Shown with every reply; the folder's name if empty."""
    device: Device = "auto"
    context_tokens_max: int | None = None
    """Prompt and reply together. The model's own limit on a GPU, 2048 on a CPU."""
    running_max: int | None = None
    """Replies made at once; the others wait. 32 on a CPU, 256 on a GPU."""
    waiting_max: int = 512
    """Replies running and waiting; past it `Overloaded`."""
    kv_cache_bytes: int | None = None
    """512 MB on a CPU; what `gpu_memory_utilization` leaves on a GPU."""
    gpu_memory_utilization: float = 0.9
    threads: int = 0
    """CPU threads of the engine; all cores if 0."""
    ping_fresh_s: float = 10.0
    """`ping` trusts a token this young instead of making one."""
    ping_timeout_s: float = 15.0
    closeness: float = 6.0
    """Head start, in logits, of tokens that go on quoting a prompt's `sources`. 6 keeps a 135M model
    from inventing; 0, no steering, is for models that need none."""
    adapters_max: int = 0
    """LoRA adapters loaded at once; 0 for an engine without."""
    adapter_rank_max: int = 16
    """Rounded up to a rank that vLLM has kernels for."""
    sleep: bool = False
    """Whether the engine can be put to sleep (on a GPU)."""
    log_level: str = "WARNING"
    engine: dict[str, Any] = {}

    @property
    def rank_max(self) -> int:
        return next((rank for rank in RANKS if rank >= self.adapter_rank_max), RANKS[-1])


_GIVEN = {"weights": "source", "model": "source", "name": "name"}
"""Settings that a version has fields of its own for."""


def of_version(version: Version, folder: str, *, name: str, threads: int) -> EngineSettings:
    """What `version` says, for the weights in `folder`. What isn't ours goes to vLLM as it is, which
    knows whether there is such a setting. Raises `Misconfigured` for one of the wrong type or place."""
    ours = set(EngineSettings.__struct_fields__)
    for key in _GIVEN.keys() & version.settings.keys():
        raise Misconfigured(
            f"{key!r} is no setting of an engine.",
            field=f"settings.{key}",
            next=f"Use {_GIVEN[key]} instead.",
        )
    theirs = {key: value for key, value in version.settings.items() if key not in ours}
    said: dict[str, Any] = {"threads": threads, "context_tokens_max": version.context_tokens or None}
    said |= {key: value for key, value in version.settings.items() if key in ours}
    said |= {"weights": folder, "name": name, "engine": theirs | said.get("engine", {})}
    return decode(said, EngineSettings)


def environment(settings: EngineSettings, *, cpu: bool) -> dict[str, str]:
    """Environment variables that vLLM reads in this process and in the engine's."""
    common = {"VLLM_LOGGING_LEVEL": settings.log_level, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if not cpu:
        return common
    # Nothing is compiled in an eager engine but the first reply with logprobs: 14 s in which nobody gets a
    # token, for a function of microseconds.
    eager = {"TORCH_COMPILE_DISABLE": "1"} if settings.engine.get("enforce_eager", True) else {}
    return (
        common
        | eager
        | {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # `auto` keeps a core back
            "OMP_NUM_THREADS": str(threads_of(settings)),  # Ray sets 1
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # allows `uni` below: a process and 1.4 GB less
        }
    )


def threads_of(settings: EngineSettings) -> int:
    """That it computes with on a CPU."""
    return settings.threads or os.cpu_count() or 1


def engine_arguments(settings: EngineSettings, *, cpu: bool) -> dict[str, Any]:
    """Keyword arguments for `AsyncEngineArgs`."""
    fitting = _on_cpu(settings) if cpu else _on_gpu(settings)
    return _common(settings) | fitting | _adapters(settings) | settings.engine


def _common(settings: EngineSettings) -> dict[str, Any]:
    return {
        "model": settings.weights,
        "max_num_queued_reqs": settings.waiting_max,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # the prompt says how to sample, not a file beside the weights
        "enable_log_requests": False,
    }


ADAPTERS_BATCH_MAX = 8
"""Different adapters in one step: the engine's buffers grow with them; others wait for the next."""


def _adapters(settings: EngineSettings) -> dict[str, Any]:
    if not settings.adapters_max:
        return {}
    return {
        "enable_lora": True,
        "max_loras": min(settings.adapters_max, ADAPTERS_BATCH_MAX),
        "max_cpu_loras": settings.adapters_max,
        "max_lora_rank": settings.rank_max,
    }


def _on_cpu(settings: EngineSettings) -> dict[str, Any]:
    """Measured with a 135M model on two cores: bfloat16 is slower than float32 there, and compiling
    costs two minutes for a third more tokens."""
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "block_size": 32,
        "max_model_len": settings.context_tokens_max or 2048,
        "max_num_seqs": settings.running_max or 32,
        "kv_cache_memory_bytes": settings.kv_cache_bytes or 512 << 20,
        "distributed_executor_backend": "uni",
    }


def _on_gpu(settings: EngineSettings) -> dict[str, Any]:
    """vLLM's defaults: bfloat16 where the weights say so, compiled, with CUDA graphs."""
    return {
        "dtype": "auto",
        "max_model_len": settings.context_tokens_max,
        "max_num_seqs": settings.running_max or 256,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enable_sleep_mode": settings.sleep,
    }
