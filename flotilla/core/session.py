"""A conversation that decides: a pure state machine.

`apply(fact)` folds the journal into state (flotilla.core.conversation); `on(signal)` decides.
Neither waits, reads a clock or touches a socket, so that the whole life of a conversation can be
tested in microseconds and replayed from its record.
"""

from __future__ import annotations

from typing import assert_never

from flotilla.core import signals
from flotilla.core.agents import AGENTS
from flotilla.core.conversation import Conversation, Seen, Turn, digest
from flotilla.core.errors import Conflict, LimitReached, NotFound, Refused
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
from flotilla.core.generation import Usage
from flotilla.core.ids import is_name
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.policy import citations, intents, prompting
from flotilla.core.signals import Effect


class Session(Conversation):
    def __init__(self, name: str, *, model: str = "", limits: Limits = LIMITS) -> None:
        super().__init__(name)
        self.model = model
        self.limits = limits

    def on(self, signal: signals.Signal) -> tuple[Effect, ...]:
        """What must be done about `signal`, in order. Raises before anything has changed."""
        match signal:
            case signals.Open():
                return self._on_open(signal)
            case signals.Post():
                return self._on_post(signal)
            case signals.Interrupt():
                return self._on_interrupt()
            case signals.Close():
                return self._on_close()
            case signals.Describe():
                return (signals.Answer(value=self.view()),)
            case signals.Woken():
                return self._on_woken(signal)
            case signals.Found() | signals.Streamed() | signals.Generated() | signals.Failed():
                # Work that was stopped may still report; nobody waits for it.
                return self._on_work(signal) if self.turn and self.turn.id == signal.turn else ()
            case _:
                assert_never(signal)

    def _on_work(
        self, signal: signals.Found | signals.Streamed | signals.Generated | signals.Failed
    ) -> tuple[Effect, ...]:
        match signal:
            case signals.Found():
                return self._on_found(signal)
            case signals.Streamed():
                return self._say(signal.text)
            case signals.Generated():
                return self._on_generated(signal)
            case signals.Failed():
                return self._finish(ReplyFailed(turn=signal.turn, problem=signal.problem))
            case _:
                assert_never(signal)

    def _on_open(self, signal: signals.Open) -> tuple[Effect, ...]:
        if self.opened is not None:
            return (signals.Answer(value=self.view()),)
        if signal.agent not in AGENTS:
            raise NotFound(
                f"There is no agent {signal.agent!r}.", field="agent", next=f"Known: {', '.join(AGENTS)}."
            )
        fact = SessionOpened(
            agent=signal.agent, channel=signal.channel, customer=signal.customer, metadata=signal.metadata
        )
        return (self._record(fact), signals.Answer(value=self.view()))

    def _on_post(self, signal: signals.Post) -> tuple[Effect, ...]:
        self._check_open()
        if seen := self.seen.get(signal.id):
            return (signals.Answer(value=_again(seen, signal)),)
        self._check_post(signal)
        turn = f"t_{self.name.removeprefix('s_')}-{self.seq + 1}"
        record = self._record(MessageAccepted(turn=turn, id=signal.id, text=signal.text))
        answer = signals.Answer(value=signals.Accepted(seq=self.seq, turn=turn))
        return (record, answer, *(self._begin() if len(self.turns) == 1 else ()))

    def _check_open(self) -> None:
        if self.opened is None:
            raise NotFound(f"There is no session {self.name!r}.", next="Open one with POST /v1/sessions.")

    def _check_post(self, signal: signals.Post) -> None:
        if self.closed:
            raise Conflict("This session is closed.", next="Open a new one with POST /v1/sessions.")
        if not is_name(signal.id):
            raise Refused(
                "`id` must be 1 to 128 letters, digits or _ . : -",
                field="id",
                next="Choose an id of your own.",
            )
        _ = self.agent
        if not signal.text.strip():
            raise Refused("`text` is empty.", field="text", next="Send at least one visible character.")
        if len(self.turns) >= self.limits.pending_turns_max:
            raise LimitReached(
                f"{len(self.turns)} messages already wait for their reply in this session.",
                next="Wait for a reply, or interrupt it.",
                retry_after_s=1.0,
            )
        if len(self.seen) >= self.limits.messages_per_session_max:
            raise LimitReached("This session has reached its last message.", next="Open a new session.")

    def _on_interrupt(self) -> tuple[Effect, ...]:
        self._check_open()
        turn = self.turn
        if turn is None:
            return (signals.Answer(value=signals.Interrupted(turn=None)),)
        answer = signals.Answer(value=signals.Interrupted(turn=turn.id))
        first, *rest = self._finish(ReplyInterrupted(turn=turn.id, text=self.said))
        return (signals.Stop(turn=turn.id), first, answer, *rest)

    def _on_close(self) -> tuple[Effect, ...]:
        self._check_open()
        if self.closed:
            return (signals.Answer(value=self.view()),)
        stops = tuple(signals.Stop(turn=turn.id) for turn in list(self.turns)[:1])
        ends = [
            ReplyInterrupted(turn=turn.id, text="" if n else self.said) for n, turn in enumerate(self.turns)
        ]
        record = self._record(*ends, SessionClosed())
        return (*stops, record, signals.Answer(value=self.view()))

    def _on_woken(self, signal: signals.Woken) -> tuple[Effect, ...]:
        turn = self.turn
        if turn is None:
            return ()
        self.said = signal.said
        try:
            _ = self.agent
        except NotFound as error:  # a release took it away while its turns were open
            problem = error.problem()
            return (self._record(*(ReplyFailed(turn=turn.id, problem=problem) for turn in self.turns)),)
        return self._begin() if turn.started is None else self._proceed(turn, turn.started)

    # -- a turn

    def _begin(self) -> tuple[Effect, ...]:
        """Starts the turn at the head of the queue, if there is one."""
        turn = self.turn
        if turn is None:
            return ()
        if canned := intents.reply_without_search(turn.text, self.agent):
            return self._answer_plainly(turn, canned)
        agent = self.agent
        return (
            signals.Retrieve(
                turn=turn.id, collection=agent.collection, query=turn.text, limit=agent.passages_max
            ),
        )

    def _on_found(self, signal: signals.Found) -> tuple[Effect, ...]:
        turn = self.turn
        assert turn is not None
        if turn.started is not None:  # a search that was run again after a crash
            return ()
        similarity = max((hit.similarity for hit in signal.hits), default=0.0)
        known = similarity >= self.agent.similarity_min
        started = ReplyStarted(
            turn=turn.id,
            model=self.model if known else "",
            passages=tuple(hit.passage for hit in signal.hits) if known else (),
            similarity=round(similarity, 3),
            retrieval_ms=signal.retrieval_ms,
        )
        return (self._record(started), *self._proceed(turn, started))

    def _proceed(self, turn: Turn, started: ReplyStarted) -> tuple[Effect, ...]:
        """Goes on with a reply that is recorded as started, from whatever has been said of it."""
        if not started.passages:
            canned = intents.reply_without_search(turn.text, self.agent) or intents.DONT_KNOW
            return self._answer_plainly(turn, canned)
        if self.said.endswith(_CLOSINGS):  # it was whole, only not yet recorded
            return self._complete(turn, started, Usage())
        prompt = prompting.build(
            self.agent.persona,
            started.passages,
            tuple(self.history),
            turn.text,
            said=self.said,
            tokens_max=self.agent.reply_tokens_max,
        )
        return (signals.Generate(turn=turn.id, prompt=prompt),)

    def _on_generated(self, signal: signals.Generated) -> tuple[Effect, ...]:
        turn = self.turn
        assert turn is not None and turn.started is not None
        return self._complete(turn, turn.started, signal.usage)

    def _complete(self, turn: Turn, started: ReplyStarted, usage: Usage) -> tuple[Effect, ...]:
        body = _without_closing(self.said)
        found = citations.find(body, started.passages)
        closing = () if found else self._say((body + _closing(body))[len(self.said) :])
        done = ReplyCompleted(
            turn=turn.id,
            text=self.said,
            model=started.model,
            citations=found,
            usage=usage,
            confidence=citations.support(body, found),
            offers_person=not found,
        )
        return (*closing, *self._finish(done))

    def _answer_plainly(self, turn: Turn, canned: intents.Canned) -> tuple[Effect, ...]:
        """A reply that needs no model: fixed words, recorded and shown like any other."""
        before: tuple[Effect, ...] = ()
        if turn.started is None:
            handoff = HandoffRequested(turn=turn.id, reason="The customer asked for a person.")
            started = ReplyStarted(turn=turn.id, model="")
            before = (self._record(started, *((handoff,) if canned.wants_person else ())),)
        say = self._say(canned.text[len(self.said) :])
        done = ReplyCompleted(turn=turn.id, text=self.said, model="", offers_person=canned.offers_person)
        return (*before, *say, *self._finish(done))

    def _say(self, text: str) -> tuple[Effect, ...]:
        assert self.turn is not None
        if not text:
            return ()
        say = signals.Say(turn=self.turn.id, seq=self.turn.seq, offset=len(self.said), text=text)
        self.said += text
        return (say,)

    def _finish(self, *facts: Fact) -> tuple[Effect, ...]:
        """Records the end of the turn under way and begins the next one."""
        return (self._record(*facts), *self._begin())

    def _record(self, *facts: Fact) -> signals.Record:
        for fact in facts:
            self.apply(fact)
        return signals.Record(facts=facts, unfinished=self.unfinished)

    # -- showing

    def view(self, owner: str = "") -> signals.SessionView:
        self._check_open()
        assert self.opened is not None
        state = "closed" if self.closed else "replying" if self.turns else "open"
        return signals.SessionView(
            id=self.name,
            state=state,
            agent=self.opened.agent,
            channel=self.opened.channel,
            customer=self.opened.customer,
            metadata=self.opened.metadata,
            owner=owner,
            seq=self.seq,
        )


_CLOSINGS = (intents.NOT_SURE, intents.DONT_KNOW.text)


def _closing(body: str) -> str:
    """What an agent adds to a reply that nothing supports."""
    return intents.NOT_SURE if body.strip() else intents.DONT_KNOW.text


def _without_closing(said: str) -> str:
    for closing in _CLOSINGS:
        said = said.removesuffix(closing)
    return said


def _again(seen: Seen, signal: signals.Post) -> signals.Accepted:
    if seen.digest != digest(signal.text):
        raise Conflict(
            f"The id {signal.id!r} was already used for another text.",
            field="id",
            next="Give each message an id of its own.",
        )
    return signals.Accepted(seq=seen.seq, turn=seen.turn, again=True)
