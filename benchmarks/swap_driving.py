"""Swaps over the HTTP API, by somebody who keeps asking while the fleet is broken under her."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.crowd import patiently
from benchmarks.fleet import OwnFleet

LOOK_EVERY_S = 0.2
PATIENCE_S = 150.0
LAX = {"error_share_max": 1.0, "first_token_ratio_max": 1000.0, "quality_drop_max": 1.0}
"""Budgets for swaps under which replicas are killed: those deaths are nobody's fault."""

View = dict[str, Any]


class Late(TimeoutError):
    """A model has not come to where it should be; says where it is."""


class Driver:
    """Of one model."""

    def __init__(self, fleet: OwnFleet, model: str) -> None:
        self._fleet = fleet
        self._path = f"/v1/models/{model}"

    async def add(self, version: dict[str, Any]) -> None:
        await self._post("/versions", version)

    async def begin(self, to: str, order: dict[str, Any], key: str) -> str:
        """The id of the swap. With the same `key` it is the same one."""
        view = await self._post("/swaps", {"to": to, "order": order}, {"Idempotency-Key": key})
        return view["swap"]["id"] if view["swap"] else view["swaps"][0]["id"]

    async def steer(self, how: str, reason: str = "") -> View:
        """`pause`, `resume`, `promote` or `rollback`."""
        return await self._post(f"/swap/{how}", {"reason": reason} if reason else {})

    async def view(self) -> View:
        return await asyncio.to_thread(patiently, self._view)

    async def until(self, true: Callable[[View], bool], what: str, patience_s: float = PATIENCE_S) -> View:
        """The first view of which it is true. Raises `Late`."""
        end = time.monotonic() + patience_s
        while not true(view := await self.view()):
            if time.monotonic() > end:
                raise Late(f"{what} did not come in {patience_s:g} s: {view['swap']}")
            await asyncio.sleep(LOOK_EVERY_S)
        return view

    async def ended(self, swap: str, patience_s: float = PATIENCE_S) -> View:
        """The swap as it ended."""
        view = await self.until(lambda view: _ended(view, swap) is not None, f"the end of {swap}", patience_s)
        found = _ended(view, swap)
        assert found is not None
        return found

    async def swapped(self, to: str, order: dict[str, Any], key: str) -> View:
        """Begun, and seen to its end."""
        return await self.ended(await self.begin(to, order, key))

    def _view(self) -> View:
        answer = self._fleet.http.get(self._path)
        answer.raise_for_status()
        return answer.json()

    async def _post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> View:
        """Everything that is asked for here may be asked for again."""

        def call() -> View:
            answer = self._fleet.http.post(self._path + path, json=body, headers=headers or {})
            if answer.status_code in (409, 422):
                raise ValueError(f"{path}: {answer.text}")
            answer.raise_for_status()
            return answer.json()

        return await asyncio.to_thread(patiently, call)


def _ended(view: View, swap: str) -> View | None:
    return next((each for each in view["swaps"] if each["id"] == swap), None)


def order(*percents: float, hold_s: float = 1.0, **more: Any) -> dict[str, Any]:
    """Small steps, and nothing kept: the next swap can begin as soon as this one is over."""
    steps = [{"canary": {"percent": percent}, "hold_s": hold_s, "replies_min": 0} for percent in percents]
    return {"steps": steps, "keep_s": 0.0} | more
