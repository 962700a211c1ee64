"""What is measured of each message: how long it waited, and how long its actor was busy with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import tracing
from actors.mailbox import Envelope
from flotilla.core.errors import FlotillaError

if TYPE_CHECKING:
    from actors.activation import Activation


def begun(at: Activation, envelope: Envelope, now: float) -> None:
    envelope.began = now
    if not envelope.tries:
        at.resident.timing.waits.observe(now - envelope.since)
        at.host.pressure.waited("mailbox", now - envelope.since)
    if envelope.trace:
        tracing.handled(at, envelope, now)


def done(at: Activation, envelope: Envelope | None) -> None:
    """With a message or, without one, with the journal that was folded to wake the actor."""
    now = at.host.runtime.clock.monotonic()
    if envelope is None:
        at.resident.timing.activations.observe(now - at.touched)
    elif envelope.began:
        at.resident.timing.turns.observe(now - envelope.began)
        if envelope.span is not None:
            envelope.span.close()


def failed(envelope: Envelope, error: Exception) -> None:
    if envelope.span is not None:
        envelope.span.outcome = error.slug if isinstance(error, FlotillaError) else type(error).__name__
