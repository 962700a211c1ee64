"""The same client, synchronous: each method waits for that of the asynchronous one, which says what it does."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Any, Self

from flotilla.client import conversing, fleet, keys, knowledge, models, sessions, talking
from flotilla.client.events import Event
from flotilla.client.limits import LIMITS, PATIENCE, ClientLimits
from flotilla.client.portal import Blocking, Portal, iterates, waits
from flotilla.client.trying import OnRetry, untold
from flotilla.core.clock import Clock
from flotilla.core.policy.retry import Patience


class Talk(Blocking[talking.Talk]):
    """As `flotilla.client.talking.Talk`: a context, and an iterator of events."""

    say = waits(talking.Talk.say)
    send = iterates(talking.Talk.send)
    ask = waits(talking.Talk.ask)
    interrupt = waits(talking.Talk.interrupt)
    typing = waits(talking.Talk.typing)
    ready = waits(talking.Talk.ready)
    ping = waits(talking.Talk.ping)
    close = waits(talking.Talk.aclose)

    def __init__(self, inner: talking.Talk, portal: Portal) -> None:
        super().__init__(inner, portal)
        portal.open.add(inner)

    @property
    def place(self) -> str:
        return self.inner.place

    @property
    def connected(self) -> bool:
        return self.inner.connected

    def __enter__(self) -> Self:
        self.portal.run(self.inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return self.portal.run(self.inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class Session(Blocking[sessions.Session]):
    send = iterates(conversing.Conversing.send)
    ask = waits(conversing.Conversing.ask)
    follow = iterates(conversing.Conversing.follow)
    describe = waits(sessions.Session.describe)
    events = waits(sessions.Session.events)
    post = waits(sessions.Session.post)
    note = waits(sessions.Session.note)
    renew_token = waits(sessions.Session.renew_token)
    interrupt = waits(sessions.Session.interrupt)
    handoff = waits(sessions.Session.handoff)
    close = waits(sessions.Session.close)

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def token(self) -> str:
        return self.inner.token

    @property
    def seq(self) -> int:
        return self.inner.seq

    def connect(self, after: int | str = 0) -> Talk:
        return Talk(self.inner.connect(after), self.portal)


class Sessions(Blocking[sessions.Sessions]):
    _open = waits(sessions.Sessions.open)
    list = waits(sessions.Sessions.list)

    def open(self, agent: str | None = None, **options: Any) -> Session:
        return Session(self._open(agent, **options), self.portal)

    def at(self, id: str) -> Session:
        return Session(self.inner.at(id), self.portal)


class Knowledge(Blocking[knowledge.Knowledge]):
    search = waits(knowledge.Knowledge.search)
    add = waits(knowledge.Knowledge.add)
    remove = waits(knowledge.Knowledge.remove)
    documents = waits(knowledge.Knowledge.documents)
    embedder = waits(knowledge.Knowledge.embedder)
    reembed = waits(knowledge.Knowledge.reembed)


class Models(Blocking[models.Models]):
    list = waits(models.Models.list)
    show = waits(models.Models.show)
    history = waits(models.Models.history)
    add = waits(models.Models.add)
    drop = waits(models.Models.drop)
    serve = waits(models.Models.serve)
    evaluate = waits(models.Models.evaluate)
    swap = waits(models.Models.swap)
    steer = waits(models.Models.steer)
    watch = iterates(models.Models.watch)


class Keys(Blocking[keys.Keys]):
    create = waits(keys.Keys.create)
    list = waits(keys.Keys.list)
    show = waits(keys.Keys.show)
    rotate = waits(keys.Keys.rotate)
    revoke = waits(keys.Keys.revoke)


class Client(Blocking[fleet.AsyncClient]):
    """As `AsyncClient`, for programs without a loop."""

    call = waits(fleet.AsyncClient.call)
    ready = waits(fleet.AsyncClient.ready)

    def __init__(
        self,
        url: str = fleet.DEFAULT_URL,
        key: str = fleet.DEFAULT_KEY,
        *,
        patience: Patience = PATIENCE,
        limits: ClientLimits = LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
        on_retry: OnRetry = untold,
    ) -> None:
        inner = fleet.AsyncClient(
            url, key, patience=patience, limits=limits, clock=clock, random=random, on_retry=on_retry
        )
        super().__init__(inner, Portal())
        self.sessions = Sessions(inner.sessions, self.portal)
        self.knowledge = Knowledge(inner.knowledge, self.portal)
        self.models = Models(inner.models, self.portal)
        self.keys = Keys(inner.keys, self.portal)

    @property
    def url(self) -> str:
        return self.inner.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what other threads wait for, too. Closing again changes nothing."""
        self.portal.close(self.inner.aclose())
