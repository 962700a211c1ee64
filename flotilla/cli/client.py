"""The commands' way to a running fleet: the client library, with this machine's settings."""

from __future__ import annotations

import os

from flotilla import client
from flotilla.cli.local import Local
from flotilla.client import ClientLimits, Patience

PATIENCE = Patience(first_s=0.1, longest_s=1.0, most_s=5.0, tries_max=4)
"""Whoever waits at a terminal wants to know."""
LIMITS = ClientLimits(answer_s=300.0)  # putting a gate's questions takes its time


class Client(client.Client):
    """`FLOTILLA_URL` and `FLOTILLA_KEY` name a fleet elsewhere; without them it is this machine's."""

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        super().__init__(
            url or os.environ.get("FLOTILLA_URL") or _local_address(),
            key or os.environ.get("FLOTILLA_KEY", client.DEFAULT_KEY),
            patience=PATIENCE,
            limits=LIMITS,
        )


def _local_address() -> str:
    run = Local().run
    return run.address if run else f"http://127.0.0.1:{os.environ.get('FLOTILLA_PORT', '8080')}"
