"""The promises about what one reader of one session sees."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.observations import (
    AGENT_SPEAKS,
    TURN_ENDS,
    Connected,
    Entry,
    Fault,
    Observation,
    Received,
    Violation,
)


class Reader:
    """Reads along with a client, and notes what should not have come."""

    def __init__(self, client: str, session: str, entries: Sequence[Entry]) -> None:
        self.client = client
        self.session = session
        self.violations: list[Violation] = []
        self._entries = {entry.seq: entry for entry in entries}
        self._final = {entry.turn: entry for entry in entries if entry.type in TURN_ENDS}
        self._after = 0
        self._turn = ""
        self._text = ""
        self._with_person = False
        self._faulty = False
        self._from_the_start = False  # connected since before the reply under way began

    def see(self, observation: Observation) -> None:
        match observation:
            case Fault():
                self._faulty = True
            case Connected():
                self._connected(observation)
            case Received():
                self._received(observation)
            case _:
                pass

    def _broken(self, rule: str, at: float, what: str) -> None:
        self.violations.append(
            Violation(rule=rule, session=self.session, at=at, what=f"{self.client} {what}")
        )

    def _connected(self, connected: Connected) -> None:
        """A reader that goes on keeps what it knows."""
        self._from_the_start = False
        if connected.fresh:
            self._after, self._text, self._turn, self._with_person = connected.after, "", "", False
        elif connected.after != self._after:
            self._broken(
                "resume", connected.at, f"asks for what is after {connected.after}, but has {self._after}"
            )

    def _received(self, got: Received) -> None:
        if self._with_person and got.type in AGENT_SPEAKS:
            self._broken("silence", got.at, f"got {_name(got)} of the agent after a person had taken over")
        if got.type == "reply.delta":
            self._delta(got)
        elif got.type == "reply.rewound":
            self._rewound(got)
        else:
            self._durable(got)

    # -- text

    def _delta(self, got: Received) -> None:
        if got.turn != self._turn:
            self._turn, self._text = got.turn, ""
        if got.offset != len(self._text):
            what = "gap" if got.offset > len(self._text) else "overlap"
            self._broken(what, got.at, f"got text at {got.offset} of {got.turn}, but has {len(self._text)}")
        self._text = self._text[: got.offset] + got.text
        self._never_contradicted(got)

    def _never_contradicted(self, got: Received) -> None:
        """Text was shown that the record doesn't have: before a rewind that may be, without one never."""
        final = self._final.get(got.turn)
        if final is None or final.type == "reply.failed" or final.text.startswith(self._text):
            return
        if not self._faulty:
            self._broken(
                "contradicted", got.at, f"saw {self._text!r}, but {got.turn} ended as {final.text!r}"
            )

    def _rewound(self, got: Received) -> None:
        if not self._faulty:
            self._broken("rewound", got.at, f"was sent back to {got.offset} though nothing had failed")
        if got.turn == self._turn and got.offset > len(self._text):
            self._broken("gap", got.at, f"was sent on to {got.offset}, but has {len(self._text)}")
        self._text = self._text[: got.offset]

    # -- events

    def _durable(self, got: Received) -> None:
        if got.seq <= self._after:
            return self._broken("doubled", got.at, f"got event {got.seq} again, after {self._after}")
        for seq in range(self._after + 1, got.seq):
            entry = self._entries.get(seq)
            if entry is not None and entry.shown:
                self._broken("gap", got.at, f"got event {got.seq}, but never {seq} ({entry.type})")
        self._after = got.seq
        self._as_recorded(got)
        if got.type in TURN_ENDS:
            self._ended(got)
        elif got.type == "reply.started":
            self._started(got)
        elif got.type == "handoff.accepted":
            self._with_person = True
        elif got.type == "handoff.returned":
            self._with_person = False
        return None

    def _started(self, got: Received) -> None:
        """Text is counted from here; a reply that is begun again has shown none, unless a host failed."""
        if got.turn == self._turn and self._text and not self._faulty:
            self._broken("rewound", got.at, f"saw {got.turn} begin again behind {self._text!r}")
        self._turn = self._text = ""
        self._from_the_start = True

    def _as_recorded(self, got: Received) -> None:
        entry = self._entries.get(got.seq)
        if entry is None:
            self._broken("unrecorded", got.at, f"saw {_name(got)}, which is not in the record")
        elif (entry.type, entry.turn) != (got.type, got.turn) or not entry.shown:
            recorded = f"{entry.type} of {entry.turn}"
            self._broken("unrecorded", got.at, f"saw {_name(got)} where the record has {recorded}")

    def _ended(self, got: Received) -> None:
        """What was seen is the beginning of the whole; all of it, where nothing had failed and nobody had
        broken off: then the rest may come with the end."""
        if got.turn == self._turn and got.type != "reply.failed":
            if not got.text.startswith(self._text):
                self._broken(
                    "contradicted", got.at, f"saw {self._text!r}, but {got.turn} ended as {got.text!r}"
                )
            elif self._text != got.text and self._from_the_start and not self._faulty:
                self._broken(
                    "gap", got.at, f"saw {len(self._text)} of {len(got.text)} characters of {got.turn}"
                )
        self._turn = self._text = ""


def _name(got: Received) -> str:
    return f"{got.type} {got.seq}" + (f" of {got.turn}" if got.turn else "")
