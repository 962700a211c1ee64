"""The world's side of an agent: searches, generates and calls tools, and is patient about it.

A module with agents brings them home with one line: `residents = at_home(Router, Clerk, tools=…)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

import msgspec

from actors import tracing
from actors.doorways import Doorways
from actors.performer import Activation, Performer
from actors.runtime import Resident
from actors.serving.bills import Bills
from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Signal, Step, Work
from flotilla.core.errors import FlotillaError, TooLarge, Unavailable
from flotilla.core.flow import Agent
from flotilla.core.flow_facts import Came, LetGo, Perform, Redo
from flotilla.core.generation import Finished, Prompt
from flotilla.core.ids import ActorId
from flotilla.core.journal import Letter, Stored
from flotilla.core.ledger import Recorded
from flotilla.core.policy import stepping
from flotilla.core.policy.breaker import Breaker, BreakerSettings
from flotilla.core.policy.retry import Patience, passes, pause_after, pauses
from flotilla.core.ports import Knowledge, Letters, ModelDoor
from flotilla.core.tools import Tool, Toolbox, check
from flotilla.core.wants import CallTool, Generate, Hits, Search, Text, Value

T = TypeVar("T")

RESULT_BYTES_MAX = 64 * 1024
GIVEN_UP = Unavailable("The call was given up with its task before it was made.").problem()
UNKNOWN = Unavailable(
    "Whether the call was made is unknown: its host was lost, and the tool takes no keys.",
    next="Look at the other side before you call it again.",
).problem()


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    search: Patience = Patience(most_s=30.0)
    model: Patience = Patience(most_s=120.0)
    tool: Patience = Patience(first_s=0.2, longest_s=10.0, most_s=60.0)
    letter: Patience = Patience(most_s=60.0)
    attempt_s: float = 30.0  # of one call of a tool
    breaker: BreakerSettings = BreakerSettings()


def at_home(*kinds: type[Agent], tools: Iterable[Tool] = ()) -> Callable[[Doorways], list[Resident]]:
    """What a module of kinds calls `residents`: these agents, with one performer for all of them."""
    toolbox = Toolbox(tools)

    def residents(doors: Doorways) -> list[Resident]:
        performer = AgentPerformer(
            knowledge=doors.knowledge,
            model=doors.model,
            toolbox=toolbox,
            letters=doors.letters,
            clock=doors.clock,
            log=doors.log,
            random=Random(),
            bills=doors.bills,
        )
        return [Resident(kind, performer) for kind in kinds]

    return residents


class AgentPerformer(Performer):
    """For every kind of agent of a host: breakers are shared by all."""

    def __init__(
        self,
        *,
        knowledge: Knowledge,
        model: ModelDoor,
        toolbox: Toolbox,
        letters: Letters,
        clock: Clock,
        log: Any,
        random: Random,
        settings: AgentSettings | None = None,
        bills: Bills | None = None,
    ) -> None:
        self._knowledge = knowledge
        self._model = model
        self._toolbox = toolbox
        self._letters = letters
        self._clock = clock
        self._log = log
        self._random = random
        self._settings = settings or AgentSettings()
        self._bills = bills
        self._breakers: dict[str, Breaker] = {}
        self._last: dict[tuple[ActorId, str], asyncio.Event] = {}

    def prepare(self, at: Activation, entries: Sequence[Stored]) -> None:
        self._hold(at)

    def recorded(self, at: Activation, recorded: Recorded) -> None:
        self._hold(at)

    def _hold(self, at: Activation, *more: str) -> None:
        """What its tasks go on with, as the record says, and `more`, which the record is about to say."""
        self._model.hold(at, stepping.versions(at.actor.tasks.values()).union(more))

    async def step(self, at: Activation, effect: Step) -> None:
        assert isinstance(effect, LetGo)
        if last := self._last.get((at.id, effect.step)):
            last.set()

    async def work(self, at: Activation, effect: Work, call: Call) -> AsyncGenerator[Signal]:
        """One `Came`, whatever happens."""
        assert isinstance(effect, Perform)
        try:
            yield await self._perform(at, effect, call)
        except FlotillaError as error:
            yield Came(step=effect.step, problem=error.problem())
        except Exception as error:
            self._log.error("step.broke", actor=str(at.id), step=effect.step, exc_info=error)
            yield _broken(effect, error)

    def broke(self, at: Activation, effect: Work, error: FlotillaError) -> Signal | None:
        assert isinstance(effect, Perform)
        return Came(step=effect.step, problem=error.problem())

    async def _perform(self, at: Activation, effect: Perform, call: Call) -> Came:
        match effect.want:
            case Search() as want:
                found = await self._search(at.id.tenant, want, call)
                return Came(step=effect.step, outcome=found)
            case Generate(prompt=prompt):
                text = await self._generate(prompt, call)
                self._charge(at.id, effect.step, text)
                if text.model:
                    self._hold(at, text.model)
                return Came(step=effect.step, outcome=text)
            case CallTool() as want:
                return await self._use(at.id, effect, want, call)

    # -- knowledge and model

    async def _search(self, tenant: str, want: Search, call: Call) -> Hits:
        async def search() -> Hits:
            hits = await self._knowledge.search(tenant, want.collection, want.query, limit=want.limit)
            return Hits(hits)

        return await self._patiently(search, self._settings.search, call, asyncio.Event())

    async def _generate(self, prompt: Prompt, call: Call) -> Text:
        """A replica that is lost is followed by another, which goes on from the text so far."""
        said = [prompt.said]

        async def go_on() -> Finished:
            asked = msgspec.structs.replace(prompt, said="".join(said))
            async with aclosing(self._model.generate(asked)) as parts:
                async for part in parts:
                    if isinstance(part, Finished):
                        return part
                    said.append(part.text)
            raise FlotillaError(f"The model {self._model.name} ended a reply without saying so.")

        end = await self._patiently(go_on, self._settings.model, call, asyncio.Event())
        tracing.generated(prompt.model, end)
        return Text("".join(said), end.usage, end.model)

    def _charge(self, id: ActorId, step: str, text: Text) -> None:
        if self._bills is not None and text.model:
            key = f"{id.key}:{step}"
            self._bills.charge(id.tenant, key, source="agent", model=text.model, usage=text.usage)

    # -- tools

    async def _use(self, id: ActorId, effect: Perform, want: CallTool, call: Call) -> Came:
        tool = self._toolbox.find(want.name)
        check(tool, want.args)
        if effect.last and not tool.keyed:
            return Came(step=effect.step, problem=UNKNOWN)
        last = self._last[id, effect.step] = asyncio.Event()
        if effect.last:
            last.set()
        tries = _Tries()
        try:
            attempt = self._attempt(tool, want, effect.idempotency_key, tries)
            value = await self._patiently(attempt, self._settings.tool, call, last)
            return Came(step=effect.step, outcome=Value(value))
        except FlotillaError as error:
            return await self._given_up(id, effect, error, tries, last)
        finally:
            self._last.pop((id, effect.step), None)

    async def _given_up(
        self, id: ActorId, effect: Perform, error: FlotillaError, tries: _Tries, last: asyncio.Event
    ) -> Came:
        """What nobody waits for any more is let go, if it can be made again without harm. What is still
        wanted is put where an operator finds it."""
        assert isinstance(effect.want, CallTool)
        if passes(error) and not last.is_set():
            await self._put_letter(id, effect.idempotency_key, effect.want, error, tries)
        if not passes(error) or not last.is_set():
            return Came(step=effect.step, problem=error.problem())
        safe = not tries.count or self._toolbox.find(effect.want.name).keyed
        problem = error.problem() if tries.count else GIVEN_UP
        return Came(step=effect.step, problem=problem, let_go=safe)

    def _attempt(self, tool: Tool, want: CallTool, key: str, tries: _Tries) -> Callable[[], Awaitable[Any]]:
        breaker = self._breakers.setdefault(tool.name, Breaker(tool.name, self._settings.breaker))

        async def attempt() -> Any:
            breaker.admit(self._clock.monotonic())
            tries.count += 1
            try:
                async with asyncio.timeout(self._settings.attempt_s):
                    value = _as_json(await tool.call(want.args, key))
            except TimeoutError:
                breaker.note(self._clock.monotonic(), False)
                raise Unavailable(f"The tool {tool.name} does not answer.") from None
            except FlotillaError as error:
                breaker.note(self._clock.monotonic(), not passes(error))
                raise
            breaker.note(self._clock.monotonic(), True)
            return value

        return attempt

    async def _put_letter(
        self, id: ActorId, key: str, want: CallTool, error: FlotillaError, tries: _Tries
    ) -> None:
        """Before the outcome is recorded: a letter too many is harmless, its call has the same key."""
        letter = Letter(
            id="l_" + blake2b(key.encode(), digest_size=12).hexdigest(),
            actor=id,
            at=self._clock.now(),
            message=msgspec.msgpack.encode(Redo(key=key, call=want)),
            problem=str(error),
            tries=tries.count,
        )
        self._log.warning("tool.given_up", actor=str(id), tool=want.name, letter=letter.id)
        try:
            patience = self._settings.letter
            await self._patiently(lambda: self._letters.put(letter), patience, Call(), asyncio.Event())
        except FlotillaError as broken:  # the outcome that is recorded says as much
            self._log.error("letter.lost", actor=str(id), letter=letter.id, reason=broken.detail)

    # -- patience

    async def _patiently(
        self, attempt: Callable[[], Awaitable[T]], patience: Patience, call: Call, last: asyncio.Event
    ) -> T:
        """Tries until it succeeds, fails for good, or patience, the caller's time or `last` ends it: then
        raises what the last try did."""
        begun = self._clock.monotonic()
        most_s = patience.most_s if call.left_s is None else min(patience.most_s, call.left_s)
        for pause_s in pauses(patience, self._random):
            try:
                return await attempt()
            except FlotillaError as error:
                wait_s = pause_after(error, pause_s)
                late = self._clock.monotonic() - begun + wait_s > most_s
                if late or last.is_set() or not passes(error):
                    raise
                await self._pause(wait_s, last)
                if last.is_set():
                    raise
        return await attempt()

    async def _pause(self, seconds: float, last: asyncio.Event) -> None:
        waiting = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(last.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()


class _Tries:
    count = 0


def _as_json(value: Any) -> Any:
    """As the record will give it back, so that a plan that is run again sees the same."""
    body = msgspec.json.encode(value)
    if len(body) > RESULT_BYTES_MAX:
        raise TooLarge(f"The tool gave {len(body)} bytes; {RESULT_BYTES_MAX} are the most.")
    return msgspec.json.decode(body)


def _broken(effect: Perform, error: Exception) -> Came:
    problem = FlotillaError(f"{effect.want.what} broke with a {type(error).__name__}.").problem()
    return Came(step=effect.step, problem=problem)
