"""The bounds of a client, each with its name and unit."""

from __future__ import annotations

import msgspec

from flotilla.core.policy.retry import Patience

PATIENCE = Patience(first_s=0.1, longest_s=5.0, most_s=60.0)
"""With a fleet that doesn't answer: counted from the last thing that it did answer."""
IMPATIENT = Patience(tries_max=1)


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    connect_s: float = 10.0
    answer_s: float = 60.0
    quiet_s: float = 45.0  # of a stream without a byte: the fleet sends a comment line every 15 s
    overdue_s: float = 15.0  # of a message on a socket that nobody has accepted: it is said again
    again_s: float = 0.5  # before a message that was shed is said again, if the fleet asks for no longer
    ping_every_s: float = 20.0
    typing_every_s: float = 3.0  # it is told no more often that somebody writes, however often it is said

    connections_max: int = 1_000
    outbox_messages_max: int = 64
    message_tries_max: int = 8
    buffered_frames_max: int = 256  # of a socket, before the fleet has to wait for this reader
    event_bytes_max: int = 16 * 1024 * 1024

    @property
    def dead_s(self) -> float:
        """A stream that lasted longer was heard from: no dead one is waited for that long."""
        return self.connect_s + max(self.quiet_s, 2 * self.ping_every_s) + 1.0


LIMITS = ClientLimits()
