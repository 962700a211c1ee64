"""What a benchmark has started is gone when it ends, with all that it has started itself."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest

from benchmarks.ending import end

CHILD = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)
PARENT = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""
POLITE = PARENT + "signal.pause()"
DEAF = PARENT + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"


@pytest.mark.parametrize("parent", [POLITE, DEAF], ids=["one that ends", "one that doesn't"])
async def test_a_child_does_not_outlive_its_parent(parent: str) -> None:
    words = (sys.executable, "-c", parent)
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, start_new_session=True)
    assert process.stdout is not None
    child = psutil.Process(int(await process.stdout.readline()))
    await end(process, patience_s=0.5)
    assert process.returncode is not None
    await asyncio.to_thread(child.wait, 5)
    assert not child.is_running()
