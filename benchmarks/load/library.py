"""Conversations by the client library (`flotilla.client`): what a program that uses it gets from the fleet.

The library comes back by itself, and what it yields goes through the same checks as the bare wire does: every event
once and in order, deltas that join, the text that was said. A fault of its own is a `gap`, a `doubled` or a turn that
is lost.

What it mends is written down, or it would be hidden: each error behind which it tried again is counted
(`tried again: …`), and events that it had to ask for twice are a `gap` of the fleet. What it mends without asking
(text that came with the end of its reply alone, events that came twice) only the lean client sees.

A message that is shed is said again by the library, after `Retry-After`. **A turn that was shed and then answered
is a late turn**: it counts as completed, from its intended start, with all the pauses in it. It is shed if it was
refused until the library's patience was over, and not finished if the run was over first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import cached_property

from benchmarks.load.conversation import Conversation, Door
from benchmarks.load.frames import Data, Event, timed
from benchmarks.load.heard import frame
from benchmarks.load.notes import Notes, Turn
from benchmarks.load.orders import Recruit
from benchmarks.load.sockets import Lost
from benchmarks.load.tasks import Tasks
from benchmarks.load.texts import TEXTS
from flotilla.client import Accepted, AsyncClient, ClientLimits, Session, Talk
from flotilla.client.conversing import Conversing
from flotilla.client.events import Event as ClientEvent
from flotilla.client.resuming import Missing
from flotilla.client.rpc import RpcClient
from flotilla.client.trying import OnRetry
from flotilla.core.errors import FlotillaError, LimitReached, Overloaded, Unavailable

CONNECTIONS_EACH = 2  # of a conversation: its stream, and what is posted beside it
CONNECTIONS_SPARE = 100


def client(recruit: Recruit, url: str, notes: Notes) -> AsyncClient:
    """Of one process. Sessions are opened by it, whoever plays them."""
    most = CONNECTIONS_EACH * recruit.scenario.conversations + CONNECTIONS_SPARE
    return AsyncClient(
        url, recruit.key, limits=ClientLimits(connections_max=most), on_retry=written_down(notes)
    )


def written_down(notes: Notes) -> OnRetry:
    def on_retry(error: FlotillaError) -> None:
        notes.counts[f"tried again: {error.slug}"] += 1
        if isinstance(error, Missing):
            notes.error("gap", error.detail)
        elif isinstance(error, Overloaded | LimitReached) and error.retry_after_s is None:
            notes.error("no Retry-After", error.detail)

    return on_retry


class Library:
    """`opening` is the client of the fleet's address; sockets past its proxy's capacity have another."""

    def __init__(self, recruit: Recruit, notes: Notes, opening: AsyncClient) -> None:
        self._recruit = recruit
        self._notes = notes
        self._clients = {recruit.url: opening}
        if recruit.aside:
            self._clients[recruit.aside] = client(recruit, recruit.aside, notes)
        self._tasks = Tasks()

    @cached_property
    def _rpc(self) -> RpcClient:
        """Opened in the loop in which it is first used."""
        return RpcClient(self._recruit.rpc, self._recruit.key, on_retry=written_down(self._notes))

    def door(self, way: int, conversation: Conversation, _: Lost) -> Door:
        """`way` is its number in `scenario.WAYS`."""
        id, tasks = conversation.session, self._tasks
        session = self._clients[self._recruit.url].sessions.at(id)
        match way:
            case 0:
                beside = self._clients[self._recruit.sockets_url(conversation.number)]
                return TalkDoor(beside.sessions.at(id), conversation, tasks)
            case 1:
                return FollowDoor(session, conversation, tasks)
            case 2:
                return AskDoor(session, conversation, tasks)
            case _:
                return SendDoor(self._rpc.sessions.at(id), conversation, tasks)

    async def close(self) -> None:
        await self._tasks.cancel()
        for opened in self._clients.values():
            await opened.aclose()
        if "_rpc" in self.__dict__:
            await self._rpc.aclose()


class _Posting:
    """A turn is said in a task of its own. `open` is for as long as the library takes messages: while it is on its
    way back, too."""

    def __init__(self, conversation: Conversation, tasks: Tasks) -> None:
        self._conversation = conversation
        self._tasks = tasks
        self.open = False

    async def connect(self) -> None:
        """Nothing to connect: each turn has a stream of its own."""
        self._opened()

    def _opened(self) -> None:
        self.open = True
        self._conversation.connected()

    def post(self, turn: Turn) -> None:
        self._tasks.start(self._post(turn))

    async def _post(self, turn: Turn) -> None:
        try:
            await self._say(turn)
        except FlotillaError as error:
            refused(self._conversation, turn, error)

    async def _say(self, turn: Turn) -> None:
        raise NotImplementedError

    async def _read(self, events: AsyncIterator[ClientEvent]) -> None:
        """To their end, which is the end of this conversation: the library has given up, or it was closed."""
        error: FlotillaError = Unavailable("The session is closed.")
        try:
            async for event in events:
                self._conversation.take(frame(event))
        except FlotillaError as given_up:
            error = given_up
        if self.open:
            self.open = False
            self._end(error)

    def _end(self, error: FlotillaError) -> None:
        if self._conversation.turn is not None:
            refused(self._conversation, self._conversation.turn, error)
        else:
            self._conversation.notes.error("unreachable", f"{self._conversation.session}: {error}")

    def cut(self) -> bool:
        return False

    async def close(self) -> None:
        self.open = False


class TalkDoor(_Posting):
    """WebSocket: `session.connect()`."""

    def __init__(self, session: Session, conversation: Conversation, tasks: Tasks) -> None:
        super().__init__(conversation, tasks)
        self._session = session
        self._talk: Talk | None = None

    @property
    def stands(self) -> bool:
        """Whether it is connected now."""
        return self._talk is not None and self._talk.connected

    async def connect(self) -> None:
        """Raises `ConnectionError`."""
        talk = self._session.connect(self._conversation.place)
        try:
            await talk.ready()
        except FlotillaError as error:
            await talk.aclose()
            raise ConnectionError(str(error)) from error
        self._talk = talk
        self._tasks.start(self._read(talk))
        self._opened()

    async def _say(self, turn: Turn) -> None:
        assert self._talk is not None
        await self._talk.say(TEXTS[turn.text], id=turn.id)

    async def answers(self) -> None:
        """Returns when the server reads this socket and answers it. Raises `ConnectionError`."""
        try:
            assert self._talk is not None
            await self._talk.ping()
        except FlotillaError as error:
            raise ConnectionError(str(error)) from error

    def cut(self) -> bool:
        """The library lets go of it without a good-bye; it is not reset, as the lean client's is."""
        stood = self.stands
        if self._talk is not None:
            self._talk.reconnect()
        return stood

    async def close(self) -> None:
        self.open = False
        if self._talk is not None:
            await self._talk.aclose()


