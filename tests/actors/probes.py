"""A kind that does what its messages say, for tests of what the runtime makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

from actors.performer import Activation, Performer
from actors.runtime import Resident
from flotilla.core.actor import Actor, Fact, Kind, KindLimits
from flotilla.core.calls import Call
from flotilla.core.effects import (
    Abandoned,
    Answer,
    Answered,
    Ask,
    Due,
    Effects,
    Message,
    Signal,
    Step,
    Stop,
    Wait,
    Woken,
    Work,
)
from flotilla.core.errors import Problem, Refused
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, Entry
from flotilla.core.ledger import Recorded
from tests.actors import kinds
from tests.actors.cluster import Cluster


class Begun(Fact, frozen=True, kw_only=True, tag="begun"):
    text: str


class Ended(Fact, frozen=True, kw_only=True, tag="ended"):
    pass


class Act(Message[Any], frozen=True, kw_only=True, tag="act"):
    """`what` says which effects follow (`Probe._act`)."""

    what: str
    text: str = "x"
    to: str = ""
    values: list[Any] = []


class See(Message[list[str]], frozen=True, tag="see"):
    idempotent = True


class Blow(Step, frozen=True):
    """Breaks as it is performed."""


class Rival(Step, frozen=True):
    """Another host records something."""


class Toiling(Work, frozen=True, kw_only=True):
    pause_s: float = 0.0

    @property
    def key(self) -> str:
        return "toil"


class Toiled(Signal, frozen=True, kw_only=True, tag="toiled"):
    value: Any = None


class Given(Signal, frozen=True, kw_only=True, tag="given"):
    """In place of a poisoned one."""


class Probe(Actor):
    kind: ClassVar[Kind] = Kind(
        name="probe",
        messages=Act | See,
        facts=Begun | Ended,
        limits=KindLimits(mailbox_messages_max=8, message_bytes_max=1000, snapshot_every=2),
    )

    notes: list[str] = []
    open: int = 0
    wakes_break: ClassVar[bool] = False
    given: ClassVar[int] = 0

    @property
    def unfinished(self) -> bool:
        return self.open > 0

    def apply(self, fact: Begun | Ended) -> None:
        if isinstance(fact, Begun):
            self.notes.append(fact.text)
            self.open += fact.text == "open"
        else:
            self.open = 0

    def on(self, signal: Any) -> Effects:
        match signal:
            case Act():
                return self._act(signal)
            case See():
                return (Answer(value=self.notes),)
            case Woken():
                if Probe.wakes_break:
                    raise ZeroDivisionError("a bug in waking")
                return ()
            case Given():
                Probe.given += 1
                return (self.record(Ended()),)
            case Toiled():
                return self._toiled(signal)
            case Answered(key="back"):
                problem = signal.problem.type if signal.problem else "fine"
                return self.record(Begun(text=problem)), Answer(value=problem, key="w")
            case Answered():
                return (self._ask("back", "back"),)
            case Abandoned():
                return (Stop(key="toil"),)
            case Due(name="bad"):
                self.open = 0
                raise ZeroDivisionError("a bug")
            case Due():
                return (self.record(Begun(text=f"due {signal.name}")),)
            case _:
                raise AssertionError(signal)

    def _toiled(self, signal: Toiled) -> Effects:
        if signal.value == "break":
            raise ZeroDivisionError("a bug")
        if signal.value == "ask":
            return (self._ask("back", "other"),)
        return (Answer(value=signal.value, key="w"),)

    def _ask(self, key: str, to: str, text: str = "x", timeout_s: float = 60.0) -> Ask:
        act = Act(what="never" if to == "back" else "note", text=text)
        return Ask(key=key, to=ActorId(self.id.tenant, "probe", to), message=act, timeout_s=timeout_s)

    def _act(self, act: Act) -> Effects:
        if act.what == "on raises":
            self.record(Begun(text=act.text))
            raise Refused("After all, no.", next="Send another.")
        if act.what == "unsayable":
            raise Refused("\ud800")
        record = self.record(Begun(text=act.text)) if act.what != "never" else None
        match act.what:
            case "note":
                return record, Answer(value=len(self.notes))  # type: ignore[return-value]
            case "keep":
                return record, Answer(value=act.values)  # type: ignore[return-value]
            case "blow":
                return record, Blow(), Answer(value="done")  # type: ignore[return-value]
            case "answer and blow":
                return record, Answer(value="done"), Blow()  # type: ignore[return-value]
            case "toil":
                return record, Wait(key="w"), Toiling(pause_s=-1.0)  # type: ignore[return-value]
            case "wait first":
                return Wait(key="w"), record, Toiling()  # type: ignore[return-value]
            case "rival":
                again = self.record(Begun(text="again"))
                return record, Rival(), again, Answer(value="done")  # type: ignore[return-value]
            case "late":
                return record, Wait(key="w"), Toiling(pause_s=0.15)  # type: ignore[return-value]
            case "never":
                return (Wait(key="never"),)
            case "unsendable":
                ask = Ask(
                    key="back",
                    to=ActorId(self.id.tenant, "probe", "other"),
                    message=Act(what="note", values=[object()]),
                )
                return record, Wait(key="w"), ask  # type: ignore[return-value]
            case "answer, then ask back":
                return record, Answer(value="done"), self._ask("first", act.to)  # type: ignore[return-value]
            case _:
                raise AssertionError(act)


class ProbePerformer(Performer):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.gate = asyncio.Event()
        self.started = 0
        self.cancelled = 0
        self.value: Any = "done"
        self.frames_break = False

    async def step(self, at: Activation, effect: Step) -> None:
        if isinstance(effect, Blow):
            raise ZeroDivisionError("a bug in a step")
        body = b'{"type":"begun","text":"rival"}'
        entry = Entry("begun", 1, body)
        append = Append(actor=at.id, expected=1, entries=(entry,), at=self._cluster.clock.now())
        await self._cluster.journal.append(append)

    async def work(self, at: Activation, effect: Any, call: Call) -> AsyncGenerator[Signal]:
        self.started += 1
        try:
            if effect.pause_s < 0:
                await self.gate.wait()
            await asyncio.sleep(max(0.0, effect.pause_s))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        yield Toiled(value="ask" if effect.pause_s > 0 else self.value)

    def poisoned(self, at: Activation, signal: Signal, problem: Problem) -> Signal | None:
        return Given() if isinstance(signal, Woken) else None

    def frame(self, recorded: Recorded) -> bytes | None:
        if self.frames_break:
            raise ZeroDivisionError("a bug in a frame")
        return super().frame(recorded)


def probed() -> Cluster:
    """A cluster with probes and the kinds of tests/actors/kinds.py at home."""
    cluster = Cluster()
    cluster._residents = lambda c: [Resident(Probe, ProbePerformer(cluster)), *kinds.residents()]
    return cluster
