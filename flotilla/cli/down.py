"""`flotilla down`."""

from __future__ import annotations

from flotilla.cli.local import Local
from flotilla.cli.screen import console


def down() -> None:
    """Stop all that `flotilla up` started here, and nothing else. Data stays."""
    stopped = {what: count for what, count in Local().stop().items() if count}
    if not stopped:
        console.print("Nothing was running.")
    else:
        said = ", ".join(f"{what} ({count} processes)" for what, count in stopped.items())
        console.print(f"Stopped: {said}.")
