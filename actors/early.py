"""Works that run beside the record of what led to them (docs/decisions/0026).

The commit takes the longest, so it leaves first: the first steps of a work would hold it up for as long as they keep
the processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from actors.mailbox import Envelope
from flotilla.core.effects import Answer, Effect, Work

Begin = Callable[[Work, Envelope], None]


def works(effects: Sequence[Effect], behind: int, envelope: Envelope) -> dict[int, tuple[Work, Envelope]]:
    """Those behind so many effects that need not wait for the record, up to whatever else must come in its order; by
    their place in the list, counted from one."""
    found: dict[int, tuple[Work, Envelope]] = {}
    for n, effect in enumerate(effects[behind:], behind + 1):
        if isinstance(effect, Work) and effect.early:
            found[n] = effect, envelope
        elif not isinstance(effect, Answer):
            break
        elif not effect.key:  # nobody waits for what is behind it, though it is not said yet
            envelope = envelope.behind_answer()
    return found


class Beside:
    """`with` it for as long as the record is written. The works begin a turn of the loop later than the append was
    asked for, in which it has left together with all others of that turn, or once it is there if that is sooner;
    none begins if it has failed."""

    __slots__ = ("_begin", "_waiting")

    def __init__(self, waiting: dict[int, tuple[Work, Envelope]], begin: Begin) -> None:
        self._waiting = list(waiting.values())
        self._begin = begin

    def __enter__(self) -> Self:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._all()
        self._waiting.clear()

    def _all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for work, envelope in waiting:
            self._begin(work, envelope)
