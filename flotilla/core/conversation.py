"""A conversation as its journal tells it: the fold of the facts, and nothing that decides."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import assert_never

import msgspec

from flotilla.core.agents import AGENTS, Agent
from flotilla.core.errors import NotFound
from flotilla.core.facts import (
    Fact,
    HandoffRequested,
    MessageAccepted,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
    SessionClosed,
    SessionOpened,
)
from flotilla.core.generation import ChatMessage

HISTORY_MESSAGES = 8


class Turn(msgspec.Struct):
    """A message and the reply it gets. `started` is set once `reply.started` is recorded."""

    id: str
    seq: int
    text: str
    started: ReplyStarted | None = None
    started_seq: int = 0


class Seen(msgspec.Struct, frozen=True):
    """What is kept of an accepted message, to answer it again."""

    seq: int
    turn: str
    digest: bytes


class Conversation:
    def __init__(self, name: str) -> None:
        self.name = name
        self.seq = 0
        self.opened: SessionOpened | None = None
        self.closed = False
        self.said = ""
        self.turns: deque[Turn] = deque()
        self.seen: dict[str, Seen] = {}
        self.history: deque[ChatMessage] = deque(maxlen=HISTORY_MESSAGES)

    @property
    def turn(self) -> Turn | None:
        """The turn under way; later ones wait behind it."""
        return self.turns[0] if self.turns else None

    @property
    def unfinished(self) -> bool:
        return bool(self.turns)

    @property
    def agent(self) -> Agent:
        """Raises `NotFound` if a release has taken the agent away since the session was opened."""
        assert self.opened is not None
        if self.opened.agent not in AGENTS:
            raise NotFound(
                f"The agent {self.opened.agent!r} is gone.",
                field="agent",
                next="Open a session with another.",
            )
        return AGENTS[self.opened.agent]

    def apply(self, fact: Fact) -> None:
        self.seq += 1
        match fact:
            case SessionOpened():
                self.opened = fact
            case MessageAccepted():
                self.turns.append(Turn(fact.turn, self.seq, fact.text))
                self.seen[fact.id] = Seen(self.seq, fact.turn, digest(fact.text))
            case ReplyStarted():
                self._started(fact)
            case ReplyCompleted() | ReplyInterrupted():
                self._ended(fact.text)
            case ReplyFailed():
                self._ended("")
            case SessionClosed():
                self.closed = True
            case HandoffRequested():
                pass
            case _:
                assert_never(fact)

    def _started(self, fact: ReplyStarted) -> None:
        assert self.turn is not None and self.turn.id == fact.turn
        self.turn.started, self.turn.started_seq = fact, self.seq

    def _ended(self, text: str) -> None:
        turn = self.turns.popleft()
        self.history.append(ChatMessage(role="user", text=turn.text))
        if text:
            self.history.append(ChatMessage(role="assistant", text=text))
        self.said = ""


def digest(text: str) -> bytes:
    """Tells texts apart, in 8 bytes."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
