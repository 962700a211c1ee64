"""Who answers when a version can't: the versions that may, in order, each with a breaker.

Only before a word was said. A reply that was begun goes on at its own version, and at another one only when
no replica of it has been seen for `CONTINUE_PATIENCE_S`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from actors.serving.balance import Balance, NoReplica
from actors.serving.counting import Counts
from actors.serving.here import Here
from actors.serving.replies import Begun, Replies, Terms
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, OtherVersion, Overloaded
from flotilla.core.generation import Prompt
from flotilla.core.policy.breaker import Breaker
from flotilla.core.versions import Version

# Longer than a replica takes to come back (vLLM on two cores: 30 s), shorter than a reply is waited for.
CONTINUE_PATIENCE_S = 90.0


class Fallbacks:
    """`fell_back` counts the replies that another version than the chosen one made."""

    def __init__(
        self, replies: Replies, here: Here, balance: Balance, *, counts: Counts, clock: Clock, log: Any
    ) -> None:
        self._replies = replies
        self._here = here
        self._balance = balance
        self._counts = counts
        self._clock = clock
        self._log = log
        self._breakers: dict[str, Breaker] = {}
        self._absent: dict[str, float] = {}  # since when a version has had no replica
        self.fell_back = 0

    def __repr__(self) -> str:
        return f"<Fallbacks: {self.fell_back} fell back, {len(self._absent)} versions absent>"

    async def begin(self, chosen: Version, others: Sequence[Version], prompt: Prompt, terms: Terms) -> Begun:
        """The reply, by the first who can; until it is closed it counts as `running`. Raises what came of
        the chosen version if nobody can; at once if it is the prompt's fault."""
        if prompt.said and not self.given_up(chosen):
            others = ()
        first: FlotillaError | None = None
        for place, version in enumerate((chosen, *others)):
            urgent = any(self._can(other) for other in others[place:])
            try:
                begun = await self._begin(version, prompt, msgspec.structs.replace(terms, urgent=urgent))
            except FlotillaError as error:
                if version is chosen and error.status < 500:
                    raise
                first = first or error
            else:
                self._note(chosen, version, first)
                return begun
        assert first is not None
        raise first

    def _note(self, chosen: Version, version: Version, error: FlotillaError | None) -> None:
        if error is None:
            return
        self.fell_back += 1
        self._log.info("reply.fell_back", chosen=chosen.id, version=version.id, reason=error.detail)

    async def _begin(self, version: Version, prompt: Prompt, terms: Terms) -> Begun:
        breaker = self._breaker(version)
        breaker.admit(self._clock.monotonic())
        self._counts.of(version.id).running += 1
        try:
            begun = await self._asked(version, prompt, terms)
        except BaseException as error:
            # Who is in the middle of a reply asks again, and the version must not be retired meanwhile.
            (self._counts.broken_off if prompt.said else self._counts.left)(version.id)
            if isinstance(error, FlotillaError) and _says_something(error):
                breaker.note(self._clock.monotonic(), error.status < 500)
            raise
        breaker.note(self._clock.monotonic(), True)
        return begun

    async def _asked(self, version: Version, prompt: Prompt, terms: Terms) -> Begun:
        if self._here.has(version):
            return await self._here.begin(version, prompt)
        return await self._replies.begin(version, prompt, terms)

    def _can(self, version: Version) -> bool:
        return self._here.has(version) or bool(self._balance.serving(version))

    def _breaker(self, version: Version) -> Breaker:
        return self._breakers.setdefault(version.id, Breaker(version.id))

    def breakers(self) -> dict[str, str]:
        """Open, half-open or closed, by the id of the version."""
        now = self._clock.monotonic()
        return {id: breaker.state(now) for id, breaker in self._breakers.items()}

    # -- who is there

    def given_up(self, version: Version) -> bool:
        """Whether it has had no replica for so long that another version goes on with its replies."""
        since = self._absent.get(version.runs_on)
        return since is not None and self._clock.monotonic() - since >= CONTINUE_PATIENCE_S

    def look(self, versions: Collection[Version]) -> None:
        """Called twice a second with all that are in plans: who has replicas; forgets the others."""
        now, before = self._clock.monotonic(), self._absent
        self._absent = {
            version.runs_on: before.get(version.runs_on, now)
            for version in versions
            if not self._can(version)
        }
        known = {version.id for version in versions}
        self._breakers = {id: breaker for id, breaker in self._breakers.items() if id in known}


def _says_something(error: FlotillaError) -> bool:
    """Nobody there says nothing of how the version does once it is back; nor does too much to do, nor who was
    asked and serves another one by now."""
    return not isinstance(error, NoReplica | Overloaded | OtherVersion)
