"""How a person takes a conversation over from its agent, speaks in its place, and gives it back."""

from __future__ import annotations

from typing import assert_never

from flotilla.core import signals
from flotilla.core.conversation import written_digest
from flotilla.core.effects import Answer, Effects
from flotilla.core.facts import (
    HandoffAccepted,
    HandoffRequested,
    HandoffReturned,
    MessageSent,
    NoteAdded,
)
from flotilla.core.policy import admission
from flotilla.core.replies import Replies


class Takeover(Replies):
    def _on_handed(self, signal: signals.Handed) -> Effects:
        admission.check_opened(self)
        match signal:
            case signals.RequestPerson():
                return self._on_request(signal)
            case signals.Accept():
                return self._on_accept(signal)
            case signals.Return():
                return self._on_return(signal)
            case signals.Speak():
                return self._on_written(MessageSent(by=signal.person, id=signal.id, text=signal.text))
            case signals.Note():
                return self._on_written(NoteAdded(by=signal.person, id=signal.id, text=signal.text))
            case _:
                assert_never(signal)

    def _on_request(self, signal: signals.RequestPerson) -> Effects:
        admission.check_not_closed(self)
        if self.person_asked or self.taken_by:
            return (self._shown(),)
        return (self.record(HandoffRequested(reason=signal.reason)), self._shown())

    def _on_accept(self, signal: signals.Accept) -> Effects:
        """Every turn is ended: the agent owes no answer any more, so it can give none."""
        admission.check_not_closed(self)
        admission.check_person(signal.person)
        if self.taken_by:
            admission.check_taken_by(self, signal.person)
            return (self._shown(),)
        silence = self._silence()
        record = self.record(*self._cut_short(), HandoffAccepted(person=signal.person))
        return (*silence, record, self._shown())

    def _on_return(self, signal: signals.Return) -> Effects:
        admission.check_not_closed(self)
        admission.check_person(signal.person)
        if not self.taken_by:
            return (self._shown(),)
        admission.check_taken_by(self, signal.person)
        return (self.record(HandoffReturned(person=signal.person)), self._shown())

    def _on_written(self, fact: MessageSent | NoteAdded) -> Effects:
        if seen := self.written.get(fact.id):
            admission.check_same(seen, written_digest(fact), fact.id)
            return (Answer(value=signals.Accepted(seq=seen.seq, turn="", again=True)),)
        admission.check_not_closed(self)
        admission.check_person(fact.by)
        admission.check_message(fact.id, fact.text)
        if isinstance(fact, MessageSent):
            admission.check_taken_by(self, fact.by)
        admission.check_room(self)
        record = self.record(fact)
        return (record, Answer(value=signals.Accepted(seq=self.seq, turn="")))

    def _shown(self) -> Answer:
        return Answer(value=self.view())
