"""Performing effects: one function for each that every kind has, and the order of them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actors import early, recording, tracing
from actors.mailbox import Envelope
from flotilla.core.calls import Call
from flotilla.core.effects import (
    Answer,
    Answered,
    Ask,
    Due,
    Effect,
    Part,
    Record,
    Refuse,
    Signal,
    Step,
    Stop,
    Tell,
    Wait,
    Work,
)
from flotilla.core.errors import Conflict, FlotillaError, Forbidden, error_of
from flotilla.core.ids import ActorId

if TYPE_CHECKING:
    from actors.activation import Activation

NO_CALL = Call()


def _answer(at: Activation, effect: Answer, envelope: Envelope) -> None:
    if not effect.key:
        envelope.answered = True
        if envelope.ticket is not None:
            envelope.ticket.answer(effect.value)
        return
    for ticket in at.take_tickets(effect.key):
        ticket.answer(effect.value)


def _refuse(at: Activation, effect: Refuse, envelope: Envelope) -> None:
    for ticket in at.take_tickets(effect.key):
        ticket.refuse(error_of(effect.problem))


def _part(at: Activation, effect: Part, envelope: Envelope) -> None:
    for ticket in at.tickets.waiting(effect.key):
        ticket.part(effect.value)


def _wait(at: Activation, effect: Wait, envelope: Envelope) -> None:
    if envelope.ticket is None:
        return
    try:
        at.tickets.put(effect.key, envelope.ticket, at.abandoned)
    except FlotillaError as error:  # too many wait already; what was recorded stands
        envelope.ticket.refuse(error)


def _tell(at: Activation, effect: Tell, envelope: Envelope) -> None:
    """Nobody waits for what is told, so there is no chain and no deadline."""
    fleet = at.host.runtime.fleet
    try:
        _check_tenant(at, effect.to)
        fleet.tell(effect.to, effect.message, call=tracing.told(envelope) if envelope.trace else NO_CALL)
    except FlotillaError as error:
        fleet.lost(effect.to, error)


def _stop(at: Activation, effect: Stop, envelope: Envelope) -> None:
    stop(at, effect.key)


def _check_tenant(at: Activation, to: ActorId) -> None:
    if to.tenant != at.id.tenant:
        raise Forbidden(f"{at.id} may not reach into the tenant {to.tenant!r}.", field="to")


def _ask(at: Activation, effect: Ask, envelope: Envelope) -> None:
    start(at, effect.key, _asked(at, effect, envelope))


async def _asked(at: Activation, effect: Ask, envelope: Envelope) -> None:
    call = _onward(at, envelope, effect.timeout_s)
    try:
        _check_tenant(at, effect.to)
        value = await (tracing.asked(at, effect, call, _send) if call.trace else _send(at, effect, call))
        answered = Answered(key=effect.key, value=value)
    except FlotillaError as error:
        answered = Answered(key=effect.key, problem=error.problem())
    except Exception as error:  # a bug must not leave the actor waiting
        at.host.runtime.log.error("ask.broke", actor=str(at.id), to=str(effect.to), exc_info=error)
        answered = Answered(key=effect.key, problem=FlotillaError(f"{type(error).__name__}.").problem())
    _hear(at, answered, envelope)


def _send(at: Activation, effect: Ask, call: Call) -> Awaitable[Any]:
    return at.host.runtime.fleet.ask(effect.to, effect.message, timeout_s=call.left_s, call=call)


def _hear(at: Activation, signal: Signal, envelope: Envelope) -> None:
    """What came of an effect: with the time and the chain of the message that led to it. Once that one is
    answered or its time is up nobody waits: an actor that goes on does so on its own account."""
    call, deadline = envelope.call, _until(envelope)
    over = deadline is not None and deadline <= at.host.runtime.clock.monotonic()
    if call is not None and (envelope.answered or over):
        call, deadline = Call(trace=call.trace), None
    at.hear(signal, call, deadline)


def _onward(at: Activation, envelope: Envelope, timeout_s: float | None) -> Call:
    """The call that this one leads to: what is left of its time, and one more in the chain. Behind an
    answer nobody waits any more: then there is neither a deadline nor a chain."""
    before, left_s = envelope.call or Call(), timeout_s
    if (deadline := _until(envelope)) is not None:
        until_s = max(0.0, deadline - at.host.runtime.clock.monotonic())
        left_s = until_s if left_s is None else min(left_s, until_s)
    chain = () if envelope.answered else before.chain
    return msgspec.structs.replace(before, left_s=left_s, chain=(*chain, str(at.id)))


def _until(envelope: Envelope) -> float | None:
    return None if envelope.answered else envelope.deadline


def _work(at: Activation, effect: Work, envelope: Envelope) -> None:
    work = _worked(at, effect, envelope)
    start(at, effect.key, tracing.worked(at, envelope, effect, work) if envelope.trace else work)


async def _worked(at: Activation, effect: Work, envelope: Envelope) -> None:
    performer = at.resident.performer
    try:
        async with aclosing(performer.work(at, effect, _onward(at, envelope, None))) as signals:
            async for signal in signals:
                _hear(at, signal, envelope)
    except Exception as error:
        at.host.runtime.log.exception("work.broke", actor=str(at.id), work=type(effect).__name__)
        if signal := performer.broke(at, effect, FlotillaError(f"{type(error).__name__} in the work.")):
            _hear(at, signal, envelope)


_PERFORM: dict[type, Callable[[Any, Any, Envelope], None]] = {
    Answer: _answer,
    Refuse: _refuse,
    Part: _part,
    Wait: _wait,
    Tell: _tell,
    Stop: _stop,
    Ask: _ask,
}


# -- in their order


def perform(at: Activation, effect: Effect, envelope: Envelope) -> None:
    """An effect that needs no waiting."""
    if known := _PERFORM.get(type(effect)):
        known(at, effect, envelope)
    elif isinstance(effect, Work):
        _work(at, effect, envelope)
    else:
        raise TypeError(f"{type(effect).__name__} is no effect of the runtime, no Step and no Work.")


async def perform_all(at: Activation, effects: Sequence[Effect], envelope: Envelope, done: int = 0) -> None:
    """Those behind the first `done`, which need no more."""
    begun: set[int] = set()
    for n, effect in enumerate(effects[done:], done + 1):
        if isinstance(effect, Record):
            works = early.works(effects, n, envelope)
            begun |= works.keys()
            with early.Beside(works, partial(_begin_early, at)):
                append = recording.record(at, effect, envelope.signal)
                await (tracing.recorded(at, envelope, effect, append) if envelope.trace else append)
        elif isinstance(effect, Step):
            await at.resident.performer.step(at, effect)
        elif n not in begun:
            perform(at, effect, envelope)
    close(effects, envelope)
    recording.snapshot_soon(at)


def _begin_early(at: Activation, work: Work, envelope: Envelope) -> None:
    if not at.lost:  # to another host, say, while the record was written
        _work(at, work, envelope)


async def perform_due(at: Activation, effects: Sequence[Effect], due: Due, envelope: Envelope) -> None:
    """The first facts take the reminder out of the record with them; without facts, we do."""
    fired = recording.fired(due, at.host.runtime.clock.now())
    first = next((n for n, effect in enumerate(effects) if isinstance(effect, Record)), -1)
    record = effects[first] if first >= 0 else Record(facts=(), unfinished=at.actor.unfinished)
    assert isinstance(record, Record)
    await perform_all(at, effects[: max(first, 0)], Envelope(due))
    try:
        await recording.record(at, record, due, fired)
    except Conflict:
        if envelope.ticket is not None and not await recording.pending(at, due):
            envelope.ticket.answer(None)  # it has fired already: who brought it need not come again
        raise
    await perform_all(at, effects[first + 1 :], envelope)


def close(effects: Sequence[Effect], envelope: Envelope) -> None:
    """A message that a kind has nothing to say to is answered with nothing, rather than never."""
    ticket = envelope.ticket
    if ticket is not None and not any(isinstance(effect, Answer | Wait) for effect in effects):
        ticket.answer(None)


# -- what runs beside the loop


def start(at: Activation, key: str, work: Coroutine[Any, Any, None]) -> None:
    """Until it ends or is stopped; another of the same key takes its place."""
    stop(at, key)
    task = asyncio.get_running_loop().create_task(work)
    at.tasks = at.tasks or {}
    at.tasks[key] = task
    task.add_done_callback(lambda done: _ended(at, key, done))


def _ended(at: Activation, key: str, task: asyncio.Task[None]) -> None:
    if at.tasks and at.tasks.get(key) is task:
        del at.tasks[key]
        at.tasks = at.tasks or None
    if not task.cancelled() and (error := task.exception()):
        at.host.runtime.log.error("work.broke", actor=str(at.id), exc_info=error)


def stop(at: Activation, key: str) -> None:
    if at.tasks and (task := at.tasks.pop(key, None)):
        task.cancel()


def cancel_tasks(at: Activation) -> None:
    for task in (at.tasks or {}).values():
        task.cancel()
    at.tasks = None
