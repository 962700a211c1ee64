"""Calls back at a time, to a few microseconds: the timers of event loops count in whole milliseconds, and what they
are late by would be counted against the fleet.

`timerfd_create(2)` through libc, as Python has it only from 3.13 on. Linux; elsewhere the loop's own timers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1


class _Spec(ctypes.Structure):
    """`struct itimerspec`: seconds and nanoseconds between calls, then those of the first."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


class Alarm:
    """Set for one time after the other. Made in the loop that it calls back in; close it."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._timer = -1
        if self._libc is not None:
            self._timer = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._timer >= 0:
            self._loop.add_reader(self._timer, self._rings)

    def set(self, at: float) -> None:
        """`at` on `time.monotonic`."""
        if self._timer < 0:
            self._loop.call_later(max(0.0, at - time.monotonic()), self._ring)
            return
        nanoseconds = max(1, round(at * 1e9))
        spec = _Spec(0, 0, *divmod(nanoseconds, 10**9))
        if self._libc.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _rings(self) -> None:
        with contextlib.suppress(BlockingIOError):  # set anew meanwhile
            os.read(self._timer, 8)
            self._ring()

    def close(self) -> None:
        if self._timer >= 0:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1
