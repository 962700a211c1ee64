"""What an operator asks of a fleet's models, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2

Json = dict[str, Any]
LOOK_EVERY_S = 0.2


class Operator:
    """Of one model."""

    def __init__(self, url: str, model: str, key: str = "dev") -> None:
        self._http = httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        self._path = f"/v1/models/{model}"

    async def close(self) -> None:
        await self._http.aclose()

    async def view(self) -> Json:
        return (await self._http.get(self._path)).raise_for_status().json()

    async def add(self, name: str, **version: Any) -> None:
        (await self._http.post(f"{self._path}/versions", json={"name": name, **version})).raise_for_status()

    async def serve(self, version: str, **more: Any) -> None:
        (await self._http.post(f"{self._path}/serve", json={"version": version, **more})).raise_for_status()

    async def swap(self, to: str, **order: Any) -> None:
        (await self._http.post(f"{self._path}/swaps", json={"to": to, "order": order})).raise_for_status()

    async def steer(self, what: str) -> None:
        (await self._http.post(f"{self._path}/swap/{what}", json={})).raise_for_status()

    async def until(self, true: Callable[[Json], bool], timeout_s: float) -> Json:
        """The first view of which it is true. Raises `TimeoutError`, and `RuntimeError` for a swap that went
        wrong meanwhile."""
        async with asyncio.timeout(timeout_s):
            while not true(view := await self.view()):
                if any(swap["end"] == "failed" for swap in view["swaps"][:1]) and not view["swap"]:
                    raise RuntimeError(f"The swap failed: {view['swaps'][0]['reason']}")
                await asyncio.sleep(LOOK_EVERY_S)
            return view

    async def until_up(self, version: str, timeout_s: float) -> None:
        await self.until(lambda view: serves(view, version), timeout_s)


def stage(view: Json) -> str:
    return view["swap"]["stage"] if view["swap"] else ""


def serves(view: Json, version: str) -> bool:
    return any(replica["version"].endswith(f"@{version}") for replica in view["replicas"])
