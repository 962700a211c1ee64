"""Whether the rest of the fleet may have declared this process dead.

A process that was stopped (SIGSTOP, a long pause of its machine) wakes up with its memory as it was,
while others own its actors. The journal refuses what it writes; what it shows, nothing would
refuse. So before it shows anything it looks at its lease.
"""

from __future__ import annotations

import math

# As long as the directory keeps a beat: then the others take over.
BEAT_KEPT_S = 3.0


class Lease:
    """Renewed by each beat that reached the directory."""

    def __init__(self, kept_s: float = BEAT_KEPT_S) -> None:
        self._kept_s = kept_s
        self.beaten_at = -math.inf
        self.regained_at = -math.inf  # when it was last renewed after it had run out

    def __repr__(self) -> str:
        return f"<Lease: beaten at {self.beaten_at:.3f}>"

    def renew(self, sent_at: float) -> None:
        """A beat has arrived. It is kept from some time after it was sent, so `sent_at` (monotonic
        seconds), the earlier of the two, is the safe one to count from."""
        if not self.valid(sent_at):
            self.regained_at = sent_at
        self.beaten_at = max(self.beaten_at, sent_at)

    def valid(self, now: float) -> bool:
        """Whether, at `now` (monotonic seconds), nobody can have taken this process for dead."""
        return now - self.beaten_at < self._kept_s
