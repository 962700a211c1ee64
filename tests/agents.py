"""A world in which agents live: their journals as bytes, their works one at a time, their hosts mortal.

Nothing happens by itself: `step` lets the next thing that is under way go on. A host dies after any
performed effect whose count is in `deaths`; another one folds the journal and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from flotilla.core.effects import (
    Abandoned,
    Answer,
    Answered,
    Ask,
    Due,
    Effect,
    Record,
    Refuse,
    Stop,
    Wait,
    Woken,
)
from flotilla.core.errors import FlotillaError, Problem
from flotilla.core.flow import Agent
from flotilla.core.flow_facts import Came, Do, LetGo, Perform, StepBegun
from flotilla.core.generation import Usage
from flotilla.core.ids import ActorId
from flotilla.core.journal import Snapshot, Stored
from flotilla.core.ledger import Codec
from flotilla.core.reminders import Remind
from flotilla.core.wants import CallTool, Done, Generate, Hits, Outcome, Search, Text, Value
from tests.build import hit

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
USAGE = Usage(prompt_tokens=10, completion_tokens=5)


class Ticket(msgspec.Struct, eq=False):
    """Somebody who asked `to`: an agent's step, or (without `asker`) the test."""

    to: ActorId
    message: Any
    asker: ActorId | None = None
    key: str = ""
    result: Any = None


class Running(msgspec.Struct, eq=False):
    """A work, or an ask that is on its way. `came` is what it has to report."""

    actor: ActorId
    effect: Perform | Ask
    came: Came | None = None
    ticket: Ticket | None = None