class FollowDoor(_Posting):
    """SSE: `session.follow()`, with messages posted beside it."""

    def __init__(self, session: Session, conversation: Conversation, tasks: Tasks) -> None:
        super().__init__(conversation, tasks)
        self._session = session

    async def connect(self) -> None:
        """Begins with the last event that is known already: it comes as soon as the stream stands. Raises
        `ConnectionError`."""
        events = self._session.follow(max(0, self._conversation.seq - 1))
        try:
            first = await anext(events)
        except (FlotillaError, StopAsyncIteration) as error:
            await events.aclose()
            raise ConnectionError(str(error)) from error
        if (heard := frame(first)).seq > self._conversation.seq:
            self._conversation.take(heard)
        self._tasks.start(self._follow(events))
        self._opened()

    async def _follow(self, events: AsyncGenerator[ClientEvent]) -> None:
        async with aclosing(events):
            await self._read(events)

    async def _say(self, turn: Turn) -> None:
        await self._session.post(TEXTS[turn.text], id=turn.id)


class AskDoor(_Posting):
    """HTTP: `session.ask()`, which gives a finished reply and nothing before it."""

    def __init__(self, session: Session, conversation: Conversation, tasks: Tasks) -> None:
        super().__init__(conversation, tasks)
        self._session = session

    async def _say(self, turn: Turn) -> None:
        reply = await self._session.ask(TEXTS[turn.text], id=turn.id)
        type = "reply.interrupted" if reply.interrupted else "reply.completed"
        data = Data(text=reply.text, timing=timed(reply.timing))
        if self._conversation.turn is turn:
            self._conversation.answered(Event(type, reply.seq, reply.turn, data=data))


class SendDoor(_Posting):
    """gRPC: `session.send()`, the events of one turn."""

    def __init__(self, session: Conversing, conversation: Conversation, tasks: Tasks) -> None:
        super().__init__(conversation, tasks)
        self._session = session

    async def _say(self, turn: Turn) -> None:
        async with aclosing(self._session.send(TEXTS[turn.text], id=turn.id)) as events:
            async for event in events:
                if isinstance(event, Accepted):
                    self._conversation.begins(event.seq)
                self._conversation.take(frame(event))


def refused(conversation: Conversation, turn: Turn, error: FlotillaError) -> None:
    """What the library has given up, or what it would not help to say again."""
    if conversation.turn is not turn:
        return
    if isinstance(error, Unavailable) and error.retry_after_s is None:  # nobody was there to say anything
        conversation.failed("unreachable", str(error))
    else:
        conversation.refused(error.status, error.detail, error.retry_after_s)
