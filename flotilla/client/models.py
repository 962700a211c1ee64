"""Models: their versions and their swaps, as JSON of the API (docs/models.md)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import quote

from flotilla.client.calls import Calls
from flotilla.client.events import Event, Other, read
from flotilla.client.reading import Reader
from flotilla.client.resuming import resumed
from flotilla.core.ids import new_id

Steering = Literal["pause", "resume", "promote", "rollback"]
Json = dict[str, Any]


class Models:
    """Reading wants a tenant's key, changing an operator's."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> Json:
        """`models`, and whether there are `more`."""
        return await self._calls.call("GET", "/v1/models")

    async def show(self, model: str) -> Json:
        return await self._calls.call("GET", _path(model))

    async def history(self, model: str, after: int = 0) -> list[Json]:
        """A page of what is recorded of the model behind `after`, in order."""
        page = await self._calls.call("GET", f"{_path(model)}/history", query={"after": after})
        return page["events"]

    async def add(self, model: str, version: Json) -> Json:
        """Registers a version. The same one again changes nothing."""
        return await self._calls.call("POST", f"{_path(model)}/versions", version, again=True)

    async def drop(self, model: str, version: str, *, by: str = "") -> Json:
        """Forgets a version that nobody needs; dropping it again changes nothing."""
        where = f"{_path(model)}/versions/{quote(version, safe='')}"
        return await self._calls.call("DELETE", where, query={"by": by})

    async def serve(self, model: str, order: Json) -> Json:
        """Has the model answer, and sets its replicas and its fallbacks."""
        return await self._calls.call("POST", f"{_path(model)}/serve", order, again=True)

    async def evaluate(self, model: str, order: Json, *, timeout_s: float = 300.0) -> Json:
        """Puts questions to a version that is loaded, and judges its answers."""
        return await self._calls.call("POST", f"{_path(model)}/evaluations", order, timeout_s=timeout_s)

    async def swap(self, model: str, order: Json, *, key: str | None = None) -> Json:
        """Begins a swap, once for each `key`; without one, once for this call."""
        headers = {"Idempotency-Key": key or new_id("k")}
        return await self._calls.call("POST", f"{_path(model)}/swaps", order, headers=headers, again=True)

    async def steer(self, model: str, verb: Steering, **order: Any) -> Json:
        return await self._calls.call("POST", f"{_path(model)}/swap/{verb}", order)

    async def watch(self, model: str, after: int = 0) -> AsyncGenerator[Other]:
        """What is recorded of the model, as it happens, and `swap.figures` between it. It doesn't end."""
        where, reader = f"{_path(model)}/events", Reader(after)

        async def connect(place: str) -> AsyncGenerator[Event]:
            async with aclosing(self._calls.stream("GET", where, headers={"Last-Event-ID": place})) as stream:
                async for json in stream:
                    yield read(json)

        events = resumed(connect, reader, self._calls.trying(), lambda _: False)
        async with aclosing(events):
            async for event in events:
                assert isinstance(event, Other), "models have no conversations"
                yield event


def _path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"