class Agents:
    def __init__(
        self,
        *kinds: type[Agent],
        keyed: bool = True,
        deaths: set[int] | None = None,
        tool: Callable[[CallTool], Any] = lambda call: {"did": call.name},
    ) -> None:
        self.codecs = {kind.kind.name: Codec(kind) for kind in kinds}
        self.keyed, self.tool, self.deaths = keyed, tool, set(deaths or ())
        self.awake: dict[ActorId, Agent] = {}
        self.journal: dict[ActorId, list[Stored]] = {}
        self.snapshots: dict[ActorId, Snapshot] = {}
        self.inbox: list[tuple[ActorId, Any, Ticket | None]] = []
        self.running: list[Running] = []
        self.waiting: dict[tuple[ActorId, str], list[Ticket]] = {}
        self.reminders: dict[tuple[ActorId, str], Remind] = {}
        self.performed: list[Effect] = []
        self.done_by_tools: list[tuple[str, CallTool]] = []  # each time something was done in the world
        self.let_go: list[str] = []

    # -- asking and stepping

    def id(self, kind: str, name: str = "a-1") -> ActorId:
        return ActorId("t1", kind, name)

    def ask(self, kind: str, message: Any) -> Ticket:
        ticket = Ticket(to=self.id(kind), message=message)
        self.send(ticket)
        return ticket

    def do(self, kind: str, question: str = "Why?", task: str = "t-1", **fields: Any) -> Ticket:
        return self.ask(kind, Do(task=task, question=question, **fields))

    def send(self, ticket: Ticket) -> None:
        self.feed(ticket.to, ticket.message, ticket)

    def step(self, at: int = 0) -> bool:
        """False if nothing is under way. A tool that was called has done its work before it reports."""
        if not self.running:
            return self._next_reminder()
        running = self.running[at % len(self.running)]
        if isinstance(running.effect, Ask):
            self._deliver(running, running.effect)
        elif running.came is None:
            running.came = self._work(running.actor, running.effect)
        else:
            self.running.remove(running)
            self.feed(running.actor, running.came)
        return True

    def finish(self) -> Agents:
        for _ in range(10_000):
            if not self.step():
                return self
        raise AssertionError("it never ends")

    def _deliver(self, running: Running, ask: Ask) -> None:
        self.running.remove(running)
        ticket = Ticket(to=ask.to, message=ask.message, asker=running.actor, key=ask.key)
        if ask.to.kind not in self.codecs:
            problem = FlotillaError(f"No kind {ask.to.kind}.").problem()
            return self.feed(running.actor, Answered(key=ask.key, problem=problem))
        return self.send(ticket)

    def _next_reminder(self) -> bool:
        if not self.reminders:
            return False
        actor, name = next(iter(self.reminders))
        del self.reminders[actor, name]
        self.feed(actor, Due(name=name, at=AT))
        return True

    def leave(self, ticket: Ticket) -> None:
        """Its asker gives up."""
        for (actor, key), tickets in list(self.waiting.items()):
            if ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self.waiting[actor, key]
                    self.feed(actor, Abandoned(key=key))

    # -- the world

    def _work(self, actor: ActorId, effect: Perform) -> Came:
        try:
            return Came(step=effect.step, outcome=self._outcome(effect))
        except FlotillaError as error:
            return Came(step=effect.step, problem=error.problem())

    def _outcome(self, effect: Perform) -> Outcome:
        match effect.want:
            case Search(query=query):
                return Hits((hit(f"About {query}."),))
            case Generate(prompt=prompt):
                return Text(f"{prompt.messages[-1].text}!", USAGE)
            case CallTool() as call:
                known = any(key == effect.idempotency_key for key, _ in self.done_by_tools)
                if not (self.keyed and known):
                    self.done_by_tools.append((effect.idempotency_key, call))
                return Value(self.tool(call))

    # -- a host

    def feed(self, id: ActorId, signal: Any, ticket: Ticket | None = None) -> None:
        """One signal at a time: what comes of one waits until it is done with."""
        self.inbox.append((id, signal, ticket))
        if len(self.inbox) > 1:
            return
        while self.inbox:
            self._handle(*self.inbox[0])
            self.inbox.pop(0)

    def _handle(self, id: ActorId, signal: Any, ticket: Ticket | None) -> None:
        try:
            effects = self.agent(id).on(signal)
        except FlotillaError as error:
            if ticket is None:
                raise
            return self._report(ticket, error.problem())
        for effect in effects:
            self._perform(id, effect, ticket)
            self.performed.append(effect)
            if len(self.performed) in self.deaths:
                return self.crash(id, ticket)
        return None

    def agent(self, id: ActorId) -> Agent:
        if id not in self.awake:
            self.awake[id] = self.codecs[id.kind].actor(id=id)
        return self.awake[id]

    def crash(self, id: ActorId, ticket: Ticket | None = None) -> None:
        """The host of this one actor dies. Who waited for it asks again; whom it asked is left alone."""
        lost = [self.waiting.pop(place) for place in list(self.waiting) if place[0] == id]
        self.running = [running for running in self.running if running.actor != id]
        lost_signals = [n for n in self.inbox[1:] if n[0] == id and n[2] is None]
        self.inbox = [n for n in self.inbox if n not in lost_signals]
        self.awake[id] = self.folded(id)
        for tickets in list(self.waiting.values()):
            for other in [t for t in tickets if t.asker == id]:
                self.leave(other)
        if self.awake[id].unfinished:
            self.feed(id, Woken())
        again = [other for tickets in lost for other in tickets]
        if ticket is not None and ticket not in again and ticket.result is None:
            again.append(ticket)
        for other in again:
            self.send(other)

    def folded(self, id: ActorId) -> Agent:
        snapshot = self.snapshots.get(id)
        entries = [s for s in self.journal.get(id, []) if snapshot is None or s.seq > snapshot.seq]
        agent = self.codecs[id.kind].wake(id, snapshot, entries)
        assert isinstance(agent, Agent)
        return agent

    def keep(self, id: ActorId) -> None:
        self.snapshots[id] = self.codecs[id.kind].snapshot(self.agent(id))

    def _perform(self, id: ActorId, effect: Effect, ticket: Ticket | None) -> None:
        match effect:
            case Record():
                self._record(id, effect)
            case Wait(key=key):
                assert ticket is not None
                self.waiting.setdefault((id, key), []).append(ticket)
            case Answer(value=value, key=key):
                for waiting in self.waiting.pop((id, key), []) if key else [ticket]:
                    self._report(waiting, value)
            case Refuse(problem=problem, key=key):
                for waiting in self.waiting.pop((id, key), []):
                    self._report(waiting, problem)
            case Perform() | Ask():
                assert all((r.actor, r.effect.key) != (id, effect.key) for r in self.running), "twice"
                self.running.append(Running(actor=id, effect=effect))
            case Stop(key=key):
                self._stop(id, key)
            case LetGo(step=step):
                self.let_go.append(step)
            case _:
                raise AssertionError(effect)

    def _record(self, id: ActorId, record: Record) -> None:
        log = self.journal.setdefault(id, [])
        for fact in record.facts:
            log.append(Stored(len(log) + 1, AT, self.codecs[id.kind].entry(fact)))
        for change in record.remind:
            if isinstance(change, Remind):
                self.reminders[id, change.name] = change
            else:
                self.reminders.pop((id, change.name), None)

    def _stop(self, id: ActorId, key: str) -> None:
        self.running = [r for r in self.running if (r.actor, r.effect.key) != (id, key)]
        for tickets in list(self.waiting.values()):
            for other in [t for t in tickets if (t.asker, t.key) == (id, key)]:
                self.leave(other)

    def _report(self, ticket: Ticket | None, value: Any) -> None:
        assert ticket is not None
        if ticket.asker is None:
            ticket.result = value
        elif isinstance(value, Problem):
            self.feed(ticket.asker, Answered(key=ticket.key, problem=value))
        else:  # over the wire
            value = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=Done)
            self.feed(ticket.asker, Answered(key=ticket.key, value=value))

    # -- what came of it

    def facts(self, kind: str, of: type | None = None) -> list[Any]:
        codec = self.codecs[kind]
        recorded = [codec.recorded(s).fact for s in self.journal.get(self.id(kind), [])]
        return [fact for fact in recorded if of is None or isinstance(fact, of)]

    def begun(self, kind: str) -> list[str]:
        return [fact.what for fact in self.facts(kind, StepBegun)]
