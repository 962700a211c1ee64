"""Who is in the fleet, as the processes that reach actors see it."""

from __future__ import annotations

from typing import Any

from actors.doorways import dedicated_kinds
from actors.roster import Roster
from flotilla.core.clock import Clock
from flotilla.core.ports import Directory, Pins
from serve.settings import Settings


def roster_of(settings: Settings, directory: Directory, pins: Pins, clock: Clock, log: Any) -> Roster:
    return Roster(
        directory,
        clock,
        log,
        "host",
        "model",
        "librarian",
        "dedicated",
        pins=pins,
        dedicated=dedicated_kinds(settings.kinds),
    )
