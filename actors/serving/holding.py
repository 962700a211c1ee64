"""Tasks that go on with a version which they began with: what keeps it from being taken away under them.

Nobody takes one off a counter: who has been lost, or has done nothing for too long, is left out when the
holds are counted. So none outlives its holder, however that one ended; and those of a dead process go with
its page on the board.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.ports import Holder

# A task whose record has not grown for so long no longer keeps a version from retiring: longer than a tool is
# tried (two minutes), shorter than a retiring version is waited for (`swap_loading.EMPTY_MAX_S`).
HELD_MAX_S = 300.0
# A client that runs its tools itself, and comes back with their results within this time, finds its version.
CLIENT_HELD_MAX_S = 60.0


class ClientLoops(msgspec.Struct, frozen=True):
    """All clients of this process that have been given calls of tools by one version."""

    version: str
    lost: bool = False


class Holding:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[Holder, tuple[frozenset[str], float]] = {}

    def __repr__(self) -> str:
        return f"<Holding: {len(self._held)} holders>"

    def hold(self, holder: Holder, versions: Collection[str], *, most_s: float | None = None) -> None:
        """In place of those it held before; none lets go. At most for `HELD_MAX_S`."""
        if versions:
            until = self._clock.monotonic() + min(most_s or HELD_MAX_S, HELD_MAX_S)
            self._held[holder] = frozenset(versions), until
        else:
            self._held.pop(holder, None)

    def of(self, holder: Holder) -> frozenset[str]:
        return self._held.get(holder, (frozenset[str](), 0.0))[0]

    def counted(self) -> Counter[str]:
        """How many hold each version now."""
        now = self._clock.monotonic()
        self._held = {one: held for one, held in self._held.items() if not one.lost and held[1] > now}
        return Counter(version for versions, _ in self._held.values() for version in versions)
