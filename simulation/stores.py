"""Stores across a network: slow, out of order for a while, or silent about what they did.

A store lives in a process of its own, so a write that has left its sender takes effect although the
sender is killed, or stopped, in the meantime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.journal import Append
from flotilla.core.members import Member
from flotilla.stores.memory import MemoryDirectory
from simulation.loop import SimLoop
from simulation.network import Network
from simulation.process import Process

PATIENCE_S = 1.0  # of a client whose request or answer is lost
KEPT_S = 3.0  # how long the directory keeps a beat


class Mood(msgspec.Struct, kw_only=True):
    """How a store is at the moment: seconds, and chances from 0 to 1."""

    latency_s: tuple[float, float] = (0.0001, 0.001)
    refuses: float = 0.0  # says no, and has done nothing
    forgets: float = 0.0  # does it, and its answer is lost
    down: bool = False


# What a trace shows.
WRITES = frozenset({"append", "seal", "put", "pay", "start", "stop"})


def _told(request: _Request, outcome: Any) -> str:
    args = request.args
    said = f"{request.name} {' '.join(map(str, args[:3]))}"
    if args and isinstance(args[0], Append):
        types = ", ".join(entry.type for entry in args[0].entries)
        said = f"append {args[0].actor} {args[0].expected + 1}: {types}{' (unfinished)' * args[0].unfinished}"
    return f"{said} → {outcome}" if isinstance(outcome, FlotillaError) else said


class Trap:
    """Springs at the `nth` call of `method` whose arguments fit: `spring` gets the caller's name. `after`: once
    it is done."""

    def __init__(
        self,
        method: str,
        nth: int,
        after: bool,
        spring: Callable[[str], None],
        fits: Callable[[tuple[Any, ...]], bool] = lambda _: True,
    ) -> None:
        self.method = method
        self.nth = nth
        self.after = after
        self.spring = spring
        self.fits = fits

    def heard(self, request: _Request, after: bool) -> None:
        if after == self.after and request.name == self.method and self.fits(request.args):
            self.nth -= 1
            if self.nth == 0:
                self.spring(request.caller.name)


class Store:
    """One store of the world: what it holds, how it is, and the ways that lead to it."""

    def __init__(self, loop: SimLoop, network: Network, process: Process, inner: Any) -> None:
        self.inner = inner
        self.mood = Mood()
        self.traps: list[Trap] = []
        self.say: Callable[[str, str], None] | None = None
        self._loop = loop
        self._network = network
        self._process = process

    def seen_from(self, process: Process) -> Any:
        """The port, as a process sees it."""
        return _Way(self, process)

    def call(self, caller: Process, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A future of the method's result."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        request = _Request(name, args, named, answer, caller)
        self._loop.call_at(self._arrival(), self._arrived, request, context=self._process.context)
        return answer

    def _arrival(self) -> float:
        low, high = self.mood.latency_s
        return self._loop.time() + low + (high - low) * self._loop.chance.random()

    def _arrived(self, request: _Request) -> None:
        """Runs in the store's process."""
        chance = self._loop.chance.random
        if self._network.is_cut(request.caller, self._process):
            return self._answer(request, _silent(request.name), PATIENCE_S)
        if self.mood.down or chance() < self.mood.refuses:
            return self._answer(request, _down(request.name))
        self._hear(request, after=False)
        outcome = self._perform(request)
        self._hear(request, after=True)
        if self.say is not None and request.name in WRITES:
            self.say(request.caller.name, _told(request, outcome))
        if chance() < self.mood.forgets or self._network.is_cut(request.caller, self._process):
            return self._answer(request, _silent(request.name), PATIENCE_S)
        return self._answer(request, outcome)

    def _hear(self, request: _Request, *, after: bool) -> None:
        for trap in self.traps:
            trap.heard(request, after)

    def _perform(self, request: _Request) -> Any:
        """What the method returns or raises. The stores in memory never wait, so one push is enough."""
        work = getattr(self.inner, request.name)(*request.args, **request.named)
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        except FlotillaError as error:
            return error
        raise AssertionError(f"{request.name} of {self.inner} waited.")

    def _answer(self, request: _Request, outcome: Any, after_s: float = 0.0) -> None:
        self._loop.call_at(
            self._arrival() + after_s, _settle, request.answer, outcome, context=request.caller.context
        )


class _Request(msgspec.Struct, frozen=True):
    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]
    answer: asyncio.Future[Any]
    caller: Process


def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, FlotillaError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _down(name: str) -> Unavailable:
    return Unavailable(f"The store is down: {name}.", retry_after_s=0.1)


def _silent(name: str) -> Unavailable:
    return Unavailable(f"The store doesn't say what became of {name}.", retry_after_s=0.1)


class _Way:
    """A port, whichever it is: its methods are those of the store behind."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return self._store.call(self._process, name, args, named)

        setattr(self, name, call)
        return call


class BeatingDirectory(MemoryDirectory):
    """A directory that forgets who does not beat."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self._loop = loop
        self._beaten: dict[tuple[str, str], float] = {}

    async def beat(self, member: Member) -> None:
        self._beaten[member.role, member.name] = self._loop.time()
        await super().beat(member)

    async def members(self, role: str) -> list[Member]:
        oldest = self._loop.time() - KEPT_S
        found = await super().members(role)
        return [m for m in found if self._beaten.get((m.role, m.name), 0.0) > oldest]
