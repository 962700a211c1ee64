"""What a host or a gateway counts of its own way to the models: for whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.serving.charging import Charging
from actors.serving.router import Models


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the process began. `breakers`: open, half-open or closed, by version."""

    charges_waiting: int = 0
    charges_dropped: int = 0
    hedged: int = 0
    fell_back: int = 0
    shadows_dropped: int = 0
    breakers: dict[str, str] = {}


Stands = Callable[[], Standing]


def stands(models: Models, charging: Charging) -> Standing:
    return Standing(
        charges_waiting=charging.waiting,
        charges_dropped=charging.dropped,
        hedged=models.replies.hedges.hedged,
        fell_back=models.fallbacks.fell_back,
        shadows_dropped=models.shadow.dropped,
        breakers=models.fallbacks.breakers(),
    )
