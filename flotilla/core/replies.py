"""How a conversation replies: a turn from its beginning to its end, one at a time."""

from __future__ import annotations

from typing import assert_never

import msgspec

from flotilla.core import signals
from flotilla.core.conversation import Conversation, Turn
from flotilla.core.effects import Answered, Ask, Effects, Stop, Woken
from flotilla.core.errors import FlotillaError, NotFound
from flotilla.core.facts import (
    Fact,
    HandoffRequested,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
)
from flotilla.core.flow import Do, Done
from flotilla.core.generation import CLAIM_MARK, Usage
from flotilla.core.ids import ActorId
from flotilla.core.knowledge import Passage
from flotilla.core.limits import LIMITS
from flotilla.core.policy import citations, intents, prompting

TEAM = "team:"
"""In front of the kind that answered, where a reply names its model."""


class Replies(Conversation):
    def _begin(self) -> Effects:
        """Starts the turn at the head of the queue, if there is one."""
        turn = self.turn
        if turn is None:
            return ()
        if canned := intents.reply_without_search(turn.text, self.agent):
            return self._answer_plainly(turn, canned)
        agent = self.agent
        if agent.asks:
            started = ReplyStarted(turn=turn.id, model=TEAM + agent.asks)
            return (self.record(started), *self._proceed(turn, started))
        return (
            signals.Retrieve(
                turn=turn.id,
                run=turn.run,
                collection=agent.collection,
                query=turn.text,
                limit=agent.passages_max,
            ),
        )

    def _proceed(self, turn: Turn, started: ReplyStarted) -> Effects:
        """Goes on with a reply that is recorded as started, from whatever has been said of it."""
        if started.model.startswith(TEAM):
            return (self._ask(turn, started.model.removeprefix(TEAM)),)
        if not started.passages and (canned := self._canned(turn)):
            return self._answer_plainly(turn, canned)
        if self.said.endswith(_CLOSINGS):  # it was whole, only not yet recorded
            return self._complete(turn, started.model, started.passages, Usage())
        prompt = prompting.build(
            self.agent.persona,
            started.passages,
            tuple(self.history),
            turn.text,
            said=self.said,
            tokens_max=self.agent.reply_tokens_max,
        )
        prompt = msgspec.structs.replace(prompt, model=started.model, origin=self.origin)
        return (signals.Generate(turn=turn.id, run=turn.run, prompt=prompt),)

    def _canned(self, turn: Turn) -> intents.Canned | None:
        """What is said where nothing was found; None for an agent that looks for nothing."""
        unknown = intents.DONT_KNOW if self.agent.collection else None
        return intents.reply_without_search(turn.text, self.agent) or unknown

    def _ask(self, turn: Turn, kind: str) -> Ask:
        """Asked again after a crash under the same name of the task, which the team knows it by."""
        return Ask(
            key=turn.run,
            to=ActorId(self.id.tenant, kind, self.id.name),
            message=Do(task=turn.run, question=turn.text, person=self.person),
            timeout_s=LIMITS.model_patience_s,
        )

    # -- what is heard of it

    def _on_woken(self, signal: Woken) -> Effects:
        turn = self.turn
        if turn is None:
            return ()
        self.said, self.claimed = signal.said, signal.model
        try:
            _ = self.agent
        except NotFound as error:  # a release took it away while its turns were open
            problem = error.problem()
            return (self.record(*(ReplyFailed(turn=turn.id, problem=problem) for turn in self.turns)),)
        if signal.sealed:
            return self._finish(ReplyInterrupted(turn=turn.id, text=self.said))
        return self._begin() if turn.started is None else self._gone_on(turn, turn.started)

    def _gone_on(self, turn: Turn, started: ReplyStarted) -> Effects:
        """By whoever has said what is there, though another one should be in the record."""
        by = self._speaker(turn) if self.said else started.model
        if by == started.model:
            return self._proceed(turn, started)
        begun = msgspec.structs.replace(started, model=by)
        return (self.record(begun), *self._proceed(turn, begun))

    def _speaker(self, turn: Turn) -> str:
        """Whose words the hot log takes, and so whose words are in it: of the last to claim that, or else of the
        version that was chosen first."""
        return self.claimed or turn.chosen or ""

    def _on_work(self, signal: signals.Worked) -> Effects:
        turn = self.turn
        run = signal.key if isinstance(signal, Answered) else signal.run
        if turn is None or run != turn.run:  # work that was stopped may still report
            return ()
        match signal:
            case signals.Found():
                return self._on_found(turn, signal)
            case signals.Streamed():
                return (*self._begun_by(turn, signal.model), *self._say(turn, _sayable(signal.text)))
            case signals.Generated():
                assert turn.started is not None
                model = signal.model or turn.started.model
                return self._complete(turn, model, turn.started.passages, signal.usage)
            case signals.Failed():
                return self._finish(ReplyFailed(turn=turn.id, problem=signal.problem))
            case Answered():
                return self._on_answered(turn, signal)
            case _:
                assert_never(signal)

    def _on_found(self, turn: Turn, signal: signals.Found) -> Effects:
        if turn.started is not None:  # a search that was run again after a crash
            return ()
        similarity = max((hit.similarity for hit in signal.hits), default=0.0)
        known = not self.agent.collection or similarity >= self.agent.similarity_min
        started = ReplyStarted(
            turn=turn.id,
            model=signal.model if known else "",
            passages=tuple(hit.passage for hit in signal.hits) if known else (),
            similarity=round(similarity, 3),
            retrieval_ms=signal.retrieval_ms,
        )
        return (self.record(started), *self._proceed(turn, started))

    def _begun_by(self, turn: Turn, model: str) -> Effects:
        """Another version than was chosen begins, or was chosen first: it claims that in the hot log, and is in the
        record, before anybody sees a word of it, so that whoever goes on after a crash asks that one. Unless the
        other one has begun elsewhere."""
        started = turn.started
        if self.said or not model or started is None:
            return ()
        effects: Effects = ()
        if model != self._speaker(turn):
            self.claimed = model
            effects = (signals.Unshown(turn=turn.id, model=model),)
        if model != started.model:
            effects = (*effects, self.record(msgspec.structs.replace(started, model=model)))
        return effects

    def _on_answered(self, turn: Turn, signal: Answered) -> Effects:
        assert turn.started is not None
        done = signal.value
        if not isinstance(done, Done):
            problem = signal.problem or FlotillaError("The team's answer can't be read.").problem()
            return self._finish(ReplyFailed(turn=turn.id, problem=problem))
        say = self._say(turn, _unsaid(self.said, _sayable(done.text)))
        return (*say, *self._complete(turn, turn.started.model, done.documents, done.usage))

    # -- saying, and ending

    def _complete(self, turn: Turn, model: str, passages: tuple[Passage, ...], usage: Usage) -> Effects:
        body = _without_closing(self.said)
        found = citations.find(body, passages)
        sourced = bool(found) or not self.agent.collection  # who has no documents claims none
        closing = () if sourced else self._say(turn, (body + _closing(body))[len(self.said) :])
        done = ReplyCompleted(
            turn=turn.id,
            text=self.said,
            model=model,
            citations=found,
            usage=usage,
            confidence=citations.support(body, found),
            offers_person=not sourced,
        )
        return (*closing, *self._finish(done))

    def _answer_plainly(self, turn: Turn, canned: intents.Canned) -> Effects:
        """A reply that needs no model: fixed words, recorded and shown like any other."""
        before: Effects = ()
        if turn.started is None:
            handoff = HandoffRequested(turn=turn.id, reason="The customer asked for a person.")
            started = ReplyStarted(turn=turn.id, model="")
            before = (self.record(started, *((handoff,) if canned.wants_person else ())),)
        say = self._say(turn, _unsaid(self.said, canned.text))
        done = ReplyCompleted(turn=turn.id, text=self.said, model="", offers_person=canned.offers_person)
        return (*before, *say, *self._finish(done))

    def _say(self, turn: Turn, text: str) -> Effects:
        if not text:
            return ()
        say = signals.Say(turn=turn.id, seq=turn.seq, offset=len(self.said), text=text)
        self.said += text
        return (say,)

    def _finish(self, fact: Fact) -> Effects:
        """Records the end of the turn under way and begins the next one."""
        return (self.record(fact), *self._begin())

    def _silence(self) -> Effects:
        """What comes before the record of an end that cuts a reply short."""
        turn = self.turn
        return (Stop(key=turn.run), signals.Seal(turn=turn.id)) if turn else ()

    def _cut_short(self) -> list[ReplyInterrupted]:
        """The end of each turn, as things stand: nothing was said to those that wait."""
        return [
            ReplyInterrupted(turn=turn.id, text="" if n else self.said) for n, turn in enumerate(self.turns)
        ]


_CLOSINGS = (intents.NOT_SURE, intents.DONT_KNOW.text)


def _closing(body: str) -> str:
    """What an agent adds to a reply that nothing supports."""
    return intents.NOT_SURE if body.strip() else intents.DONT_KNOW.text


def _without_closing(said: str) -> str:
    for closing in _CLOSINGS:
        said = said.removesuffix(closing)
    return said


def _sayable(text: str) -> str:
    """Without what the hot log would take for a claim."""
    return text.replace(CLAIM_MARK, "")


def _unsaid(said: str, text: str) -> str:
    """What of `text` is still to be said. Should other words have been shown before it (by a host that
    was declared dead, just as a message was merged), they stay, and it stands apart."""
    if text.startswith(said):
        return text[len(said) :]
    return "" if said.startswith(text) else f"\n\n{text}"
