"""Whether what clients saw and did keeps the promises: the history checker.

It reads nothing but plain observations and the journals as they are in the end, so it serves the
simulator and the tests that kill real processes alike:

    violations = check([Sent(…), Acked(…), Connected(…), Received(…)], {"s_1": [Entry(…), …]})
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from simulation.observations import (
    AGENT_SPEAKS,
    TURN_ENDS,
    Acked,
    Connected,
    Effected,
    Entry,
    Fault,
    Journals,
    Observation,
    Received,
    Refused,
    Sent,
    Stuck,
    TookOver,
    Violation,
)
from simulation.reading import Reader

__all__ = ["Violation", "check"]


def check(observations: Iterable[Observation], journals: Journals) -> list[Violation]:
    """Every broken promise, readably; none if all were kept. Faults must be over by now, and turns must
    have had time to end."""
    seen = list(observations)
    found = [broken for session in sorted(journals) for broken in _session(session, journals[session], seen)]
    found += _effects([o for o in seen if isinstance(o, Effected)], journals)
    stuck = [o for o in seen if isinstance(o, Stuck)]
    return found + [_violation("stuck", o.session, f"{o.client} waits for {o.what}", o.at) for o in stuck]


def _session(session: str, entries: Sequence[Entry], seen: Sequence[Observation]) -> list[Violation]:
    mine = [o for o in seen if getattr(o, "session", session) == session]
    return [
        *_journal(session, entries),
        *_turns(session, entries),
        *_acknowledged(session, entries, [o for o in mine if isinstance(o, Acked)]),
        *_real_time(session, mine),
        *_forgotten(session, mine),
        *_taken_over(session, entries, [o for o in mine if isinstance(o, TookOver)]),
        *_readers(session, entries, mine),
    ]


def _violation(rule: str, session: str, what: str, at: float = 0.0) -> Violation:
    return Violation(rule=rule, session=session, at=at, what=what)


# -- the record


def _journal(session: str, entries: Sequence[Entry]) -> list[Violation]:
    """Numbers without gaps; each message once."""
    found = [
        _violation("gap", session, f"the journal has {entry.seq} where {seq} should be")
        for seq, entry in enumerate(entries, 1)
        if entry.seq != seq
    ]
    counts = Counter(entry.message for entry in entries if entry.message)
    doubled = [message for message, times in counts.items() if times > 1]
    return found + [
        _violation("doubled", session, f"the journal has {m!r} {counts[m]} times") for m in doubled
    ]


def _turns(session: str, entries: Sequence[Entry]) -> list[Violation]:
    """One at a time, each with one end, and none of the agent's while a person has the conversation."""
    turns = _Turns(session)
    for entry in entries:
        turns.see(entry)
    for turn in turns.open:
        turns.broken("unfinished", f"{turn} was accepted and has no end")
    return turns.violations


class _Turns:
    def __init__(self, session: str) -> None:
        self.violations: list[Violation] = []
        self.open: dict[str, None] = {}
        self._session = session
        self._ended: set[str] = set()
        self._speaking = ""
        self._with_person = False

    def broken(self, rule: str, what: str) -> None:
        self.violations.append(_violation(rule, self._session, what))

    def see(self, entry: Entry) -> None:
        if self._with_person and entry.type in AGENT_SPEAKS:
            self.broken("silence", f"the record has {entry.type} {entry.seq} while a person talks")
        if entry.type == "message.accepted" and entry.turn:
            self.open[entry.turn] = None
        elif entry.type == "reply.started":
            if self._speaking not in ("", entry.turn):  # one that is begun again keeps its turn
                self.broken("overlap", f"{entry.turn} starts while {self._speaking} is under way")
            self._speaking = entry.turn
        elif entry.type in TURN_ENDS:
            self._end(entry)
        elif entry.type in ("handoff.accepted", "handoff.returned"):
            self._with_person = entry.type == "handoff.accepted"

    def _end(self, entry: Entry) -> None:
        if entry.turn in self._ended:
            self.broken("doubled", f"{entry.turn} ends twice, at {entry.seq} again")
        elif entry.turn not in self.open:
            self.broken("unrecorded", f"{entry.turn} ends at {entry.seq} and was never accepted")
        self._ended.add(entry.turn)
        self.open.pop(entry.turn, None)
        if self._speaking == entry.turn:
            self._speaking = ""


