"""vLLM's own OpenAI server, with the settings that our engines have."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.asking import OpenAI, openai
from benchmarks.ending import end
from benchmarks.solo import Asked, Reply
from flotilla.cli.local import free_port
from models.settings import OFFLINE, EngineSettings, engine_arguments, environment
from models.weights import prepare

UP_TIMEOUT_S = 180
NAME = "smollm2"


class Served:
    def __init__(self, client: OpenAI) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def start(cls, cache: Path) -> AsyncGenerator[Served]:
        settings, port = EngineSettings(weights=str(prepare(cache))), free_port()
        words = _words(engine_arguments(settings, cpu=True) | {"port": port, "host": "127.0.0.1"})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            *words,
            "--served-model-name",
            NAME,
            "--disable-uvicorn-access-log",
            env=os.environ | OFFLINE | environment(settings, cpu=True),
            stdout=DEVNULL,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            async with openai(url) as client:
                await _up(client.http, f"{url}/health", process)
                yield cls(OpenAI(client.http, url, "/v1/chat/completions"))
        finally:
            await end(process)

    async def ask(self, asked: Asked) -> Reply:
        return (await self._client.ask(asked, NAME)).reply


async def _up(http: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(UP_TIMEOUT_S):
        while process.returncode is None:
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise RuntimeError("vLLM's own server does not start.")


def _words(arguments: dict[str, Any]) -> list[str]:
    """As its command line has them."""
    found: list[str] = []
    for name, value in arguments.items():
        word = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(word)
        elif value is False:
            found.append(f"--no-{word[2:]}")
        elif value is not None:
            found += [word, str(value)]
    return found
