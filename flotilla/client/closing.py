"""The end of a client, as those see it who still use it."""

from __future__ import annotations

import asyncio

from flotilla.core.errors import Refused


def closed() -> Refused:
    return Refused("The client is closed.", next="Make a new one.")


def is_cancelled() -> bool:
    """Whether it is this task that is to stop, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
