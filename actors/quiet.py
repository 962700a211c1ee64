"""Leaves the processor to those who answer, while a process beside them imports what it needs, loads its weights and
warms up.

By niceness, so that what is idle is used all the same. At 10 the kernel gives a loading replica a tenth of what
one that answers gets, where both want all of it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil

NICE = 10
NICE_MAX = 19


@contextmanager
def quiet() -> Generator[None]:
    """This process and those that it starts meanwhile, with all their threads. Nothing changes where what is
    lowered can't be raised again: without the right to (`CAP_SYS_NICE`, or `ulimit -e`)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if not _comes_back(before):
        yield
        return
    _renice(min(NICE_MAX, before + NICE))
    try:
        yield
    finally:
        _renice(before)


def _comes_back(nice: int) -> bool:
    """Tried out on a thread that ends with it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_there_and_back, nice).result()


def _there_and_back(nice: int) -> bool:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE_MAX, nice + 1))
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError:
        return False
    return True


def _renice(nice: int) -> None:
    """Linux has a niceness for each thread; new ones take that of whoever starts them."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            for thread in process.threads():
                with suppress(OSError):  # it has ended
                    os.setpriority(os.PRIO_PROCESS, thread.id, nice)
