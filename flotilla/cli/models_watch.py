"""A swap as it goes: looked at once a second, for as long as somebody watches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from rich.live import Live

from flotilla.cli import models_tables as tables
from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.core.errors import Unavailable

EVERY_S = 1.0
LOG_LINES = 8
_PATIENCE_LOOKS = 30  # without an answer


def follow(client: Client, model: str, swap: str = "") -> str:
    """Shows the model until Ctrl-C or, with `swap`, until that one has ended; how it ended, "" if it
    didn't."""
    log: deque[str] = deque(maxlen=LOG_LINES)
    try:
        with Live(console=console, auto_refresh=False) as live:
            for seen in _looks(client, model, log):
                live.update(tables.moment(seen, tuple(log)), refresh=True)
                if end := _end(seen, swap):
                    return end
    except KeyboardInterrupt:
        return ""
    return ""


def _looks(client: Client, model: str, log: deque[str]) -> Iterator[dict[str, Any]]:
    """Patient with a fleet that doesn't answer for a while: whoever watches a swap watches its troubles."""
    after, missed = -1, 0
    while True:
        try:
            seen = client.models.show(model)
            after = _read(client, model, log, after, seen)
            missed = 0
            yield seen
        except Unavailable as error:
            missed += 1
            if missed > _PATIENCE_LOOKS:
                raise
            log.append(f"– {error.detail}")
        time.sleep(EVERY_S)


def _read(client: Client, model: str, log: deque[str], after: int, seen: dict[str, Any]) -> int:
    """What was recorded since the last look, a line each; of what was before the first, the last lines."""
    if after < 0:
        after = max(0, seen["seq"] - LOG_LINES)
    for event in client.models.history(model, after):
        log.append(line_of(event))
        after = event["seq"]
    return after


def line_of(event: dict[str, Any]) -> str:
    data = event["data"]
    match event["type"]:
        case "swap.begun":
            what = f"{data['swap']} to {data['to']}"
        case "swap.went":
            step = f" {data['step'] + 1}" if data["stage"] == "canary" else ""
            what = data["stage"] + step + (f": {data['note']}" if data.get("note") else "")
        case "swap.ended" | "swap.turned":
            what = data["end"] + (f": {data['reason']}" if data.get("reason") else "")
        case "version.added":
            what = data["version"]["id"]
        case "version.dropped":
            what = data["version"]
        case _:
            what = ""
    by = f" (by {data['by']})" if data.get("by") else ""
    return f"{event['at'][11:19]}  {event['type']}  {what}{by}"


def _end(seen: dict[str, Any], swap: str) -> str:
    ended = (one["end"] for one in seen["swaps"] if swap and one["id"] == swap)
    return next(ended, "")
