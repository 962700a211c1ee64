"""What was counted of each version lately, from what all processes hang up: see `flotilla/core/tallies.py`."""

from __future__ import annotations

from collections import deque

from flotilla.core.swap_orders import Figures
from flotilla.core.tallies import SHADOW, Tallies, since, summed

SPAN_S = 60.0
LOOKS_MAX = 120

Pages = dict[str, Tallies]


class Recent:
    """Remembers its looks for a minute: whoever looks again soon sees what has come between. The first look
    sees all that the processes have counted since they began."""

    def __init__(self, span_s: float = SPAN_S) -> None:
        self._span_s = span_s
        self._looks: deque[tuple[float, Pages]] = deque(maxlen=LOOKS_MAX)

    def take(self, now: float, pages: Pages) -> tuple[Tallies, float | None]:
        """What was counted within the span up to `now` (monotonic seconds), and how long that is; None for
        since ever."""
        while len(self._looks) > 1 and now - self._looks[0][0] > self._span_s:
            self._looks.popleft()
        began, before = self._looks[0] if self._looks else (None, {})
        if not self._looks or now - self._looks[-1][0] >= self._span_s / LOOKS_MAX:
            self._looks.append((now, pages))
        counted = summed([since(page, before.get(process, {})) for process, page in pages.items()])
        return counted, None if began is None else now - began


def figures_of(counted: Tallies, version: str) -> dict[str, Figures]:
    """`sent` are the replies that customers got, `shadow` those that nobody was sent."""
    named = {"sent": version, "shadow": SHADOW + version}
    return {name: counted[id].figures(version) for name, id in named.items() if id in counted}
