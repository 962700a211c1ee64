"""The way of a prompt to the right replica of the right version: `ModelDoor` as hosts and gateways have it.

    resolve the name → the version that answers this conversation        catalogue, policy/canary
    the versions that may answer instead of it, in order                 fallbacks, policy/breaker
    a replica of it: where the conversation's prefix is, if it has room  balance, policy/affinity
    ask it; ask another if it fails or is slow before the first word     replies, attempts
    hand the parts on; count them; the same again at a candidate, unseen counting, shadow

Nothing here waits for the board where the plans hang: what was last read there holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from random import Random
from typing import Any

import msgspec

from actors.link import Links
from actors.roster import Roster
from actors.serving.attempts import AGAIN_S, Asker
from actors.serving.balance import Balance, NoReplica, key_of
from actors.serving.catalogue import Catalogue
from actors.serving.counting import Counts
from actors.serving.fallbacks import Fallbacks
from actors.serving.here import NOBODY, Here
from actors.serving.holding import Holding
from actors.serving.replies import Begun, Replies, Terms
from actors.serving.shadow import Shadow
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.generation import Finished, Generated, Origin, Piece, Prompt
from flotilla.core.ids import new_id
from flotilla.core.policy.canary import may_use
from flotilla.core.ports import Holder, Model, PlanBoard, TallyBoard
from flotilla.core.versions import FLEET, EngineName, Route, Version

REFRESH_EVERY_S = 0.5
PING_TIMEOUT_S = 5.0
# Replies that broke off at a fallback, which has to go on with them.
BROKEN_OFF_KEPT = 10_000


class Models:
    """Implements `ModelDoor`. `run` keeps it up to date; the roster must know the role "model". `local` are
    engines that need no replica."""

    def __init__(
        self,
        links: Links,
        roster: Roster,
        board: PlanBoard,
        tallies: TallyBoard,
        *,
        clock: Clock,
        log: Any,
        random: Random,
        default: str = "",
        local: Mapping[EngineName, Model] = NOBODY,
    ) -> None:
        self._links = links
        self._board = board
        self._tallies = tallies
        self._clock = clock
        self._log = log
        self._random = random
        self._process = new_id("p")
        self._down: set[str] = set()
        self._elsewhere: OrderedDict[str, str] = OrderedDict()
        self.catalogue = Catalogue(default)
        self.counts = Counts()
        self.waited: Callable[[str, float], None] = _nobody_asks
        self.holding = Holding(clock)
        self.balance = Balance(roster, clock)
        self.replies = Replies(Asker(links, roster, self.balance, log), self.counts, clock)
        self.fallbacks = Fallbacks(
            self.replies, Here(local, clock), self.balance, counts=self.counts, clock=clock, log=log
        )
        self.shadow = Shadow(self.replies, self.counts, clock, log, random)

    def __repr__(self) -> str:
        return f"<Models {self._process}: {self.catalogue}, {self.balance}, {self.replies.hedges}>"

    # -- what there is

    @property
    def name(self) -> str:
        """The stable version of the default model; "" if nothing is known yet."""
        route = self.catalogue.route(self.catalogue.default)
        return route.stable if route else ""

    def choose(self, origin: Origin, wanted: str = "") -> str:
        return self.catalogue.choose(origin, wanted).id

    def versions(self, tenant: str) -> list[Version]:
        return sorted((v for v in self.catalogue if may_use(v, tenant)), key=lambda version: version.id)

    def hold(self, holder: Holder, versions: Collection[str], *, most_s: float | None = None) -> None:
        self.holding.hold(holder, versions, most_s=most_s)

    def score(self, version: str, quality: float) -> None:
        if self.catalogue.version(version) is not None:
            self.counts.of(version).score(quality)

    async def ping(self) -> None:
        """Raises `Unavailable` unless a replica of the default model says that it can generate."""
        version = self.catalogue.version(self.name)
        if version is None:
            raise Unavailable("No model is known yet.", retry_after_s=REFRESH_EVERY_S)
        serving = self.balance.serving(version)
        if not serving:
            raise NoReplica(f"No replica of {version.id} is up.", retry_after_s=1.0)
        link = await self._links.to(self._random.choice(serving).address)
        await link.ask("ping", b"", timeout_s=PING_TIMEOUT_S)

    async def close(self) -> None:
        await self.shadow.close()

    # -- a reply

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. Raises `Unavailable` when a reply breaks off: the caller asks again, with what
        it has as `said`."""
        version = self._version(prompt)
        route = self.catalogue.route(version.model)
        begun = await self._begin(prompt, version, route)
        self._note_wait(begun)
        compared = self.shadow.draws(route, begun.version, prompt)
        texts: list[str] = []
        try:
            async with aclosing(self._parts(begun, prompt)) as parts:
                async for part in parts:
                    if compared and isinstance(part, Piece):
                        texts.append(part.text)
                    yield part
        finally:
            await begun.aclose()
        if compared and route:
            self._compare(route.candidate, prompt, "".join(texts))

    def _note_wait(self, begun: Begun) -> None:
        """What stands at the engines: the wait for the first token, where its replica says that others wait."""
        member = begun.attempt.member
        if member is not None:
            queues = self.balance.queues(member)
            self.waited("engine", begun.first_at - begun.asked_at if queues else 0.0)

    def _compare(self, candidate: str, prompt: Prompt, sent: str) -> None:
        version = self.catalogue.version(candidate)
        if version is not None and may_use(version, prompt.origin.tenant):
            self.shadow.begin(version, prompt, sent)

    def _version(self, prompt: Prompt) -> Version:
        """Who began a reply goes on with it. A lone request has no conversation that would keep it at one
        version; what it begins with does."""
        key, reply = key_of(prompt), _reply_of(prompt)
        going_on = self._elsewhere.get(reply) if prompt.said else self._elsewhere.pop(reply, None)
        if prompt.said and going_on and (version := self.catalogue.there(going_on)):
            return version
        if not prompt.origin.conversation:
            origin = msgspec.structs.replace(prompt.origin, conversation=key)
            prompt = msgspec.structs.replace(prompt, origin=origin)
        return self.catalogue.resolve(prompt)

    async def _begin(self, prompt: Prompt, version: Version, route: Route | None) -> Begun:
        terms = Terms(
            first_token_timeout_s=(route or Route(stable="")).first_token_timeout_s,
            hedged=prompt.origin.tenant != FLEET,
        )
        others = () if prompt.pinned else self.catalogue.instead_of(version, prompt.origin)
        return await self.fallbacks.begin(version, others, prompt, terms)

    async def _parts(self, begun: Begun, prompt: Prompt) -> AsyncGenerator[Generated]:
        """Counts as it goes; `running` is one less when it ends."""
        id, broke_off = begun.version.id, False
        try:
            async with aclosing(begun.parts()) as parts:
                async for part in parts:
                    yield self._finished(begun, prompt, part) if isinstance(part, Finished) else part
        except FlotillaError as error:
            broke_off = True
            raise self._broken_off(begun, prompt, error) from error
        finally:
            (self.counts.broken_off if broke_off else self.counts.left)(id)

    def _finished(self, begun: Begun, prompt: Prompt, end: Finished) -> Finished:
        """Counted, and with the version that made it: the replica knows best, if it was reloaded meanwhile."""
        usage, tokens = end.usage, end.usage.completion_tokens
        first_ms = 1000 * (begun.first_at - begun.asked_at)
        seconds = self._clock.monotonic() - begun.asked_at
        self.counts.of(begun.version.id).reply(first_ms, tokens, seconds, usage.prompt_tokens)
        if begun.attempt.member is not None:
            self.balance.answered(begun.attempt.member, prompt, tokens)
        return msgspec.structs.replace(end, model=end.model or begun.version.id)

    def _broken_off(self, begun: Begun, prompt: Prompt, error: FlotillaError) -> Unavailable:
        self.replies.lost(begun, error)
        self._elsewhere[_reply_of(prompt)] = begun.made_by
        if len(self._elsewhere) > BROKEN_OFF_KEPT:
            self._elsewhere.popitem(last=False)
        if isinstance(error, Unavailable):
            return error
        return Unavailable(f"A reply broke off: {error.detail}", retry_after_s=AGAIN_S)

    # -- keeping up

    async def run(self) -> None:
        """Until cancelled. Reads the plans and hangs up the tallies twice a second, not all processes at
        once."""
        while True:
            await self.refresh()
            await self._clock.sleep(REFRESH_EVERY_S * self._random.uniform(0.8, 1.2))

    async def refresh(self) -> None:
        """While a board is down the last plans hold; the tallies are sums, so none is lost."""
        try:
            self.catalogue.take(await self._board.plans())
            self._back("plans")
        except FlotillaError as error:
            self._gone("plans", error)
        self._look()
        try:
            await self._tallies.post(self._process, self.counts.tallies)
            self._back("tallies")
        except FlotillaError as error:
            self._gone("tallies", error)

    def _look(self) -> None:
        versions = list(self.catalogue)
        self.fallbacks.look(versions)
        self.counts.held(self.holding.counted())
        self.counts.prune({version.id for version in versions})
        self.balance.prune()

    def _gone(self, what: str, error: FlotillaError) -> None:
        """Said once, and not twice a second."""
        if what not in self._down:
            self._down.add(what)
            self._log.warning(f"{what}.stale", reason=error.detail)

    def _back(self, what: str) -> None:
        if what in self._down:
            self._down.remove(what)
            self._log.info(f"{what}.back")


def _nobody_asks(queue: str, seconds: float) -> None:
    """How long something stood in a queue."""


def _reply_of(prompt: Prompt) -> str:
    """A client may ask for several at once in one conversation, of other models too."""
    return f"{key_of(prompt)}\0{prompt.model}\0{prompt.seed}"
