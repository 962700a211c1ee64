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
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import msgspec

from benchmarks.ending import end
from models.neighbours import VARIABLE, Seat
from models.settings import EngineSettings, engine_arguments, environment, threads_of
from models.weights import prepare


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, the same for every way of asking. `messages` have a role and a content; decoding is greedy,
    and ends where the model ends it, with `stop`, or after `tokens_max`."""

    messages: list[dict[str, str]]
    tokens_max: int
    stop: Sequence[str] = ()


class Reply(msgspec.Struct, frozen=True):
    """Seconds from the request; `tokens` made."""

    first_s: float
    total_s: float
    tokens: int
    text: str = ""


class Solo:
    """The asking end. Make one with `start`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, cache: Path, *, ours: bool = False, seated: bool = False, **settings: Any) -> Solo:
        """`settings` are of `EngineSettings`; `ours` adds what our engine brings into vLLM's: two logits
        processors and a worker's extension. One that is `seated`, too, knows of others on its cores."""
        words = (str(cache), json.dumps(settings), "seated" if seated else "ours" if ours else "")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.solo",
            *words,
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        while await process.stdout.readline() != b"ready\n":
            if process.stdout.at_eof():
                await end(process)
                raise RuntimeError("vLLM alone does not start.")
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def generate(self, asked: Asked) -> Reply:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode([number, asked]) + b"\n")
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, answer = json.loads(line)
            waiting = self._waiting.pop(number)
            if isinstance(answer, str):
                waiting.set_exception(RuntimeError(answer))
            else:
                waiting.set_result(Reply(*answer))
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError("vLLM alone has ended."))

    async def stop(self) -> None:
        self._reader.cancel()
        await end(self._process)


class _Engine:
    def __init__(self, settings: EngineSettings, more: dict[str, Any]) -> None:
        from vllm import AsyncEngineArgs  # noqa: PLC0415  the environment is set first
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        arguments = engine_arguments(settings, cpu=True) | more
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._tokenizer: Any = self._engine.get_tokenizer()

    async def answer(self, number: int, asked: Asked) -> list[Any]:
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.inputs import tokens_input  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        sampling = SamplingParams(
            max_tokens=asked.tokens_max,
            temperature=0,
            stop=list(asked.stop),
            output_kind=RequestOutputKind.DELTA,
        )
        began, first, made, text = time.perf_counter(), 0.0, 0, ""
        chat = self._tokenizer.apply_chat_template(asked.messages, tokenize=False, add_generation_prompt=True)
        ids = self._tokenizer.encode(chat, add_special_tokens=False)
        async for step in self._engine.generate(tokens_input(ids), sampling, str(number)):
            text += step.outputs[0].text
            first = first or (time.perf_counter() - began if text else 0.0)
            made += len(step.outputs[0].token_ids)
        return [first, time.perf_counter() - began, made, text]


async def _serve(engine: _Engine, answers: TextIO) -> None:
    async def answer(number: int, asked: Asked) -> None:
        try:
            found: Any = await engine.answer(number, asked)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        print(json.dumps([number, found]), file=answers)

    print("ready", file=answers)
    running: set[asyncio.Task[None]] = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(answer(*msgspec.json.decode(line, type=tuple[int, Asked])))
        running.add(task)
        task.add_done_callback(running.discard)


def _ours() -> dict[str, Any]:
    from models import closeness, paged_worker, replay  # noqa: PLC0415  the environment is set first

    processors = [closeness.PROCESSOR, replay.PROCESSOR]
    return {"worker_extension_cls": paged_worker.EXTENSION, "logits_processors": processors}


async def main() -> None:
    cache, said, ours = sys.argv[1:]
    # vLLM logs to standard output; answers go where it was, logs go to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    given: dict[str, Any] = json.loads(said)
    given.setdefault("weights", str(prepare(Path(cache))))
    settings = EngineSettings(**given)
    os.environ.update(environment(settings, cpu=True))
    seat = Seat(threads_of(settings)) if ours == "seated" else None  # held until this process ends
    if seat is not None:
        os.environ[VARIABLE] = str(seat.path)
    await _serve(_Engine(settings, _ours() if ours else {}), answers)


if __name__ == "__main__":
    asyncio.run(main())
