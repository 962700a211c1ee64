"""Starts the embedded servers again when they die: on one machine nobody else would."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from flotilla.cli.local import MARK, Local
from flotilla.core.clock import Clock
from flotilla.stores.embedded import Postgres, Valkey
from serve.settings import Settings

LOOK_EVERY_S = 0.5
START_TIMEOUT_S = 60.0


def embedded(settings: Settings) -> dict[str, Postgres | Valkey]:
    """The servers of the fleet's own folder, as far as it uses them, by name."""
    local = Local(Path(settings.home))
    servers = {
        "postgres": (local.postgres, settings.database_url),
        "valkey": (local.valkey, settings.redis_url),
    }
    return {name: server for name, (server, url) in servers.items() if server.url == url}


async def keep(settings: Settings, clock: Clock, log: Any) -> None:
    """For as long as its process lives."""
    servers = embedded(settings)
    while servers:
        for name, server in servers.items():
            if server.pid is None:
                log.warning("store.gone", store=name)
                await asyncio.to_thread(_start, settings.home, name, log)
        await clock.sleep(LOOK_EVERY_S)


def _start(home: str, name: str, log: Any) -> None:
    """By a process that ends at once: a child of ours would be ended with us."""
    environ = {k: v for k, v in os.environ.items() if k != MARK} | {"FLOTILLA_HOME": home}
    command = [sys.executable, "-m", "serve.keeper", name]
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return log.error("store.not_started", store=name, reason=f"not up after {START_TIMEOUT_S:g} s")
    if done.returncode:
        return log.error("store.not_started", store=name, reason=done.stderr[-500:])
    return log.info("store.started", store=name)


if __name__ == "__main__":
    getattr(Local(), sys.argv[1]).start()
