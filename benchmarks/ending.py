"""Processes with children of their own (vLLM's engine core is one), which must not outlive them."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from contextlib import suppress

PATIENCE_S = 15.0


async def end(process: Process, patience_s: float = PATIENCE_S) -> None:
    """Ends `process`, which was started with `start_new_session=True`, and whatever it has started: politely, and
    after `patience_s` by force. A child that its parent has left behind is still of its group."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), patience_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
