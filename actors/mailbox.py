"""What waits for an actor: control before turns, bounded, and what nobody has read yet joined up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from actors.tickets import Ticket
from flotilla.core.calls import Call
from flotilla.core.effects import Signal
from flotilla.core.errors import MailboxFull
from flotilla.core.tracing import Opened


class Envelope:
    """A signal on its way, with who waits for its answer and until when.

    `tries` counts how often it has broken its actor. Once it is `answered`, what it leads to has no
    deadline. It waits `since` it was put into the mailbox; its handling `began` when it was taken out, with
    the journal at `seq`. `trace` is what it came with, "" for most. The record was looked at for it if it
    is `sure`.
    """

    __slots__ = (
        "answered",
        "began",
        "call",
        "deadline",
        "seq",
        "signal",
        "since",
        "span",
        "sure",
        "ticket",
        "trace",
        "tries",
    )

    def __init__(
        self,
        signal: Any,
        ticket: Ticket | None = None,
        call: Call | None = None,
        deadline: float | None = None,
    ) -> None:
        self.signal = signal
        self.ticket = ticket
        self.call = call
        self.deadline = deadline
        self.tries = self.seq = 0
        self.answered = self.sure = False
        self.since = self.began = 0.0
        self.trace = call.trace if call is not None else ""
        self.span: Opened | None = None

    def behind_answer(self) -> Envelope:
        """As it will be once it is answered, for what is begun before it is."""
        behind = Envelope(self.signal, None, self.call, self.deadline)
        behind.answered = True
        return behind


class Mailbox:
    __slots__ = ("_control", "_messages_max", "_turns")

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._control: deque[Envelope] | None = None
        self._turns: deque[Envelope] = deque()

    def __len__(self) -> int:
        return len(self._turns) + (len(self._control) if self._control else 0)

    def put(self, envelope: Envelope, *, bounded: bool) -> None:
        """Raises `MailboxFull` if a message finds its queue full: a stop gets in however many turns
        wait. The actor's own work always gets in, as it is bounded by what runs."""
        if envelope.signal.control:
            queue = self._control = deque() if self._control is None else self._control
        else:
            queue = self._turns
        if bounded and len(queue) >= self._messages_max:
            raise MailboxFull(
                f"{len(queue)} messages wait for this actor.", next="Send again later.", retry_after_s=1.0
            )
        if envelope.ticket is not None or not self._joined(queue, envelope.signal):
            queue.append(envelope)

    def _joined(self, queue: deque[Envelope], signal: Signal) -> bool:
        """Text behind text of the same turn becomes one signal, so a slow actor has few, long ones."""
        if not queue or queue[-1].ticket is not None:
            return False
        both = queue[-1].signal.joined(signal)
        if both is None:
            return False
        queue[-1].signal = both
        return True

    def put_back(self, envelope: Envelope) -> None:
        """First in line again, as control or not."""
        if envelope.signal.control:
            self._control = self._control or deque()
            self._control.appendleft(envelope)
        else:
            self._turns.appendleft(envelope)

    def take(self) -> Envelope:
        return self._control.popleft() if self._control else self._turns.popleft()

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        """Those that nobody waits for and that are not wanted any more."""
        self._turns = deque(e for e in self._turns if e.ticket is not None or not unwanted(e.signal))

    def types(self) -> list[str]:
        return [type(envelope.signal).__name__ for envelope in (*(self._control or ()), *self._turns)]

    def take_all(self) -> list[Envelope]:
        left = [*(self._control or ()), *self._turns]
        self._control = None
        self._turns.clear()
        return left
