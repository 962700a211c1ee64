"""Where spans begin and end in the runtime. Only messages with a trace get here: all others pay for a look
at an empty string.

A span for each message that an actor handles and, in it, one for each append, each work and each ask that
follow from it, also when they answer to a signal of the actor's own work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.mailbox import Envelope
from flotilla.core.calls import Call
from flotilla.core.effects import Ask, Message, Record, Work
from flotilla.core.errors import FlotillaError
from flotilla.core.generation import Finished
from flotilla.core.tracing import About, Opened, gen_ai

if TYPE_CHECKING:
    from actors.activation import Activation

T = TypeVar("T")

_working: ContextVar[Opened | None] = ContextVar("working", default=None)


def handled(at: Activation, envelope: Envelope, now: float) -> None:
    """The handling of a message begins; what follows from it is in its span. A signal of the actor's own
    work belongs to the span of the message that the work was done for."""
    if not isinstance(envelope.signal, Message):
        return
    message: Any = envelope.signal
    waited_ms = round((now - envelope.since) * 1000, 3)
    about: dict[str, About] = {"tries": envelope.tries, "waited_ms": waited_ms}
    span = envelope.span = _open(at, envelope.trace, type(message).__name__, about)
    if span is not None and envelope.call is not None:
        envelope.call = msgspec.structs.replace(envelope.call, trace=span.traceparent)


async def recorded(at: Activation, envelope: Envelope, effect: Record, append: Awaitable[None]) -> None:
    about: dict[str, About] = {"on": type(envelope.signal).__name__, "facts": len(effect.facts)}
    span = _open(at, _inside(envelope), "record", about)
    await _spanned(span, append)


async def asked(
    at: Activation, effect: Ask, call: Call, send: Callable[[Activation, Ask, Call], Awaitable[Any]]
) -> Any:
    """What the other actor does is in the span of the ask; what its answer leads to here is not."""
    about: dict[str, About] = {"to": str(effect.to), "message": type(effect.message).__name__}
    span = _open(at, call.trace, "ask", about)
    if span is not None:
        call = msgspec.structs.replace(call, trace=span.traceparent)
    return await _spanned(span, send(at, effect, call))


def told(envelope: Envelope) -> Call:
    return Call(trace=_inside(envelope))


def worked(
    at: Activation, envelope: Envelope, effect: Work, work: Coroutine[Any, Any, None]
) -> Coroutine[Any, Any, None]:
    return _noting(_open(at, _inside(envelope), f"work {type(effect).__name__}", {}), work)


async def _noting(span: Opened | None, work: Awaitable[None]) -> None:
    """Whoever does the work may say more of it."""
    _working.set(span)  # of this task alone
    await _spanned(span, work)


def generated(wanted: str, end: Finished) -> None:
    """The work that is being done here made a reply: under the names that OpenTelemetry has for generative
    AI, times in seconds. Nothing if it isn't traced."""
    if span := _working.get():
        span.note(gen_ai(wanted, end))


def _open(at: Activation, parent: str, name: str, about: dict[str, About]) -> Opened | None:
    runtime = at.host.runtime
    if runtime.tracer is None:
        return None
    return Opened(
        runtime.tracer, runtime.clock, parent, name, {"actor": str(at.id), "host": at.host.name} | about
    )


def _inside(envelope: Envelope) -> str:
    return envelope.call.trace if envelope.call is not None else ""


async def _spanned(span: Opened | None, work: Awaitable[T]) -> T:
    try:
        return await work
    except BaseException as error:
        if span is not None:
            span.outcome = error.slug if isinstance(error, FlotillaError) else type(error).__name__
        raise
    finally:
        if span is not None:
            span.close()
