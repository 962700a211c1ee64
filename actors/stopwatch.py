"""Where the time of a turn goes, for `reply.completed.timing`; and the tokens of a reply that nobody finishes."""

from __future__ import annotations

from flotilla.core.facts import Timing
from flotilla.core.generation import Finished, Piece


class Stopwatch:
    """Marks are readings of one monotonic clock, in seconds."""

    def __init__(self, received: float) -> None:
        self.received = received
        self.begun: float | None = None
        self.found: float | None = None
        self.first: float | None = None
        self.engine_first_ms = 0.0
        self.engine_total_ms = 0.0
        self.made = 0  # tokens, by this process
        self.model = ""

    def heard(self, piece: Piece, model: str) -> None:
        """`model` is what was asked for, where the piece doesn't say who made it."""
        self.made += piece.tokens
        self.model = piece.model or model

    def start(self, now: float) -> None:
        """The reply has begun; where nothing had to be looked up, from here on its model is waited for."""
        if self.begun is None:
            self.begun = self.found = now

    def finished(self, engine: Finished) -> None:
        self.engine_first_ms = engine.first_token_ms
        self.engine_total_ms = engine.total_ms

    @property
    def beyond_engine_s(self) -> float:
        """What the first token took beyond what the engine says of it; 0 if there was none."""
        if self.found is None or self.first is None:
            return 0.0
        return max(0.0, self.first - self.found - self.engine_first_ms / 1000)

    def timing(self, now: float) -> Timing:
        begun = self.begun if self.begun is not None else now
        found = self.found if self.found is not None else begun
        first = self.first if self.first is not None else found
        total, retrieval = _ms(now - self.received), _ms(found - begun)
        return Timing(
            queued=_ms(begun - self.received),
            retrieval=retrieval,
            prompt=max(0.0, round(_ms(first - found) - self.engine_first_ms, 2)),
            first_token=round(self.engine_first_ms, 2),
            generation=round(self.engine_total_ms - self.engine_first_ms, 2),
            total=total,
            overhead=round(total - retrieval - self.engine_total_ms, 2),
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
