"""Sessions over HTTP: open, talk, read, steer, close."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from flotilla.client.calls import Calls
from flotilla.client.conversing import Conversing, Outgoing
from flotilla.client.events import Event, Known, Other, convert, read
from flotilla.client.talking import Talk
from flotilla.client.trying import Trying
from flotilla.core.clock import Clock
from flotilla.core.ids import new_id
from flotilla.core.signals import SessionView

HandoffAction = Literal["request", "accept", "return"]


class HttpWire:
    """Events by SSE, one connection each."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def trying(self) -> Trying:
        return self._calls.trying()

    def send(self, session: str, message: Outgoing) -> AsyncGenerator[Event]:
        return self._events(self._calls.stream("POST", f"{path(session)}/messages", message))

    def follow(self, session: str, place: str) -> AsyncGenerator[Event]:
        headers = {"Last-Event-ID": place}
        return self._events(self._calls.stream("GET", f"{path(session)}/stream", headers=headers))

    async def _events(self, stream: AsyncGenerator[bytes]) -> AsyncGenerator[Event]:
        async with aclosing(stream):
            async for json in stream:
                yield read(json)


class Session(Conversing):
    """A session of the fleet. `token` is what its visitor's browser may have; "" if it was not just opened.
    `seq` is of its last event when it was opened, else 0: what happens from then on is `after=session.seq`."""

    def __init__(self, id: str, calls: Calls, clock: Clock, token: str = "", seq: int = 0) -> None:
        super().__init__(id, HttpWire(calls))
        self.token = token
        self.seq = seq
        self._calls = calls
        self._clock = clock
        self._path = path(id)

    def connect(self, after: int | str = 0) -> Talk:
        """A WebSocket, both ways: `async with session.connect() as talk`."""
        return Talk(self._calls, self._clock, self._path, after)

    async def describe(self) -> SessionView:
        return _view(await self._calls.call("GET", self._path))

    async def events(self, after: int = 0, limit: int | None = None) -> list[Known | Other]:
        """A page of the record behind `after`, in order. Shorter than `limit` only at its end."""
        query = {"after": after, "limit": limit}
        page = await self._calls.call("GET", f"{self._path}/events", query=query)
        return [convert(event) for event in page["events"]]

    async def post(self, text: str, *, id: str | None = None, person: str | None = None) -> int:
        """The seq of the message, once it is in the record; nobody waits for a reply. With `person` it is
        what that person, who has accepted the session, says to the customer."""
        body = {"id": id or new_id("m"), "text": text} | ({"as": person} if person else {})
        return (await self._calls.call("POST", f"{self._path}/messages", body, again=True))["seq"]

    async def note(self, text: str, *, person: str, id: str | None = None) -> int:
        """The seq of a note that the customer never sees."""
        body = {"id": id or new_id("n"), "text": text, "person": person}
        return (await self._calls.call("POST", f"{self._path}/notes", body, again=True))["seq"]

    async def renew_token(self) -> str:
        """Another token for the session's visitor, by a key or by a token that is still good."""
        self.token = (await self._calls.call("POST", f"{self._path}/token", again=True))["token"]
        return self.token

    async def interrupt(self) -> str | None:
        """Stops the running reply; its turn, None if nothing was running. Sent once, as a second one would stop
        the next reply."""
        return (await self._calls.call("POST", f"{self._path}/interrupt"))["turn"]

    async def handoff(
        self, action: HandoffAction, *, person: str | None = None, reason: str = ""
    ) -> SessionView:
        """Asks for a person, or has `person` take the session over or give it back."""
        body = {"action": action, "reason": reason} | ({"person": person} if person else {})
        return _view(await self._calls.call("POST", f"{self._path}/handoff", body, again=True))

    async def close(self) -> SessionView:
        return _view(await self._calls.call("DELETE", self._path))


class Sessions:
    def __init__(self, calls: Calls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock

    async def open(
        self,
        agent: str | None = None,
        *,
        channel: str = "api",
        customer: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> Session:
        """Opens a session, once for each `key` in 24 h; without one, once for this call, however often it has
        to be sent."""
        body: dict[str, Any] = {"agent": agent, "channel": channel, "customer": customer, "model": model}
        body["metadata"] = dict(metadata or {})
        headers = {"Idempotency-Key": key or new_id("k")}
        view = await self._calls.call("POST", "/v1/sessions", body, headers=headers, again=True)
        return Session(view["id"], self._calls, self._clock, view.get("token", ""), view.get("seq", 0))

    def at(self, id: str) -> Session:
        """A session that is open already. Nothing is sent."""
        return Session(id, self._calls, self._clock)

    async def list(
        self, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of sessions, newest first, and the cursor of the next; None at the end."""
        query = {"limit": limit, "cursor": cursor}
        page = await self._calls.call("GET", "/v1/sessions", query=query)
        return page["sessions"], page["next"]


def path(session: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}"


def _view(answer: Any) -> SessionView:
    return msgspec.convert(answer, SessionView)
