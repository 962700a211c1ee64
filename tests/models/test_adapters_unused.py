"""Who uses no adapter pays for none, and who uses one gets what vLLM's own kernels make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.paged_start import import_vllm

RANK, WIDTH, WORDS = 4, 16, 32


@pytest.fixture(scope="module", autouse=True)
def vllm() -> None:
    import_vllm()


def mapping(*adapters: int) -> Any:
    """One prompt a number, each of one token."""
    return SimpleNamespace(index_mapping=adapters, prompt_mapping=adapters, is_prefill=True)


def wrapped(kind: Any, *adapters: int) -> Any:
    wrapper = kind(8, 4, "cpu")
    wrapper.update_metadata(mapping(*adapters), [1, 2], 2, WORDS)
    return wrapper


def logits(wrapper: Any) -> torch.Tensor:
    torch.manual_seed(7)
    made = torch.zeros(2, WORDS)
    wrapper.add_lora_logits(
        made, torch.randn(2, WIDTH), torch.randn(2, 1, RANK, WIDTH), torch.randn(2, 1, WORDS, RANK), 1.0
    )
    return made


def linear(wrapper: Any) -> torch.Tensor:
    torch.manual_seed(7)
    made = torch.zeros(2, WIDTH)
    wrapper.add_lora_linear(
        made,
        torch.randn(2, WIDTH),
        (torch.randn(2, 1, RANK, WIDTH),),
        (torch.randn(2, 1, WIDTH, RANK),),
        1.0,
        (WIDTH,),
    )
    return made


@pytest.mark.parametrize("add", [logits, linear])
@pytest.mark.parametrize("adapters", [(1, 1), (1, 0), (0, 1), (2, 0), (2, 1)])
def test_whoever_uses_one_has_it_and_nobody_else(add: Any, adapters: tuple[int, int]) -> None:
    """Both places are taken: vLLM's own wrapper gives those without an adapter the one in the last place."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from models.paged_sparing import Sparing

    expected, made = add(wrapped(PunicaWrapperCPU, *adapters)), add(wrapped(Sparing, *adapters))
    for row, adapter in enumerate(adapters):
        assert torch.equal(made[row], expected[row]) if adapter else not made[row].any()
        assert not adapter or made[row].any()


@pytest.mark.parametrize("add", [logits, linear])
def test_nothing_is_done_where_nobody_uses_one(add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from models.paged_sparing import Sparing

    for name in ("add_lora_logits", "add_lora_linear"):
        monkeypatch.setattr(PunicaWrapperCPU, name, None)
    assert not add(wrapped(Sparing, 0, 0)).any()


def test_the_engine_takes_it() -> None:
    from vllm.platforms import current_platform

    from models import paged_sparing

    assert not current_platform.is_cpu() or current_platform.get_punica_wrapper() == paged_sparing.NAME
