"""A gateway with nothing but the OpenAI endpoint, on a port of its own, before a model in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import uvicorn
from fastapi import FastAPI
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

from actors.serving.allowances import Allowances
from actors.serving.charging import Charging
from actors.serving.holding import Holding
from actors.serving.single import OneModel
from flotilla.core.charges import By, Spent
from flotilla.core.clock import SystemClock
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.generation import Finished, Generated, Piece, Prompt
from flotilla.core.policy.allowance import Allowance
from flotilla.core.ports import Holder, Model, Vectors
from flotilla.core.versions import Price, Version
from flotilla.stores.memory_ledger import MemoryLedger
from models.scripted import ScriptedModel, ScriptSettings, tokens_of
from serve import problems
from serve.admission import Gate
from serve.limiter import BodyLimit
from serve.routes import openai, usage
from tests.actors.cluster import LOG
from tests.serve.conftest import SETTINGS, TENANT_KEY
from tests.serve.guarding import MemoryGuards

VERSION = "smollm2@1"
PRICE = Price(prompt=1_000_000, cached=500_000, completion=3_000_000)
REPLY = "The Silver card has an annual fee of $1,000.50. Naïve 日本語 👩‍👩‍👧 words follow, one by one."
TOKENS = len(tokens_of(REPLY))
FAST = ScriptSettings(name=VERSION, mode="replies", replies=(REPLY,), first_token_s=0.0, token_s=0.0)
SLOW = msgspec.structs.replace(FAST, first_token_s=0.001, token_s=0.005, tick_s=0.001)
MADE_UP = ScriptSettings(name=VERSION, first_token_s=0.0, token_s=0.0, tokens_median=20)


class Door(OneModel):
    """Remembers what it was asked, has a price, and breaks when it is told to: `breaks` says after how many
    pieces each of the next generations ends, and how."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.model = model
        self.prompts: list[Prompt] = []
        self.breaks: list[tuple[int, Exception]] = []
        self.holding = Holding(SystemClock())

    def hold(self, holder: Holder, versions: Collection[str], *, most_s: float | None = None) -> None:
        self.holding.hold(holder, versions, most_s=most_s)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        self.prompts.append(prompt)
        pieces, error = self.breaks.pop(0) if self.breaks else (-1, None)
        async with aclosing(super().generate(prompt)) as parts:
            async for part in parts:
                if error is not None and (pieces == 0 or isinstance(part, Finished)):
                    raise error
                pieces -= isinstance(part, Piece)
                yield part

    def versions(self, tenant: str) -> list[Version]:
        return [msgspec.structs.replace(one, price=PRICE) for one in super().versions(tenant)]


def lost() -> Unavailable:
    return Unavailable("The link to 127.0.0.1:1 broke.", retry_after_s=0.5)


class Words:
    """Implements `Embedder`: the same text has the same vector."""

    name = "words"
    dimensions = 8

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = [np.random.default_rng(crc32(text.encode())).normal(size=8) for text in texts]
        made = np.asarray(rows, dtype=np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Doors:
    """What the endpoint needs of serve.doors.Doors."""

    def __init__(self, model: Model, allowance: Allowance) -> None:
        self.settings = SETTINGS
        self.clock = SystemClock()
        self.log = LOG
        self.model = Door(model)
        self.gate = Gate(self.clock)
        self.embedder: Any = Words()
        self.memory = MemoryLedger()
        self.guards = MemoryGuards(SETTINGS, self.clock)
        self.keys, self.limits = self.guards.keys, self.guards.limits
        self.revocations, self.api_keys = self.guards.revocations, self.guards.api_keys
        self.allowances = Allowances(self.ledger, self.clock, LOG, tenants={"demo": allowance})
        self.charging = Charging(self.ledger, self.clock, LOG, heard=self.allowances.heard)

    async def ledger(self) -> MemoryLedger:
        return self.memory

    async def spent(self, by: By = "model", tenant: str = "demo") -> list[Spent]:
        from datetime import date

        await self.charging.flush()
        return await self.memory.usage(tenant, date(2000, 1, 1), date(3000, 1, 1), by)


class Served(msgspec.Struct, frozen=True):
    doors: Doors
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}/openai/v1"

    @property
    def model(self) -> ScriptedModel:
        return self.doors.model.model  # type: ignore[return-value]

    def client(self, key: str = TENANT_KEY, **more: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=key, **{"max_retries": 0, **more})

    def blocking(self, key: str = TENANT_KEY, **more: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, **{"max_retries": 0, **more})

    def langchain(self, **more: Any) -> ChatOpenAI:
        return ChatOpenAI(base_url=self.url, api_key=TENANT_KEY, model="smollm2", max_retries=0, **more)

    async def until_idle(self, seconds: float = 2.0) -> None:
        async with asyncio.timeout(seconds):
            while self.model.unfinished:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    script: ScriptSettings = FAST, *, model: Model | None = None, allowance: Allowance | None = None
) -> AsyncIterator[Served]:
    app = FastAPI()
    app.add_middleware(BodyLimit)
    problems.install(app)
    for module in (openai, usage):
        app.include_router(module.router)
    doors = app.state.doors = Doors(model or ScriptedModel(script), allowance or Allowance())
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield Served(doors, f"{host}:{port}")
    finally:
        server.should_exit = True
        await running


def ask(text: str = "What does the Silver card cost?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


class Broken(FlotillaError):
    """Something that doesn't pass by itself."""
