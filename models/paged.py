"""vLLM behind the `Engine` port: paged attention, continuous batching, a prefix cache, adapters.

The engine runs in a process of its own; this one holds its client and never blocks. All of vLLM's
exceptions end here or in `paged_reply`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import msgspec

from flotilla.core.errors import Conflict, Misconfigured, Unsupported
from flotilla.core.generation import ChatMessage, EngineLoad, Generated, Prompt
from flotilla.core.versions import Version
from models import adapters
from models.adapters import Adapter, Shelf
from models.chat import ChatEncoder
from models.fitting import check_like
from models.neighbours import Seat
from models.paged_calls import add, let_go, load_weights, translated
from models.paged_load import Gauge
from models.paged_reply import Reply, down, lora_of, nothing_left, sampling, tokens_of, translate
from models.paged_schema import checked_constraint
from models.paged_start import encoder_of, on_cpu, seated, start
from models.settings import EngineSettings, of_version

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

PING = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=1)


async def open_engine(version: Version, folder: str, *, name: str, threads: int) -> VllmModel:
    """The engine of `version`, whose weights are in `folder`. `threads` 0 is all cores, unless the settings
    of the version say otherwise. Raises `Misconfigured`."""
    return await VllmModel.open(of_version(version, folder, name=name, threads=threads))


class VllmModel:
    """One vLLM engine. Made by `open`; `close` ends its process."""

    def __init__(
        self, started: tuple[AsyncLLM, ChatEncoder], settings: EngineSettings, gauge: Gauge, seat: Seat
    ) -> None:
        self._running: AsyncLLM | None = started[0]
        self._encoder = started[1]
        self._settings = settings
        self._gauge = gauge
        self._seat = seat
        self._shelf = Shelf(settings.adapters_max)
        self._changing = asyncio.Lock()
        self._requests = count(1)
        self._token_at = -float("inf")
        self._broken = ""

    @classmethod
    async def open(cls, settings: EngineSettings) -> VllmModel:
        """Starts the engine: seconds to minutes, off the event loop.

        Raises `Misconfigured` for weights or settings that can't work. Sets process-wide environment
        variables (`models.settings.environment`), which vLLM wants.
        """
        opened = await asyncio.to_thread(_opened, settings)
        opened._seat.idle_soon()
        return opened

    def __repr__(self) -> str:
        return f"<VllmModel {self.name}, {self.unfinished} unfinished{', closed' * (self._running is None)}>"

    @property
    def name(self) -> str:
        return self._settings.name or Path(self._settings.weights).name

    @property
    def unfinished(self) -> int:
        """Generations in the engine, running or waiting."""
        return self._running.get_num_unfinished_requests() if self._running else 0

    def load(self) -> EngineLoad:
        tokens = self._running.get_num_queued_tokens() if self._running else 0
        return self._gauge.load(unfinished=self.unfinished, queued_tokens=tokens, adapters=self._shelf.ids)

    @property
    def _engine(self) -> AsyncLLM:
        if self._running is None or self._running.errored or self._broken:
            raise down(self._broken or f"{self.name} is not running.")
        return self._running

    # -- generating

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. `tokens_max` bounds the whole reply, `said` included."""
        with self._seat.used():
            async with aclosing(self._generated(prompt)) as parts:
                async for part in parts:
                    yield part

    async def _generated(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        engine, encoder = self._engine, self._encoder
        with self._shelf.using(prompt.adapter) as adapter:
            schema = await asyncio.to_thread(checked_constraint, prompt) if prompt.structured else ""
            encoded = encoder.encode(prompt)
            budget = min(prompt.tokens_max - encoded.said_tokens, encoder.room(encoded))
            if budget <= 0:
                yield nothing_left(encoded)
                return
            params = sampling(prompt, encoded, budget, schema, self._settings.closeness)
            reply = Reply(prompt, encoded)
            async with aclosing(self._steps(engine, prompt, encoded.ids, params, adapter)) as steps:
                async for step in steps:
                    for generated in reply.take(step):
                        yield generated

    async def _steps(
        self,
        engine: AsyncLLM,
        prompt: Prompt,
        ids: list[int],
        params: SamplingParams,
        adapter: Adapter | None,
    ) -> AsyncGenerator[RequestOutput]:
        """vLLM's outputs, its exceptions translated. Closing it aborts the request in the engine."""
        asked, id = tokens_of(ids, prompt.origin.tenant), f"{next(self._requests)}"
        stream = engine.generate(asked, params, id, lora_request=adapter and lora_of(adapter))
        try:
            async with aclosing(stream):
                async for step in stream:
                    self._token_at = monotonic()
                    yield step
        except Exception as error:
            translate(error)

    # -- adapters

    async def load_adapter(self, id: str, folder: str) -> None:
        """See `Engine.load_adapter`. Past `adapters_max` the least recently used one goes; raises
        `Overloaded` if all of them are in use."""
        engine, settings = self._engine, self._settings
        if not settings.adapters_max:
            raise Unsupported(
                f"{self.name} runs without adapters.", field="adapter", next="Start it with adapters_max."
            )
        async with self._changing:
            if id in self._shelf.ids:
                return
            base = Path(self._settings.weights)
            await asyncio.to_thread(adapters.check, Path(folder), base, rank_max=settings.rank_max)
            self._shelf.make_room()
            await self._drop_unloaded(engine)
            adapter = self._shelf.made(id, folder)
            await add(engine, adapter)
            self._shelf.put(adapter)

    async def unload_adapter(self, id: str) -> None:
        """See `Engine.unload_adapter`. Replies that are made with it are made to their end."""
        async with self._changing:
            self._shelf.take(id)
            await self._drop_unloaded(self._engine)

    async def _drop_unloaded(self, engine: AsyncLLM) -> None:
        for adapter in self._shelf.gone():
            await translated(engine.remove_lora(adapter.number))

    # -- other weights

    async def reload(self, folder: str, name: str) -> None:
        """See `Engine.reload`. The adapters of the old weights are unloaded. Raises `Conflict` while somebody
        is generating."""
        engine, context = self._engine, self._encoder.context_tokens_max
        async with self._changing:
            await asyncio.to_thread(check_like, Path(folder), Path(self._settings.weights))
            self._check_idle()
            encoder = await asyncio.to_thread(encoder_of, Path(folder), context)
            self._check_idle()
            await self._replace(engine, folder)
            self._settings = msgspec.structs.replace(self._settings, weights=folder, name=name)
            self._encoder = encoder
            for id in self._shelf.ids:
                self._shelf.take(id)
            await self._drop_unloaded(engine)

    def _check_idle(self) -> None:
        if self.unfinished:
            raise Conflict(
                f"{self.name} is making {self.unfinished} replies.",
                next="Hold new requests, wait for these, then reload.",
            )

    async def _replace(self, engine: AsyncLLM, folder: str) -> None:
        """The weights in `folder` in place of those that run, which come back if that fails."""
        try:
            await load_weights(engine, folder)
        except Exception as error:
            await self._restore(engine)
            raise Misconfigured(
                f"The weights in {folder} can't be loaded in place: {error}",
                field="source",
                next="Start replicas of them beside the ones that run instead.",
            ) from error

    async def _restore(self, engine: AsyncLLM) -> None:
        try:
            await load_weights(engine, self._settings.weights)
        except Exception as error:
            self._broken = f"{self.name} lost its weights: {error}"
            raise down(self._broken) from error

    # -- sleeping

    async def sleep(self) -> None:
        """Moves the weights to the machine's memory and frees the GPU's, KV cache included, until `wake`.
        Raises `Unsupported` on a CPU, and without the setting `sleep`."""
        self._check_sleeps()
        await translated(self._engine.sleep(level=1))

    async def wake(self) -> None:
        self._check_sleeps()
        await translated(self._engine.wake_up())

    def _check_sleeps(self) -> None:
        if on_cpu(self._settings):
            raise Unsupported(
                "An engine on a CPU can't sleep: its weights have nowhere to go.",
                next="Close it, or reload other weights in place.",
            )
        if not self._settings.sleep:
            raise Unsupported(f"{self.name} was started without sleep.", next="Start it with sleep=True.")

    # -- its life

    async def ping(self) -> None:
        """Returns if a token came lately or comes now; raises `Unavailable` otherwise."""
        if self._engine and monotonic() - self._token_at < self._settings.ping_fresh_s:
            return
        try:
            async with asyncio.timeout(self._settings.ping_timeout_s):
                async for _ in self._generated(PING):  # nobody's reply, and no work to speak of
                    pass
        except TimeoutError:
            seconds = self._settings.ping_timeout_s
            raise down(f"{self.name} made no token in {seconds:g} s.") from None

    async def close(self) -> None:
        """Ends the engine; generations in flight raise `Unavailable`. Twice is once."""
        engine, self._running = self._running, None
        if engine is not None:
            self._seat.leave()
            let_go(engine)
            await asyncio.to_thread(engine.shutdown)


def _opened(settings: EngineSettings) -> VllmModel:
    # The engine is a local of no frame here: one of them may live on (see `start`).
    gauge, seat = Gauge(), seated(settings)
    try:
        return VllmModel(start(settings, gauge), settings, gauge, seat)
    except BaseException:
        seat.leave()
        raise
