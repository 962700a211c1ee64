"""What vLLM is asked for beside replies."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from flotilla.core.errors import Misconfigured, Unavailable
from models.adapters import Adapter
from models.paged_reply import lora_of, translate
from models.paged_worker import RELOAD

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")


async def translated(waiting: Awaitable[T]) -> T:
    try:
        return await waiting
    except Exception as error:
        translate(error)


async def add(engine: AsyncLLM, adapter: Adapter) -> None:
    try:
        await engine.add_lora(lora_of(adapter))
    except Exception as error:
        if engine.errored:
            translate(error)
        raise Misconfigured(
            f"The engine can't load the adapter in {adapter.folder}: {error}",
            field="adapter",
            next="Load it on the base that it was trained for.",
        ) from error


async def load_weights(engine: AsyncLLM, folder: str) -> None:
    """Nothing is generated meanwhile, not even what was cancelled a moment ago; no cached prefix is left."""
    await engine.pause_generation(mode="abort")
    try:
        await engine.collective_rpc(RELOAD, kwargs={"weights_path": folder})
        if not await engine.reset_prefix_cache():
            raise Unavailable("The prefix cache is in use.")
    finally:
        await engine.resume_generation()


def let_go(engine: AsyncLLM) -> None:
    """Ends what waits on the engine: `shutdown` leaves those readers waiting for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError  # noqa: PLC0415  (see `import_vllm`)

    if engine.output_handler is not None:
        engine.output_handler.cancel()
    engine.output_processor.propagate_error(EngineDeadError())
