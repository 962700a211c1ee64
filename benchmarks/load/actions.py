"""What a scenario can have done to a fleet while it is under load, by name.

Those of `benchmarks.faults` (what can break, breaks), and what an operator does (rolling its processes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from benchmarks.crowd import Crowd
from benchmarks.faults import FAULTS
from benchmarks.fleet import OwnFleet
from flotilla.core.errors import Misconfigured

Action = Callable[[OwnFleet], Awaitable[None]]


class _Witness:
    """What a fault asks of the crowd that suffers it: somewhere to note it."""

    def __init__(self) -> None:
        self.log = self
        self.replies = 0
        self.customers: list[Any] = []

    def fault(self, what: str) -> None:
        """Marked by whoever asked for it."""


def _fault(name: str) -> Action:
    async def act(fleet: OwnFleet) -> None:
        await FAULTS[name](fleet, cast(Crowd, _Witness()), False)

    return act


def _rolled(what: str) -> Action:
    async def act(fleet: OwnFleet) -> None:
        """As an operator rolls them. Raises if that fails."""
        await asyncio.to_thread(fleet.flotilla, "roll", what)

    return act


# "raylet killed" wants a second node; "GCS stopped" wants customers who talk without a pause.
_NOT_HERE = ("raylet killed", "GCS stopped")
ACTIONS: dict[str, Action] = {
    **{name: _fault(name) for name in FAULTS if name not in _NOT_HERE},
    **{f"{what} rolled": _rolled(what) for what in ("gateways", "hosts", "models")},
}


def checked(names: list[str], fleet: OwnFleet | None) -> None:
    """Raises `Misconfigured` for an action that there is not, or that nothing can be done to."""
    for name in names:
        if name not in ACTIONS:
            raise Misconfigured(
                f"There is no action {name!r}.", field="actions.do", next=f"Known: {', '.join(ACTIONS)}."
            )
    if names and fleet is None:
        raise Misconfigured(
            f"{names[0]!r} can only be done to a fleet of the load test's own.",
            field="--url",
            next="Leave --url out, or take a scenario without actions.",
        )
