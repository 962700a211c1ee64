"""What a version says reaches its engine: ours under our names, vLLM's under its own."""

from __future__ import annotations

from typing import Any

import pytest

from flotilla.core.errors import Misconfigured
from flotilla.core.versions import Version
from models.settings import EngineSettings, engine_arguments, environment, of_version


def settings(**said: Any) -> EngineSettings:
    version = Version(model="m", name="1", source="/w", context_tokens=4096, settings=said)
    return of_version(version, "/w", name="m@1", threads=3)


def test_ours_and_theirs() -> None:
    made = settings(running_max=8, tensor_parallel_size=2, quantization="fp8")
    assert (made.weights, made.name, made.threads, made.running_max) == ("/w", "m@1", 3, 8)
    arguments = engine_arguments(made, cpu=False)
    assert (arguments["tensor_parallel_size"], arguments["quantization"]) == (2, "fp8")
    assert arguments["max_model_len"] == 4096
    assert engine_arguments(settings(max_model_len=100), cpu=True)["max_model_len"] == 100


def test_the_version_has_the_last_word() -> None:
    assert settings(threads=1, context_tokens_max=10).threads == 1
    assert settings(context_tokens_max=10).context_tokens_max == 10
    assert settings(engine={"seed": 7}, dtype="bfloat16").engine == {"seed": 7, "dtype": "bfloat16"}


@pytest.mark.parametrize("key", ["weights", "model", "name"])
def test_what_a_version_has_fields_for_is_no_setting(key: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        settings(**{key: "x"})
    assert refused.value.field == f"settings.{key}"


def test_a_setting_of_the_wrong_type_is_named() -> None:
    with pytest.raises(Misconfigured) as refused:
        settings(running_max="many")
    assert refused.value.field == "settings.running_max"


def test_adapters_ask_for_places_and_a_rank_with_kernels() -> None:
    assert "enable_lora" not in engine_arguments(settings(), cpu=True)
    arguments = engine_arguments(settings(adapters_max=20, adapter_rank_max=20), cpu=True)
    named = ("enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank")
    assert [arguments[key] for key in named] == [True, 8, 20, 32]


def test_nothing_is_compiled_in_an_eager_engine() -> None:
    assert environment(settings(), cpu=True)["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in environment(settings(enforce_eager=False), cpu=True)
    assert "TORCH_COMPILE_DISABLE" not in environment(settings(), cpu=False)
