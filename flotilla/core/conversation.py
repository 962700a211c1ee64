"""A conversation as its journal tells it: the fold of the facts, and nothing that decides."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar, assert_never

import msgspec

from flotilla.core.actor import Actor
from flotilla.core.agents import AGENTS, Agent
from flotilla.core.errors import NotFound
from flotilla.core.facts import (
    Fact,
    HandoffAccepted,
    HandoffRequested,
    HandoffReturned,
    MessageAccepted,
    MessageSent,
    NoteAdded,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
    SessionClosed,
    SessionOpened,
)
from flotilla.core.generation import ChatMessage, Origin
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.signals import SessionView

HISTORY_MESSAGES = 8


class Turn(msgspec.Struct, kw_only=True, gc=False):
    """A message, or some that are answered together, and the reply. `seq` is that of the first message;
    `started` is set once `reply.started` is recorded for all of them; `chosen` is the version that the first of these
    records named, though a message came to it since."""

    id: str
    seq: int
    text: str
    messages: int = 1
    started: ReplyStarted | None = None
    started_seq: int = 0
    chosen: str | None = None

    @property
    def run(self) -> str:
        """What the work for these messages is called: another name once there is one more of them."""
        return self.id if self.messages == 1 else f"{self.id}.{self.messages}"

    def add(self, text: str) -> None:
        """One more message: what was found for the others alone is of no use."""
        self.text += "\n" + text
        self.messages += 1
        self.started, self.started_seq = None, 0


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a message, to answer it again."""

    seq: int
    turn: str
    digest: bytes


class Conversation(Actor, gc=False):
    """Kept out of Python's garbage collector, like its parts: nothing in it leads back to it.

    `said` and `claimed` are not in the journal: the text under way, and who has claimed in the hot log to make it.

    `seen` holds the customer's messages by id, `written` what persons wrote.
    """

    limits: ClassVar[Limits] = LIMITS

    opened: SessionOpened | None = None
    closed: bool = False
    turns: list[Turn] = []
    seen: dict[str, Seen] = {}
    written: dict[str, Seen] = {}
    history: list[ChatMessage] = []
    person_asked: bool = False
    taken_by: str = ""
    said: str = ""
    claimed: str = ""

    @property
    def turn(self) -> Turn | None:
        """The turn under way; later ones wait behind it."""
        return self.turns[0] if self.turns else None

    @property
    def unfinished(self) -> bool:
        return bool(self.turns)

    @property
    def person(self) -> str:
        return (self.opened.customer or "") if self.opened else ""

    @property
    def origin(self) -> Origin:
        agent = self.opened.agent if self.opened else ""
        return Origin(tenant=self.id.tenant, conversation=self.id.name, agent=agent)

    @property
    def model(self) -> str:
        """The model or version that this conversation wants; "" for the default."""
        return (self.opened.model if self.opened else "") or self.agent.model

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
        match fact:
            case SessionOpened():
                self.opened = fact
            case MessageAccepted():
                self._accepted(fact)
            case ReplyStarted():
                self._started(fact)
            case ReplyCompleted() | ReplyInterrupted():
                self._ended(fact.text)
            case ReplyFailed():
                self._ended("")
            case SessionClosed():
                self.closed = True
            case HandoffRequested() | HandoffAccepted() | HandoffReturned():
                self._handed(fact)
            case MessageSent() | NoteAdded():
                self._written(fact)
            case _:
                assert_never(fact)

    def _accepted(self, fact: MessageAccepted) -> None:
        self.seen[fact.id] = Seen(self.seq, fact.turn, digest(fact.text))
        if not fact.turn:
            self._remember(ChatMessage(role="user", text=fact.text))
        elif self.turns and self.turns[-1].id == fact.turn:
            self.turns[-1].add(fact.text)
        else:
            self.turns.append(Turn(id=fact.turn, seq=self.seq, text=fact.text))

    def _started(self, fact: ReplyStarted) -> None:
        assert self.turn is not None and self.turn.id == fact.turn
        self.turn.started, self.turn.started_seq = fact, self.seq
        if self.turn.chosen is None:
            self.turn.chosen = fact.model

    def _ended(self, text: str) -> None:
        turn = self.turns.pop(0)
        self._remember(ChatMessage(role="user", text=turn.text))
        if text:
            self._remember(ChatMessage(role="assistant", text=text))
        self.said = self.claimed = ""

    def _handed(self, fact: HandoffRequested | HandoffAccepted | HandoffReturned) -> None:
        self.person_asked = isinstance(fact, HandoffRequested)
        if not self.person_asked:
            self.taken_by = fact.person if isinstance(fact, HandoffAccepted) else ""

    def _written(self, fact: MessageSent | NoteAdded) -> None:
        self.written[fact.id] = Seen(self.seq, "", written_digest(fact))
        if isinstance(fact, MessageSent):
            self._remember(ChatMessage(role="assistant", text=fact.text))

    def _remember(self, message: ChatMessage) -> None:
        self.history.append(message)
        del self.history[:-HISTORY_MESSAGES]

    def view(self, owner: str = "") -> SessionView:
        assert self.opened is not None
        handoff = "accepted" if self.taken_by else "requested" if self.person_asked else ""
        return SessionView(
            id=self.id.name,
            state="closed" if self.closed else "replying" if self.turns else "open",
            agent=self.opened.agent,
            channel=self.opened.channel,
            customer=self.opened.customer,
            metadata=self.opened.metadata,
            owner=owner,
            seq=self.seq,
            handoff=handoff,
            person=self.taken_by or None,
        )


def digest(text: str) -> bytes:
    """Tells texts apart, in 8 bytes."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def written_digest(fact: MessageSent | NoteAdded) -> bytes:
    """Tells apart who wrote what, and whether it was for the customer."""
    return digest(f"{type(fact).__name__}\n{fact.by}\n{fact.text}")
