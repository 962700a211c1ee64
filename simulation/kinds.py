"""Kinds with something at stake: a till that pays at a bank, a cashier that asks a till, a bell that rings.

They are written as anybody would write them: the intent is recorded before the bank is asked, under
a key that follows from the record, so whoever takes over asks again under the same key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec

from actors.performer import Activation, Performer
from flotilla.core.actor import Actor, Fact, Kind
from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.effects import (
    Abandoned,
    Answer,
    Answered,
    Ask,
    Due,
    Effects,
    Message,
    Signal,
    Wait,
    Woken,
    Work,
)
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId
from flotilla.core.reminders import Every, Forget, Remind

PAY_AGAIN_AFTER_S = 0.1


class Receipt(msgspec.Struct, frozen=True):
    """`seq` is where the order stands in the record of whoever answers."""

    seq: int


# -- the till


class Pay(Message[Receipt], frozen=True, kw_only=True, tag="pay"):
    idempotent = True
    id: str


class Ordered(Fact, frozen=True, kw_only=True, tag="ordered"):
    id: str


class Paid(Fact, frozen=True, kw_only=True, tag="paid"):
    id: str


class Settled(Signal, frozen=True, kw_only=True, tag="settled"):
    id: str


class Settle(Work, frozen=True, kw_only=True):
    id: str

    @property
    def key(self) -> str:
        return self.id


class Till(Actor):
    kind: ClassVar[Kind] = Kind(name="till", messages=Pay, facts=Ordered | Paid)

    orders: dict[str, int] = {}
    open: list[str] = []

    @property
    def unfinished(self) -> bool:
        return bool(self.open)

    def apply(self, fact: Ordered | Paid) -> None:
        if isinstance(fact, Ordered):
            self.orders[fact.id] = self.seq
            self.open.append(fact.id)
        else:
            self.open.remove(fact.id)

    def on(self, signal: Any) -> Effects:
        match signal:
            case Pay() if signal.id in self.orders:
                waits = signal.id in self.open
                return (Wait(key=signal.id) if waits else self._receipt(signal.id),)
            case Pay():
                return self.record(Ordered(id=signal.id)), Wait(key=signal.id), Settle(id=signal.id)
            case Settled() if signal.id in self.open:
                return self.record(Paid(id=signal.id)), self._receipt(signal.id, key=signal.id)
            case Woken():
                return tuple(Settle(id=id) for id in self.open)
            case _:
                return ()

    def _receipt(self, id: str, key: str = "") -> Answer:
        return Answer(value=Receipt(self.orders[id]), key=key)


class Paying(Performer):
    """`bank.pay(key, action)` does a thing once for each key."""

    def __init__(self, bank: Any, clock: Clock) -> None:
        self.bank = bank
        self._clock = clock

    async def work(self, at: Activation, effect: Work, call: Call) -> AsyncGenerator[Signal]:
        assert isinstance(effect, Settle)
        while True:
            try:
                await self.bank.pay(self.key(at, effect), f"{at.id.key}/{effect.id}")
                break
            except FlotillaError:
                await self._clock.sleep(PAY_AGAIN_AFTER_S)
        yield Settled(id=effect.id)

    def key(self, at: Activation, effect: Settle) -> str:
        return f"{at.id}/{effect.id}"


# -- the cashier


class Buy(Message[Receipt], frozen=True, kw_only=True, tag="buy"):
    idempotent = True
    id: str
    till: str


class Bought(Fact, frozen=True, kw_only=True, tag="bought"):
    id: str
    till: str


class Sold(Fact, frozen=True, kw_only=True, tag="sold"):
    id: str
    receipt: Receipt


class Cashier(Actor):
    kind: ClassVar[Kind] = Kind(name="cashier", messages=Buy, facts=Bought | Sold)

    orders: dict[str, int] = {}
    open: dict[str, str] = {}

    @property
    def unfinished(self) -> bool:
        return bool(self.open)

    def apply(self, fact: Bought | Sold) -> None:
        if isinstance(fact, Bought):
            self.orders[fact.id] = self.seq
            self.open[fact.id] = fact.till
        else:
            del self.open[fact.id]

    def on(self, signal: Any) -> Effects:
        match signal:
            case Buy() if signal.id in self.open:
                return (Wait(key=signal.id),)
            case Buy() if signal.id in self.orders:
                return (Answer(value=Receipt(self.orders[signal.id])),)
            case Buy():
                bought = Bought(id=signal.id, till=signal.till)
                return self.record(bought), Wait(key=signal.id), self._ask(signal.id)
            case Answered() if signal.key in self.open:
                return self._on_answer(signal)
            case Woken():
                return tuple(map(self._ask, self.open))
            case _:
                assert isinstance(signal, Abandoned | Answered)
                return ()

    def _on_answer(self, signal: Answered) -> Effects:
        if not isinstance(signal.value, Receipt):
            return (self._ask(signal.key),)
        sold = self.record(Sold(id=signal.key, receipt=signal.value))
        return sold, Answer(value=Receipt(self.orders[signal.key]), key=signal.key)

    def _ask(self, id: str) -> Ask:
        return Ask(
            key=id, to=ActorId(self.id.tenant, "till", self.open[id]), message=Pay(id=id), timeout_s=5.0
        )


# -- the bell


class Wind(Message[Receipt], frozen=True, kw_only=True, tag="wind"):
    """Rings so many times, once a second."""

    idempotent = True
    id: str
    times: int


class Wound(Fact, frozen=True, kw_only=True, tag="wound"):
    id: str
    times: int


class Rang(Fact, frozen=True, kw_only=True, tag="rang"):
    """`id` is the time at which it was due."""

    id: str


class Bell(Actor):
    kind: ClassVar[Kind] = Kind(name="bell", messages=Wind, facts=Wound | Rang)

    wound: int = 0
    left: int = 0

    @property
    def unfinished(self) -> bool:
        return self.left > 0

    def apply(self, fact: Wound | Rang) -> None:
        if isinstance(fact, Wound):
            self.wound, self.left = self.seq, fact.times
        else:
            self.left -= 1

    def on(self, signal: Any) -> Effects:
        match signal:
            case Wind() if self.wound:
                return (Answer(value=Receipt(self.wound)),)
            case Wind():
                remind = Remind(name="ring", repeat=Every(seconds=1.0))
                record = self.record(Wound(id=signal.id, times=signal.times), remind=(remind,))
                return record, Answer(value=Receipt(self.wound))
            case Due():
                last = (Forget(name="ring"),) if self.left == 1 else ()
                return (self.record(Rang(id=signal.at.isoformat()), remind=last),)
            case _:
                return ()
