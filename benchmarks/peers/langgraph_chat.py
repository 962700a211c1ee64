"""(c) LangGraph's in-memory API server, `langgraph dev` (https://docs.langchain.com/oss/python/langgraph/local-server),
with a graph of one node whose tokens are custom events, as its page on streaming has it for models of one's own
(https://docs.langchain.com/oss/python/langgraph/streaming). A conversation is a thread; threads are kept in memory.

Its natural protocol is HTTP with Server-Sent Events. Its licence isn't ours, so it has an environment of its own
under `benchmarks/out/`, made when it is first asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from benchmarks.fleet import ROOT
from benchmarks.peers.client import NOTHING, Said, Streamed, check, read_data
from benchmarks.peers.script import QUESTION
from benchmarks.peers.servers import Peer, Server, Way, group, running
from flotilla.cli.local import free_port

HERE = Path(__file__).parent
PINS = HERE / "langgraph.txt"
VENV = ROOT / "benchmarks" / "out" / "peers" / "venv"
# It makes 10 replies at once if it isn't told otherwise.
JOBS_MAX = 400


def prepared() -> Path:
    """The folder of its commands. Installs from the package index if the pins have changed."""
    stamp, pins = VENV / "pins.txt", PINS.read_text()
    if not stamp.exists() or stamp.read_text() != pins:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(VENV / "bin" / "pip"), "install", "--quiet", "--no-deps", "-r", str(PINS)]
        subprocess.run(pip, check=True)
        stamp.write_text(pins)
    return VENV / "bin"


@contextmanager
def start() -> Generator[Server]:
    command, port = prepared() / "langgraph", free_port()
    words = [str(command), "dev", "--no-browser", "--no-reload", "--allow-blocking", "--port", str(port)]
    words += ["--n-jobs-per-worker", str(JOBS_MAX), "--server-log-level", "WARNING"]
    with tempfile.TemporaryDirectory() as folder, _up(words, port, Path(folder)) as up:
        url = f"http://127.0.0.1:{port}/threads"

        async def opened(http: aiohttp.ClientSession, pace_s: float) -> Streamed:
            async with http.post(url, json={}) as answer:
                await check(answer)
                thread = (await answer.json())["thread_id"]
            asked = {"text": QUESTION, "pace_s": pace_s}
            body = {"assistant_id": "chat", "input": asked, "stream_mode": ["custom"]}
            return Streamed(http, f"{url}/{thread}/runs/stream", body, read)

        way = Way(name="LangGraph's in-memory server", open=opened, keeps=True)
        yield Server(ways=[way], processes=lambda: group(up))


@contextmanager
def _up(words: list[str], port: int, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """In a folder of its own: it writes down there what it has in memory."""
    for source in (HERE / "graph" / "graph.py", HERE / "graph" / "langgraph.json", HERE / "script.py"):
        shutil.copy(source, folder)
    # It neither traces nor phones home.
    environ = os.environ | {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    with running(words, f"http://127.0.0.1:{port}/ok", folder / "log", cwd=folder, environ=environ) as up:
        yield up


def read(event: bytes) -> Said:
    return read_data(event) if event.startswith(b"event: custom") else NOTHING


PEER = Peer(name="c", start=start)
