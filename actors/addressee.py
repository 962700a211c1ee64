"""Whom signals are for: what waits for an actor to take it, and who is told when it won't.

Most actors have nothing waiting most of the time, so there is a mailbox only while something is in it.
"""

from __future__ import annotations

from actors.audience import Audience, Newcomer
from actors.mailbox import Envelope, Mailbox
from flotilla.core.effects import Due, Message
from flotilla.core.errors import FlotillaError


class Addressee(Audience):
    __slots__ = ("_box", "_messages_max")

    def __init__(self, messages_max: int) -> None:
        super().__init__(messages_max)  # an answer can be promised to each of those that fit in
        self._messages_max = messages_max
        self._box: Mailbox | None = None

    @property
    def waiting(self) -> int:
        return len(self._box) if self._box else 0

    def mail(self) -> list[str]:
        """The types of the messages that wait, and not their text: for an operator."""
        return self._box.types() if self._box else []

    def put(self, envelope: Envelope, *, bounded: bool) -> None:
        """Raises `MailboxFull` if it is bounded and too much waits."""
        self._mailbox().put(envelope, bounded=bounded)

    def put_back(self, envelope: Envelope) -> None:
        """First in line again."""
        self._mailbox().put_back(envelope)

    def _mailbox(self) -> Mailbox:
        if self._box is None:
            self._box = Mailbox(self._messages_max)
        return self._box

    def drop_reports(self) -> None:
        """What stopped work has reported and nobody has read: it will be done again."""
        if self._box:
            self._box.drop(lambda signal: not isinstance(signal, Message | Due | Newcomer))

    def refuse_waiting(self, error: FlotillaError) -> None:
        """Nobody here takes them any more."""
        for envelope in self._box.take_all() if self._box else ():
            told(envelope, error)


def told(envelope: Envelope, error: FlotillaError) -> bool:
    """Tells whoever waits for it that it is refused. False if nobody does."""
    if isinstance(envelope.signal, Newcomer):
        envelope.signal.follower.end(error)
        return True
    if envelope.ticket is not None:
        envelope.ticket.refuse(error)
        return True
    return False
