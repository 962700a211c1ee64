"""Who waits for an actor, and who watches it: those it has promised an answer, and its followers.

Most actors have neither most of the time, so nothing is held for them then.
"""

from __future__ import annotations

from typing import Any

from actors.follower import Follower
from actors.outcomes import moved
from actors.tickets import Ticket, Tickets
from flotilla.core.effects import Signal
from flotilla.core.errors import FlotillaError


class Newcomer(Signal, frozen=True, tag="flotilla.newcomer"):
    """Somebody wants to follow: from its place in the loop on, it gets every frame."""

    control = True
    follower: Any


class Audience:
    __slots__ = ("_followers", "_tickets", "_tickets_max")

    def __init__(self, tickets_max: int) -> None:
        self._tickets_max = tickets_max
        self._tickets: Tickets | None = None
        self._followers: list[Follower] | None = None

    # -- those who were promised an answer

    @property
    def tickets(self) -> Tickets:
        if self._tickets is None:
            self._tickets = Tickets(self._tickets_max)
        return self._tickets

    def take_tickets(self, key: str) -> list[Ticket]:
        taken = self._tickets.take(key) if self._tickets is not None else []
        if self._tickets is not None and not self._tickets:
            self._tickets = None
        return taken

    def refuse_promised(self, error: FlotillaError) -> None:
        """Nobody here works on their answer any more."""
        tickets, self._tickets = self._tickets, None
        for ticket in tickets.take_all() if tickets else ():
            ticket.refuse(error)

    # -- those who follow

    @property
    def followers(self) -> int:
        return len(self._followers or ())

    def add_follower(self, follower: Follower) -> None:
        self._followers = [*(self._followers or ()), follower]

    def unfollow(self, follower: Follower) -> None:
        """Into a new list: it may be called while the old one is walked over."""
        if self._followers and follower in self._followers:
            self._followers = [other for other in self._followers if other is not follower]

    def publish(self, frame: bytes) -> None:
        for follower in self._followers or ():
            follower.put(frame)

    def dismiss(self, error: FlotillaError | None = None) -> None:
        """Who follows comes again, from where it is."""
        followers, self._followers = self._followers, None
        for follower in followers or ():
            follower.end(error or moved())