# -- what was acknowledged


def _acknowledged(session: str, entries: Sequence[Entry], acks: Sequence[Acked]) -> list[Violation]:
    """Each acknowledged message is in the record, where it was said to be."""
    at = {entry.seq: entry for entry in entries}
    found: list[Violation] = []
    for ack in acks:
        entry = at.get(ack.seq)
        if entry is None or entry.message != ack.message:
            there = f"has {entry.message or entry.type!r}" if entry else "ends before"
            what = f"{ack.client} was told that {ack.message!r} is {ack.seq}; there the record {there}"
            found.append(_violation("lost", session, what, ack.at))
        elif entry.turn != ack.turn:
            what = f"{ack.client} was told {ack.turn} of {ack.message!r}, which is {entry.turn}"
            found.append(_violation("lost", session, what, ack.at))
    return found


def _real_time(session: str, mine: Sequence[Observation]) -> list[Violation]:
    """Linearizable: a message that was sent after another was acknowledged comes behind it."""
    sent: dict[str, float] = {}
    acked: dict[str, Acked] = {}
    for o in mine:
        if isinstance(o, Sent):
            sent.setdefault(o.message, o.at)
        elif isinstance(o, Acked):
            acked.setdefault(o.message, o)
    found: list[Violation] = []
    for later in acked.values():
        for earlier in acked.values():
            if earlier.at < sent.get(later.message, 0.0) and earlier.seq >= later.seq:
                what = (
                    f"{later.message!r} is {later.seq}, but {earlier.message!r} was acknowledged before as "
                )
                found.append(_violation("reordered", session, what + str(earlier.seq), later.at))
    return found


def _forgotten(session: str, mine: Sequence[Observation]) -> list[Violation]:
    """Where something was acknowledged, nobody is told later that there is no such actor."""
    first = min((o.at for o in mine if isinstance(o, Acked)), default=None)
    sent = {(o.client, o.message): o.at for o in mine if isinstance(o, Sent)}
    return [
        _violation("forgotten", session, f"{o.client} was told that it does not exist", o.at)
        for o in mine
        if isinstance(o, Refused)
        and o.problem == "not-found"
        and first is not None
        and sent.get((o.client, o.message), 0.0) > first
    ]


def _taken_over(session: str, entries: Sequence[Entry], told: Sequence[TookOver]) -> list[Violation]:
    """At the event that a person was told, the conversation was a person's."""
    return [
        _violation("lost", session, f"{o.client} was told that it has the conversation at {o.seq}", o.at)
        for o in told
        if not _with_person(entries, o.seq)
    ]


def _with_person(entries: Sequence[Entry], seq: int) -> bool:
    handoffs = ("handoff.accepted", "handoff.returned")
    last = [entry.type for entry in entries if entry.seq <= seq and entry.type in handoffs][-1:]
    return last == ["handoff.accepted"]


# -- what was seen and done


def _readers(session: str, entries: Sequence[Entry], mine: Sequence[Observation]) -> list[Violation]:
    readers: dict[str, Reader] = {}
    faults: list[Fault] = []
    for o in mine:
        if isinstance(o, Fault):
            faults.append(o)
            for reader in readers.values():
                reader.see(o)
        elif isinstance(o, Connected | Received):
            if o.client not in readers:
                reader = readers[o.client] = Reader(o.client, session, entries)
                for fault in faults[:1]:
                    reader.see(fault)
            readers[o.client].see(o)
    return [broken for reader in readers.values() for broken in reader.violations]


def _effects(done: Sequence[Effected], journals: Journals) -> list[Violation]:
    """Each action once, and each that the record says was done."""
    times: dict[str, list[Effected]] = defaultdict(list)
    for effect in done:
        times[effect.action].append(effect)
    recorded = [
        f"{actor}/{entry.effect}" for actor in sorted(journals) for entry in journals[actor] if entry.effect
    ]
    never = [
        _violation("effect", "", f"{action} was never done") for action in recorded if action not in times
    ]
    again = [
        _violation("effect", "", f"{action} was done {len(seen)} times", seen[-1].at)
        for action, seen in times.items()
        if len(seen) > 1
    ]
    return never + again
