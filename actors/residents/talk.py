"""What an activation of a session knows of its turns under way, and how the hot log of a reply is read.

Where another version than the chosen one begins a reply, that is written into its log before the record has it: a
*claim*. From then on nobody appends who does not know of it, such as a host that the session has just left and whose
replica would have answered after all.
"""

from __future__ import annotations

import msgspec

from actors.stopwatch import Stopwatch
from flotilla.core.generation import CLAIM_MARK, Shown


def claim(model: str) -> str:
    return f"{CLAIM_MARK}{model}{CLAIM_MARK}"


class Logged(msgspec.Struct, frozen=True):
    """`claims` are as they stand in the log; `model` is who made the last of them, "" if there is none."""

    claims: str = ""
    model: str = ""
    text: str = ""
    sealed: bool = False


def logged(shown: Shown) -> Logged:
    model, claims, text = "", "", shown.text
    while text.startswith(CLAIM_MARK) and (end := text.find(CLAIM_MARK, 1)) > 0:
        model, claims, text = text[1:end], claims + text[: end + 1], text[end + 1 :]
    return Logged(claims, model, text, shown.sealed)


class Talk:
    """Beyond the session's own state. `claims`, `owed`, `text` and `shown` are of `turn`."""

    __slots__ = ("claims", "owed", "shown", "text", "turn", "watches")

    def __init__(self) -> None:
        self.turn = ""
        self.claims = ""  # what the log has in front of the text
        self.owed = ""  # a claim that it has not, as it was down
        self.text = ""  # the reply under way
        self.shown = ""  # what the hot log, and so the customer, has of it
        self.watches: dict[str, Stopwatch] = {}

    def begin(self, turn: str) -> None:
        if turn != self.turn:
            self.turn = turn
            self.over()

    def take(self, turn: str, log: Logged) -> None:
        """What the log says is all that there is."""
        self.turn, self.claims, self.owed, self.text, self.shown = turn, log.claims, "", log.text, log.text

    def shown_of(self, turn: str) -> str:
        return self.shown if turn == self.turn else ""

    @property
    def logged_bytes(self) -> int:
        """Where the log ends, as far as we know."""
        return len(self.claims.encode()) + len(self.shown.encode())

    def claimed(self, claim: str) -> None:
        """The log has it."""
        self.claims += claim
        self.owed = ""

    def over(self) -> None:
        """The end of the turn is in the record."""
        self.claims = self.owed = self.text = self.shown = ""
