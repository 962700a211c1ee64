"""A candidate comes up and is warmed, in place too; and a version goes once it has nobody left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.serving.swap_needs import LOOK_EVERY_S, SwapNeeds
from flotilla.core.errors import Conflict, FlotillaError, NotFound, Unavailable
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.members import Member
from flotilla.core.policy.retry import passes
from flotilla.core.swap_facts import Do
from flotilla.core.versions import Version

# What a controller said of an earlier try is not held against this one at once.
STALE_FAILURE_S = 5.0
# A member says with its next beats what it serves now.
SEEN_S = 15.0
WARM_MAX_S = 120.0
WARM_PROMPTS_MAX = 8
# Whoever routes reads the plan within this time, and counts what it has begun by then.
SETTLE_S = 1.0
# Until all have read in the directory what a member serves: they look once a second.
READ_BY_ALL_S = 2.0
# So long a name that isn't known may be one of a plan that the router has not read yet.
UNREAD_S = 10.0
EMPTY_MAX_S = 600.0

HELLO = Prompt(messages=(ChatMessage(role="user", text="Hello"),), tokens_max=4)


class Loading:
    """`of` finds a version of the model by its id; `least` is how many replicas it is to have."""

    def __init__(self, needs: SwapNeeds, effect: Do, of: Callable[[str], Version], least: int) -> None:
        self._needs = needs
        self._effect = effect
        self._of = of
        self._least = max(1, least)
        self._until = needs.clock.monotonic() + effect.order.load_max_s

    async def load(self) -> None:
        """Returns once the candidate can be asked. Raises if it can't be had."""
        effect = self._effect
        if effect.undo:
            await self._reload(effect.candidate, self._of(effect.stable))
        elif effect.order.in_place:
            await self._reload(self._of(effect.stable), effect.candidate)
        elif effect.candidate.adapter:
            await self._load_adapter(effect.candidate)
        else:
            await self._wait(effect.candidate.id)

    def _check_time(self, lack: str) -> None:
        if self._needs.clock.monotonic() >= self._until:
            raise Unavailable(
                f"{lack} after {self._effect.order.load_max_s:g} s.",
                next="Look at the log of the controller and of the replicas, or give it more time.",
            )

    async def _pause(self) -> None:
        await self._needs.clock.sleep(LOOK_EVERY_S)

    # -- beside

    async def _wait(self, id: str) -> None:
        needs, begun = self._needs, self._needs.clock.monotonic()
        stale = needs.replicas.failure(id)
        while True:
            up = len(needs.up(id)) if await needs.look() else 0
            if up >= self._least:
                return
            failure = needs.replicas.failure(id)
            old = failure == stale and needs.clock.monotonic() - begun < STALE_FAILURE_S
            if failure and not old:
                raise FlotillaError(f"No replica of {id} comes up: {failure}")
            self._check_time(f"{up} of {self._least} replicas of {id} were up")
            await self._pause()

    async def _load_adapter(self, version: Version) -> None:
        """At one replica of its base; whoever routes has it loaded at others as they are needed."""
        lack = f"No replica of {version.base} was up"
        while True:
            if await self._needs.look():
                for member in sorted(self._needs.up(version.base), key=_busy):
                    try:
                        return await self._needs.replicas.load_adapter(member, version)
                    except FlotillaError as error:
                        if not passes(error):
                            raise
                        lack = f"{member.name} could not load {version.id} ({error.detail})"
            self._check_time(lack)
            await self._pause()

    # -- in place

    async def _reload(self, old: Version, new: Version) -> None:
        """Each replica of `old`, one after the other, until there is none and, unless this is the way back,
        there is one of `new`. Meanwhile whoever asks takes either; so all must know before it ends. On the way
        back those of `new` are told, too: what they began to load for a swap that was stopped comes otherwise."""
        lack, told = f"No replica of {old.id} was there", set[str]()
        while True:
            if await self._needs.look():
                back = self._needs.up(new.id) if self._effect.undo else []
                left = [*self._needs.up(old.id), *(member for member in back if member.life not in told)]
                if not left and (self._effect.undo or self._needs.up(new.id)):
                    return await self._needs.clock.sleep(READ_BY_ALL_S)
                if left:
                    lack = await self._reload_one(left[0], new, told)
            self._check_time(lack)
            await self._pause()

    async def _reload_one(self, member: Member, new: Version, told: set[str]) -> str:
        """What is the matter, if something is that may pass: other weights that are on their way, too."""
        left_s = max(1.0, self._until - self._needs.clock.monotonic())
        try:
            await self._needs.replicas.reload(member, new, left_s)
        except FlotillaError as error:
            if not (passes(error) or isinstance(error, Conflict)):
                raise
            return f"{member.name} could not be reloaded ({error.detail})"
        told.add(member.life)
        await self._seen(member, new.id)
        return f"{member.name} did not say that it serves {new.id}"

    async def _seen(self, member: Member, id: str) -> None:
        until = self._needs.clock.monotonic() + SEEN_S
        while self._needs.clock.monotonic() < until:
            there = self._needs.replicas.of(id) if await self._needs.look() else []
            if any(other.life == member.life for other in there):
                return
            await self._pause()


def _busy(member: Member) -> float:
    return member.load.get("running", 0.0) + member.load.get("waiting", 0.0)


async def warm(needs: SwapNeeds, version: Version) -> float:
    """Asks as often at once as there are replicas, so that each makes a token; the slowest first token, in
    ms. Raises what the version raised, once patience ends."""
    times = max(1, len(needs.up(version.runs_on)))
    begun = needs.clock.monotonic()
    until = begun + WARM_MAX_S

    async def one(n: int) -> float:
        while True:
            try:
                return (await needs.ask(HELLO, version.id, f"warm-{n}")).first_token_ms
            except FlotillaError as error:
                now = needs.clock.monotonic()
                unread = isinstance(error, NotFound) and now < begun + UNREAD_S
                if not (passes(error) or unread) or now >= until:
                    raise
                await needs.clock.sleep(LOOK_EVERY_S)

    found = await asyncio.gather(
        *(one(n) for n in range(min(times, WARM_PROMPTS_MAX))), return_exceptions=True
    )
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return max(outcome for outcome in found if isinstance(outcome, float))


async def empty(needs: SwapNeeds, ids: frozenset[str]) -> None:
    """Returns once nobody has been answered by any of these, and no task has gone on with one, for two looks,
    a second apart; or when even the longest reply should have ended."""
    begun, clear = needs.clock.monotonic(), 0
    while clear < 2:
        await needs.clock.sleep(SETTLE_S)
        if needs.clock.monotonic() - begun > EMPTY_MAX_S:
            needs.log.warning("swap.not_emptied", versions=sorted(ids), after_s=EMPTY_MAX_S)
            return
        try:
            pages = await needs.tallies.pages()
        except FlotillaError as error:
            if not passes(error):
                raise
            clear = 0
            continue
        found = [page[id] for page in pages.values() for id in ids & page.keys()]
        clear = 0 if any(tally.running > 0 or tally.held > 0 for tally in found) else clear + 1
