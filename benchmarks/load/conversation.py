"""One conversation as its customer has it: a turn at a time, what was read of it, and whether it held together.

Whatever way it takes, its events come to `take`. A turn that is due while the one before it still runs is
held, and sent when that is over: no customer talks over a reply that is being read, and a fleet may answer two
messages with one reply, which would make a turn of the load disappear. Its latency counts from the time it
was due all the same.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from benchmarks.load.frames import Event
from benchmarks.load.notes import COMPLETED, ERROR, INTERRUPTED, SHED, Notes, Turn
from benchmarks.load.watch import Watch

SHED_STATUS = (429, 503)


class Door(Protocol):
    """The way in of one conversation. `post` returns at once; what comes of it is told to the conversation."""

    @property
    def open(self) -> bool: ...

    def post(self, turn: Turn) -> None: ...

    def cut(self) -> bool:
        """Resets the connection, if there is one to reset."""
        ...

    async def connect(self) -> None:
        """Raises `ConnectionError`."""
        ...

    async def close(self) -> None: ...


class Conversation:
    __slots__ = (
        "came_back",
        "checks",
        "connected_after",
        "door",
        "heard",
        "joined",
        "length",
        "notes",
        "number",
        "said",
        "seq",
        "session",
        "turn",
        "waiting",
        "watch",
    )

    def __init__(self, number: int, notes: Notes, watch: Watch, *, checks: bool) -> None:
        self.number = number
        self.notes = notes
        self.watch = watch
        self.checks = checks  # text word for word, not its length alone
        self.session = ""
        self.door: Door | None = None
        self.seq = 0  # of the last durable event
        self.connected_after = 0
        self.came_back = False  # since its turn was sent
        self.joined = False  # reads turns and not the conversation
        self.length = 0  # characters read of the reply under way
        self.heard: list[str] = []
        self.turn: Turn | None = None
        self.waiting: deque[Turn] = deque()

    @property
    def place(self) -> str:
        """Where to go on: `SEQ` or `SEQ:OFFSET`."""
        return f"{self.seq}:{self.length}" if self.length else f"{self.seq}"

    # -- asking

    def ask(self, turn: Turn) -> None:
        """Sends it, or holds it until it can be sent."""
        if self.turn is not None or self.door is None or not self.door.open:
            turn.held = True
            self.notes.counts["held"] += 1
            self.waiting.append(turn)
            if self.turn is None and self.door is not None and self.door.open:
                self._next()
            return
        self._send(turn)

    def _send(self, turn: Turn) -> None:
        assert self.door is not None
        self.turn = turn
        turn.sent = self.notes.clock()
        self.door.post(turn)

    def _next(self) -> None:
        if self.waiting and self.door is not None and self.door.open:
            self._send(self.waiting.popleft())

    def coming_back(self) -> None:
        """What was missed may come with the handshake, before the connection is known to stand."""
        self.connected_after = self.seq
        self.came_back = self.turn is not None

    def connected(self) -> None:
        """The connection is there, or there again: what was not acknowledged is said again."""
        self.coming_back()
        turn = self.turn
        if turn is None:
            self._next()
        elif not turn.accepted and self.door is not None:
            turn.resent = True
            self.notes.counts["resent"] += 1
            self.door.post(turn)

    # -- hearing

    def take(self, event: Event) -> None:
        """An event of the wire. The most frequent first."""
        type = event.type
        if type == "reply.delta":
            self._take_delta(event)
        elif type == "error":
            self._take_error(event)
        elif type == "reply.rewound":
            self.notes.counts["rewound"] += 1
            self._cut_back(event.data.offset)
        elif event.seq:
            self._take_durable(event)

    def _take_delta(self, event: Event) -> None:
        data, now, turn = event.data, self.notes.clock(), self.turn
        if not data.text:
            return
        if data.offset != self.length:
            kind = "gap" if data.offset > self.length else "doubled"
            self.notes.error(kind, f"{self.session}: delta at {data.offset}, {self.length} characters read")
        self.length = data.offset + len(data.text)
        if self.checks:
            self.heard.append(data.text)
        if turn is None:
            return
        turn.deltas += 1
        if turn.first:
            gap = now - turn.last
            self.notes.gap(now, gap)
            turn.gap_max = max(turn.gap_max, gap)
        else:
            turn.first = now
            self.watch.first(turn)
        turn.last = now

    def _cut_back(self, offset: int) -> None:
        self.length = offset
        if self.checks:
            self.heard = ["".join(self.heard)[:offset]]

    def _take_durable(self, event: Event) -> None:
        """Each exactly once, in order; but the echo of a message that was said again may be an old event."""
        if event.type == "message.accepted" and event.seq <= self.connected_after:
            return self._accepted(event.data.id)
        if event.seq != self.seq + 1:
            kind = "gap" if event.seq > self.seq else "doubled"
            self.notes.error(kind, f"{self.session}: event {event.seq} behind {self.seq}")
        self.seq = max(self.seq, event.seq)
        match event.type:
            case "message.accepted":
                self._accepted(event.data.id)
            case "reply.started":
                self._cut_back(0)
            case "reply.completed":
                self._completed(event)
            case "reply.failed":
                self._over(ERROR, "reply.failed", self.session)
            case "reply.interrupted":
                self._over(INTERRUPTED)
            case _:
                pass
        return None

    def begins(self, seq: int) -> None:
        """Where a way gives a turn's events and not the conversation's, they begin with this one: behind a reply
        that is over already, if it was short and the way there took long."""
        self.seq = self.connected_after = seq - 1
        self.joined = True

    def _accepted(self, id: str) -> None:
        if self.turn is not None and self.turn.id == id and not self.turn.accepted:
            self.turn.accepted = self.notes.clock()

    def _completed(self, event: Event) -> None:
        self._check(event.data.text)
        if self.turn is not None:
            if not self.turn.first:  # its first words came with its end
                self.turn.first = self.turn.last = self.notes.clock()
                self.watch.first(self.turn)
            self.turn.characters = len(event.data.text)
            self.turn.timing = event.data.timing
        self._over(COMPLETED)

    def _check(self, text: str) -> None:
        """A reply may have ended while its customer was away: the rest of it comes with its end then."""
        if self.length > len(text):
            self.notes.error("gap", f"{self.session}: {self.length} of {len(text)} characters were shown")
        elif not self.length and self.joined:
            self.notes.counts["came whole"] += 1
        elif self.length < len(text) and not self.came_back:
            self.notes.error("tail", f"{self.session}: {self.length} of {len(text)} characters were shown")
        elif self.checks and not text.startswith("".join(self.heard)):
            self.notes.error("text", f"{self.session}: what was shown is not the text of the reply")

    def _take_error(self, event: Event) -> None:
        problem = event.problem
        status, detail = (problem.status, problem.detail) if problem else (0, "unreadable problem")
        if self.turn is None or event.id not in ("", self.turn.id):
            return self.notes.error("problem", f"{self.session}: {status} {detail}")
        self.refused(status, detail, problem.retry_after_s if problem else None)
        return None

    def refused(self, status: int, detail: str, retry_after_s: float | None) -> None:
        """The message was not taken."""
        if status not in SHED_STATUS:
            return self._over(ERROR, f"status {status}", detail)
        if retry_after_s is None:
            self.notes.error("no Retry-After", detail)
        self.notes.counts["shed"] += 1
        return self._over(SHED)

    def failed(self, type: str, detail: str) -> None:
        """The connection broke in a way that can't be resumed."""
        self._over(ERROR, type, detail)

    def _over(self, outcome: int, error: str = "", detail: str = "") -> None:
        if error:
            self.notes.error(error, detail)
        turn, self.turn = self.turn, None
        self.came_back = False
        self._cut_back(0)
        if turn is not None:
            turn.outcome = outcome
            if outcome != SHED:
                turn.end = self.notes.clock()
            self._note(turn)
        self._next()

    def _note(self, turn: Turn) -> None:
        self.notes.add(turn)
        self.watch.over(turn)

    def give_up(self) -> None:
        """The run is over: what is still open is written down as not finished."""
        left = [*([self.turn] if self.turn else []), *self.waiting]
        self.turn = None
        self.waiting.clear()
        for turn in left:
            self._note(turn)

    # -- ways without a stream of the whole conversation

    def answered(self, event: Event) -> None:
        """The end of a reply by itself, where the way in gives no more."""
        if self.turn is None:
            return None
        if event.type != "reply.completed":
            return self._over(ERROR, event.type, self.session)
        self.turn.characters, self.turn.timing = len(event.data.text), event.data.timing
        return self._over(COMPLETED)
