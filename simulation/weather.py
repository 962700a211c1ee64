"""How the network of a world is."""

from __future__ import annotations

import msgspec


class Weather(msgspec.Struct, kw_only=True):
    """How the network is: seconds, and chances from 0 to 1."""

    latency_s: tuple[float, float] = (0.0002, 0.002)
    late: float = 0.02  # of a piece
    late_s: float = 0.05
    split: float = 0.15  # of a write
    lost_with_death: float = 0.5  # of what was under way when its sender died
