"""What the conductor tells a worker, and what a worker tells back: a line of JSON each."""

from __future__ import annotations

import msgspec

from benchmarks.load.scenario import Scenario


class Recruit(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is. WebSockets of conversations from number `aside_from` on go to the door `aside`, if there
    is one: past what one HAProxy can carry."""

    scenario: Scenario
    url: str
    rpc: str
    key: str
    seed: int
    run: str
    worker: int
    workers: int
    aside: str = ""
    aside_from: int = 0

    def sockets_url(self, number: int) -> str:
        """Where the WebSocket of conversation `number` goes."""
        return self.aside if self.aside and number >= self.aside_from else self.url


class _Order(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    pass


class Open(_Order, frozen=True, kw_only=True):
    """Open the sessions. Answered with `Done`."""


class Begin(_Order, frozen=True, kw_only=True):
    """Times count from here."""

    at: float


class Connect(_Order, frozen=True, kw_only=True):
    """All of them, so many a second."""

    per_s: float


class Play(_Order, frozen=True, kw_only=True):
    """One phase's turns, or one step's; `at` is when it begins, on the monotonic clock."""

    part: str
    phase: int
    at: float
    seconds: float
    load: float


class Cut(_Order, frozen=True, kw_only=True):
    """Reset `sockets` of this worker's (all if None) at `at`; answered with when each was back."""

    at: float
    sockets: int | None
    within_s: float


class CatchUp(_Order, frozen=True, kw_only=True):
    sessions: int
    events: int
    times: int


class Stop(_Order, frozen=True, kw_only=True):
    """Hear out what runs, for `drain_s` at most, write everything into the folder, and end."""

    drain_s: float
    folder: str


Order = Open | Begin | Connect | Play | Cut | CatchUp | Stop


class _Report(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower):
    pass


class Done(_Report, frozen=True, kw_only=True):
    """An order was carried out; `milliseconds` are what it measured."""

    milliseconds: list[float] = []
    missing: int = 0


class Played(_Report, frozen=True, kw_only=True):
    """So many turns were due, so many of them were good under the SLO, so many failed or were refused."""

    due: int
    good: int
    failed: int


class Tick(_Report, frozen=True, kw_only=True):
    """Of the last second. `first_ms` are from the intended starts."""

    open: int
    sent: int
    completed: int
    shed: int
    errors: int
    first_ms: list[float]
    lag_ms: float
    cpu_share: float


class Failed(_Report, frozen=True, kw_only=True):
    """The worker can't go on."""

    reason: str


Report = Done | Played | Tick | Failed
