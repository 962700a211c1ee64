"""A circuit breaker: stops asking what keeps failing, and asks once in a while whether it is back.

Closed, everything is let through. When too large a share of the calls in the window failed it opens, and
refuses for a while. Then it is half open: one call is let through; it closes if that one succeeds and opens
again if not. (Nygard, Release It!) Nothing here reads a clock: `now` is in seconds of a monotonic one.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

from flotilla.core.errors import Unavailable


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    window_s: float = 30.0
    calls_min: int = 5  # fewer say nothing
    calls_max: int = 100  # the latest count
    failed_share: float = 0.5
    open_s: float = 5.0


class Breaker:
    """One for each thing that is called. `admit` before a call, `note` after it."""

    def __init__(self, name: str, settings: BreakerSettings = BreakerSettings()) -> None:  # noqa: B008 (frozen)
        self.name = name
        self.settings = settings
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed = 0  # of those
        self._opened: float | None = None
        self._probed: float | None = None

    def __repr__(self) -> str:
        return f"<Breaker {self.name}: {len(self._calls)} calls{', open' * (self._opened is not None)}>"

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        if self._opened is None:
            return "closed"
        return "open" if now < self._opened + self.settings.open_s else "half-open"

    def admit(self, now: float) -> None:
        """Raises `Unavailable`, with the seconds to wait, for a call that must not be made."""
        match self.state(now):
            case "closed":
                return
            case "open":
                assert self._opened is not None
                raise self._refusal(self._opened + self.settings.open_s - now)
            case "half-open":
                # A probe that never reports must not keep it half open for ever.
                if self._probed is not None and now < self._probed + self.settings.open_s:
                    raise self._refusal(self._probed + self.settings.open_s - now)
                self._probed = now

    def note(self, now: float, ok: bool) -> None:
        """What came of a call that was let through."""
        match self.state(now):
            case "closed":
                self._count(now, ok)
            case "open":  # it was under way when others failed
                return
            case "half-open" if self._probed is not None:
                self._calls.clear()
                self._failed = 0
                self._opened, self._probed = (None if ok else now), None
            case "half-open":  # the same
                return

    def _count(self, now: float, ok: bool) -> None:
        self._calls.append((now, ok))
        self._failed += not ok
        while self._calls[0][0] < now - self.settings.window_s or len(self._calls) > self.settings.calls_max:
            self._failed -= not self._calls.popleft()[1]
        enough = len(self._calls) >= self.settings.calls_min
        if enough and self._failed >= self.settings.failed_share * len(self._calls):
            self._opened, self._probed = now, None

    def _refusal(self, wait_s: float) -> Unavailable:
        return Unavailable(
            f"{self.name} has failed too often; it is left alone for a while.", retry_after_s=round(wait_s, 3)
        )
