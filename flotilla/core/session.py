"""A conversation that decides: a pure state machine, and the kind of actor that the fleet has most of.

`apply(fact)` folds the journal into state (flotilla.core.conversation); `on(signal)` decides: about
messages here, about replies in flotilla.core.replies, about persons in flotilla.core.takeover. Neither
waits, reads a clock or touches a socket, so that the whole life of a conversation can be tested in
microseconds and replayed from its record.

A message that comes while the agent still talks goes one of four ways (flotilla.core.agents):

- **queue**: it is a turn of its own, behind those that wait.
- **interrupt**: the running reply ends where it is. What waited before the message still goes before it.
- **merge**: it belongs to the last turn, if no text of that one's reply has been shown, and one reply
  answers both. If it is the running one, its work is stopped and begun again. Else it opens the next turn.
  Messages that get fixed words (a greeting, a wish for a person) are turns of their own all the same.
- **reject**: it is refused.

Each message is one `message.accepted` with its own id and seq, merged or not. A reply's deltas carry the
seq of the *first* message of its turn.
"""

from __future__ import annotations

from typing import ClassVar, assert_never

from flotilla.core import facts, signals
from flotilla.core.actor import Kind, KindLimits
from flotilla.core.agents import AGENTS, WhileTalking
from flotilla.core.conversation import digest
from flotilla.core.effects import Answer, Answered, Effects, Stop, Woken
from flotilla.core.errors import NotFound
from flotilla.core.facts import (
    MessageAccepted,
    ReplyInterrupted,
    ReplyStarted,
    SessionClosed,
    SessionOpened,
)
from flotilla.core.limits import LIMITS
from flotilla.core.policy import admission, intents
from flotilla.core.takeover import Takeover


class Session(Takeover):
    kind: ClassVar[Kind] = Kind(
        name="session",
        messages=signals.Ask,
        facts=facts.Fact,
        limits=KindLimits(
            mailbox_messages_max=LIMITS.mailbox_signals_max,
            idle_after_s=LIMITS.idle_after_s,
        ),
    )

    def on(self, signal: signals.Heard) -> Effects:
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
                admission.check_opened(self)
                return (self._shown(),)
            case signals.Typing():
                return self._on_typing(signal)
            case (
                signals.RequestPerson()
                | signals.Accept()
                | signals.Return()
                | signals.Speak()
                | signals.Note()
            ):
                return self._on_handed(signal)
            case Woken():
                return self._on_woken(signal)
            case signals.Found() | signals.Streamed() | signals.Generated() | signals.Failed() | Answered():
                return self._on_work(signal)
            case _:
                assert_never(signal)

    def _on_open(self, signal: signals.Open) -> Effects:
        if self.opened is not None:
            return (self._shown(),)
        if signal.agent not in AGENTS:
            raise NotFound(
                f"There is no agent {signal.agent!r}.", field="agent", next=f"Known: {', '.join(AGENTS)}."
            )
        fact = SessionOpened(
            agent=signal.agent,
            channel=signal.channel,
            customer=signal.customer,
            metadata=signal.metadata,
            model=signal.model,
        )
        return (self.record(fact), self._shown())

    def _on_typing(self, signal: signals.Typing) -> Effects:
        if self.opened is None:
            return ()
        return (signals.Mention(type="typing", data={"by": "customer" if signal.visitor else "desk"}),)

    def _on_interrupt(self) -> Effects:
        admission.check_opened(self)
        turn = self.turn
        if turn is None:
            return (Answer(value=signals.Interrupted(turn=None)),)
        silence = self._silence()
        record, *following = self._finish(ReplyInterrupted(turn=turn.id, text=self.said))
        return (*silence, record, Answer(value=signals.Interrupted(turn=turn.id)), *following)

    def _on_close(self) -> Effects:
        admission.check_opened(self)
        if self.closed:
            return (self._shown(),)
        silence = self._silence()
        return (*silence, self.record(*self._cut_short(), SessionClosed()), self._shown())

    # -- a message of the customer

    def _on_post(self, post: signals.Post) -> Effects:
        admission.check_opened(self)
        if seen := self.seen.get(post.id):
            admission.check_same(seen, digest(post.text), post.id)
            return (Answer(value=signals.Accepted(seq=seen.seq, turn=seen.turn, again=True)),)
        admission.check_not_closed(self)
        admission.check_message(post.id, post.text)
        admission.check_room(self)
        if self.taken_by:
            return self._take(post, turn="")
        match self._way(post):
            case "queue":
                return self._queue(post)
            case "interrupt":
                return self._interrupt(post)
            case "merge":
                return self._merge(post)
            case "reject":
                raise admission.rejected()

    def _way(self, post: signals.Post) -> WhileTalking:
        default = self.agent.while_talking
        return (post.while_talking or default) if self.turns else "queue"

    def _queue(self, post: signals.Post) -> Effects:
        self._check_waiting()
        turn = self._next_turn()
        if started := self._started_at_once(post, turn):
            return self._take_and_start(post, started)
        taken = self._take(post, turn=turn)
        return (*taken, *(self._begin() if len(self.turns) == 1 else ()))

    def _started_at_once(self, post: signals.Post, turn: str) -> ReplyStarted | None:
        """The reply to a message for which nothing has to be looked up, with nobody before it."""
        agent = self.agent
        if self.turns or not post.model or agent.collection or agent.asks:
            return None
        if intents.reply_without_search(post.text, agent):
            return None
        return ReplyStarted(turn=turn, model=post.model)

    def _take_and_start(self, post: signals.Post, started: ReplyStarted) -> Effects:
        """One record for both: the customer waits for one commit less."""
        record = self.record(MessageAccepted(turn=started.turn, id=post.id, text=post.text), started)
        accepted = signals.Accepted(seq=self.seq - 1, turn=started.turn)
        return (record, Answer(value=accepted), *self._proceed(self.turns[0], started))

    def _interrupt(self, post: signals.Post) -> Effects:
        self._check_waiting(but=1)
        silence, end = self._silence(), self._cut_short()[0]
        return (*silence, *self._take(post, end, turn=self._next_turn(behind=1)), *self._begin())

    def _merge(self, post: signals.Post) -> Effects:
        last = self.turns[-1]
        running = last is self.turn
        fixed = any(intents.reply_without_search(text, self.agent) for text in (last.text, post.text))
        if fixed or (running and self.said):
            return self._queue(post)
        self._check_waiting()
        if not running:
            return self._take(post, turn=last.id)
        return (Stop(key=last.run), *self._take(post, turn=last.id), *self._begin())

    def _take(self, post: signals.Post, *before: ReplyInterrupted, turn: str) -> Effects:
        record = self.record(*before, MessageAccepted(turn=turn, id=post.id, text=post.text))
        return (record, Answer(value=signals.Accepted(seq=self.seq, turn=turn)))

    def _next_turn(self, behind: int = 0) -> str:
        """Named after the `seq` of its first message, which comes behind so many other facts."""
        return f"t_{self.id.name.removeprefix('s_')}-{self.seq + behind + 1}"

    def _check_waiting(self, but: int = 0) -> None:
        admission.check_waiting(self, sum(turn.messages for turn in self.turns[but:]))
