"""vLLM alone, as its documentation would have it used: a process with one `AsyncLLM` and nothing of ours but
the settings of `models.settings`. It reads requests from standard input and answers on standard output, a
JSON object a line; times are taken inside, around the engine's own stream.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from flotilla.core.generation import Prompt
from models.settings import EngineSettings, engine_arguments, environment
from models.weights import prepare


class Solo:
    """The asking end. Make one with `start`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[tuple[float, float, int]]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, cache: Path) -> Solo:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.solo", str(cache), stdin=PIPE, stdout=PIPE
        )
        assert process.stdout is not None
        while await process.stdout.readline() != b"ready\n":
            if process.returncode is not None:
                raise RuntimeError("vLLM alone does not start.")
        return cls(process)

    async def generate(self, prompt: Prompt, tokens: int) -> tuple[float, float, int]:
        """Seconds to the first token, seconds in all, tokens made (always `tokens`)."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        messages = [{"role": message.role, "content": message.text} for message in prompt.messages]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, messages, tokens]).encode() + b"\n")
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, *answer = json.loads(line)
            waiting = self._waiting.pop(number)
            if isinstance(answer[0], str):
                waiting.set_exception(RuntimeError(answer[0]))
            else:
                waiting.set_result((answer[0], answer[1], answer[2]))
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError("vLLM alone has ended."))

    async def stop(self) -> None:
        self._reader.cancel()
        self._process.terminate()
        await self._process.wait()


async def _serve(cache: Path, answers: TextIO) -> None:
    from vllm import AsyncEngineArgs, SamplingParams  # noqa: PLC0415  the environment is set first
    from vllm.inputs import tokens_input  # noqa: PLC0415
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    settings = EngineSettings(weights=str(prepare(cache)))
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(settings, cpu=True)))
    tokenizer: Any = engine.get_tokenizer()

    async def answer(number: int, messages: list[dict[str, str]], tokens: int) -> None:
        sampling = SamplingParams(
            max_tokens=tokens, temperature=0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        began, first, made = time.perf_counter(), 0.0, 0
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(text, add_special_tokens=False)
        async for step in engine.generate(tokens_input(ids), sampling, str(number)):
            first = first or time.perf_counter() - began
            made += len(step.outputs[0].token_ids)
        print(json.dumps([number, first, time.perf_counter() - began, made]), file=answers)

    async def safely(number: int, messages: list[dict[str, str]], tokens: int) -> None:
        try:
            await answer(number, messages, tokens)
        except Exception as error:
            print(json.dumps([number, f"{type(error).__name__}: {error}"]), file=answers)

    print("ready", file=answers)
    running: set[asyncio.Task[None]] = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(safely(*json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    # vLLM logs to standard output; answers go where it was, logs go to standard error.
    answers_to = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.update(environment(EngineSettings(weights=""), cpu=True))
    asyncio.run(_serve(Path(sys.argv[1]), answers_to))
