"""What clients saw and did, in plain words: the input of the history checker.

`at` counts seconds on one clock for all observations, which are listed in the order in which they
were made. A *reader* is a client's view of one session: it has at most one connection at a time, and
where it connects again it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

TURN_ENDS = frozenset({"reply.completed", "reply.interrupted", "reply.failed"})
AGENT_SPEAKS = frozenset({"reply.started", "reply.delta", "reply.completed"})


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    at: float


class Sent(Observation, frozen=True):
    """A client sends a message: the first time, or again under the same id."""

    client: str
    session: str
    message: str


class Acked(Observation, frozen=True):
    """It was told that its message is in the record as `seq` and starts `turn`."""

    client: str
    session: str
    message: str
    seq: int
    turn: str


class Refused(Observation, frozen=True):
    """It was told no, and why (the `type` of the problem)."""

    client: str
    session: str
    message: str
    problem: str


class Connected(Observation, frozen=True):
    """A reader asks for everything behind the event `after` and character `offset`. A `fresh` one has
    forgotten what it read before."""

    client: str
    session: str
    after: int
    offset: int = 0
    fresh: bool = False


class Received(Observation, frozen=True):
    """An event reached a reader. `offset` is that of a delta or a rewind; `text` the delta's, or all of the
    reply where the event ends one; `model` the version that a reply is begun with, or was made by."""

    client: str
    session: str
    seq: int
    type: str
    turn: str = ""
    offset: int = 0
    text: str = ""
    model: str = ""


class TookOver(Observation, frozen=True):
    """A person was told that the conversation is theirs since event `seq`."""

    client: str
    session: str
    seq: int


class Effected(Observation, frozen=True):
    """Something was done in the outside world. `action` says what, `key` under which idempotency key."""

    action: str
    key: str


class Hung(Observation, frozen=True):
    """A plan of the model hangs on the board. `percent` of the conversations are to be the candidate's, drawn
    with `salt`; `versions` are all that may be asked for. `cut` are versions that somebody was being answered
    by, and that are not in it; `reloading` those of which replicas turn from one into the other; `fallbacks` who
    answers when these can't; `errors` are those that hosts have counted so far of versions that make none."""

    revision: int
    stable: str
    candidate: str = ""
    shadow: bool = False
    percent: float = 0.0
    salt: str = ""
    versions: tuple[str, ...] = ()
    placed: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    reloading: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    errors: int = 0


class Saw(Observation, frozen=True):
    """A process, by its life, has read the plan of that revision."""

    process: str
    revision: int


class Chose(Observation, frozen=True):
    """A process has chosen the version that is to answer `conversation`, which asked for none, by the plan of that
    revision."""

    revision: int
    conversation: str
    version: str


class Told(Observation, frozen=True):
    """An operator was told that the model's record has come to `seq`, and which version is the stable one."""

    client: str
    seq: int
    stable: str


class Fault(Observation, frozen=True):
    """Something was broken on purpose."""

    what: str


class Stuck(Observation, frozen=True):
    """Faults are long over, and a client still waits for `what`."""

    client: str
    session: str
    what: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a session's journal. `message` is the client's id in `message.accepted`; `text` that of
    a reply's end; `shown` is false for what clients never get; `effect` names an action that is done; `model`
    is the version that made the text; `wanted` the one that a conversation asks for as it is opened."""

    seq: int
    type: str
    turn: str = ""
    message: str = ""
    text: str = ""
    shown: bool = True
    effect: str = ""
    model: str = ""
    wanted: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a model's journal: what its facts have, by their names."""

    seq: int
    type: str
    swap: str = ""
    version: str = ""
    to: str = ""
    stage: str = ""
    end: str = ""
    in_place: bool = False
    reason: str = ""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A broken promise. `rule` is its short name."""

    rule: str
    session: str
    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.4f} s in {self.session or 'the world'}: {self.what}"


Journals = Mapping[str, Sequence[Entry]]
"""By session."""
