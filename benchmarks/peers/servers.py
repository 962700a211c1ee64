"""A peer that runs: the ways to talk to it, and the processes that it is made of."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import httpx2
import msgspec
import psutil

from benchmarks.peers.client import Conversation

UP_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
LOG_CHARACTERS = 3000


class Opens(Protocol):
    async def __call__(self, http: aiohttp.ClientSession, pace_s: float) -> Conversation: ...


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to talk. `durable`: the turn is on disk before it is answered; `keeps`: an idle conversation holds
    memory on the server; `conversations_max`: more replies at once share so many conversations."""

    name: str
    open: Opens
    durable: bool = False
    keeps: bool = False
    conversations_max: int = 1_000


class Server(msgspec.Struct, frozen=True, kw_only=True):
    ways: Sequence[Way]
    processes: Callable[[], list[psutil.Process]]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """`start` gives a server that answers, and stops all of it in the end."""

    name: str
    start: Callable[[], AbstractContextManager[Server]]


def memory(processes: Sequence[psutil.Process]) -> int:
    """Bytes: what is shared between processes is counted once (proportional set size)."""
    return sum(_of(process, lambda p: p.memory_full_info().pss) for process in processes)


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Seconds on a core since each of them began."""
    return sum(_of(process, lambda p: sum(p.cpu_times()[:2])) for process in processes)


def _of(process: psutil.Process, measure: Callable[[psutil.Process], Any]) -> Any:
    try:
        return measure(process)
    except (psutil.Error, OSError):  # it has just ended
        return 0


@contextmanager
def running(
    words: Sequence[str], url: str, log: Path, *, cwd: Path, environ: Mapping[str, str] = os.environ
) -> Generator[subprocess.Popen[bytes]]:
    """A command in a process group of its own, once `url` answers, with whatever but 404 and 5xx. The whole
    group ends with it.

    Raises `RuntimeError` with the end of its log if it doesn't come up."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environ,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait_up(process, url, log)
        yield process
    finally:
        _stop(process)


def group(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """It and all that it has started."""
    with suppress(psutil.Error):
        leader = psutil.Process(process.pid)
        return [leader, *leader.children(recursive=True)]
    return []


def _wait_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + UP_TIMEOUT_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(httpx2.HTTPError):
            status = httpx2.get(url, timeout=5, trust_env=False).status_code
            if status != 404 and status < 500:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{process.args!r} doesn't come up:\n{log.read_text()[-LOG_CHARACTERS:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    started = group(process)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        _, started = psutil.wait_procs(started, timeout=STOP_TIMEOUT_S)
