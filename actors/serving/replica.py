"""The answering end of a replica: one engine, one version at a time (`weights`), many streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from actors import frames
from actors.serving import bodies
from actors.serving.apart import apart
from actors.serving.door import Door
from actors.serving.meters import Making, Meters
from actors.serving.weights import IN_PLACE_WAIT_S, RETRY_AFTER_S, Fetch, Weights
from flotilla.core.clock import Clock
from flotilla.core.errors import AdapterMissing, NotFound, OtherVersion, Unavailable
from flotilla.core.generation import EngineLoad, Generated, Prompt
from flotilla.core.members import MemberState
from flotilla.core.ports import Engine
from flotilla.core.versions import Version

# An engine that reloads for longer is lost, and its process ends.
RELOAD_MAX_S = 600.0


class Replica:
    def __init__(
        self,
        engine: Engine,
        version: Version,
        fetch: Fetch,
        clock: Clock,
        log: Any,
        *,
        door: Door | None = None,
        in_place_wait_s: float = IN_PLACE_WAIT_S,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._log = log
        self._door = door or Door(clock)
        self.weights = Weights(engine, version, fetch, self._door, log, in_place_wait_s=in_place_wait_s)
        self._meters = Meters()
        self._making = 0
        self._draining = False

    def __repr__(self) -> str:
        state = "draining" if self._draining else "up"
        return f"<Replica of {self.version.id}, {state}: {self._making} being made, {self._door!r}>"

    @property
    def version(self) -> Version:
        """What it serves now."""
        return self.weights.version

    # -- what it says of itself

    def info(self) -> dict[str, str]:
        """For its member of the directory, at each beat: what it serves now."""
        return {"version": self.version.id, "name": self._engine.name}

    def report(self) -> tuple[MemberState, dict[str, float]]:
        load = self.load()
        figures = msgspec.structs.asdict(load)
        del figures["adapters"]
        figures |= {f"adapter:{id}": 1.0 for id in load.adapters}
        if self._door.closed_at is not None:
            figures["reloading"] = 1.0
        return ("draining" if self._draining else "up"), figures

    def load(self) -> EngineLoad:
        """The engine's; also those that wait at the door, and those whose last words are still to leave."""
        load = self._engine.load()
        running = max(load.running, self._making - load.waiting)
        waiting = load.waiting + self._door.waiting
        return msgspec.structs.replace(load, running=running, waiting=waiting)

    # -- answering

    async def handle(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """The handler of its listener."""
        if method == "generate":
            prompt = bodies.prompt(body)
            made = self.generate(prompt)
            async with aclosing(
                apart(made, prompt.apart_s, self._clock) if prompt.apart_s else made
            ) as parts:
                async for part in parts:
                    yield frames.encode(part)
        else:
            yield await self._do(method, body)

    async def _do(self, method: str, body: bytes) -> bytes:
        match method:
            case "ping":
                await self.ping()
            case "metrics":
                return frames.encode(self._meters.said(self.version.id, self.load()))
            case "load_adapter":
                await self.weights.load_adapter(bodies.version(body))
            case "unload_adapter":
                await self.weights.unload_adapter(bodies.id(body))
            case "reload":
                await self.weights.reload(bodies.version(body))
            case "drain":
                return frames.encode(self.drain())
            case _:
                raise NotFound(f"A replica has no method {method!r}.")
        return b""

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`; the first piece and the end say which version made it. Nothing has been generated
        if it raises `OtherVersion` or `AdapterMissing`."""
        expected = self._accept(prompt)
        async with self._door.entered():
            self._check(prompt, expected)
            made = Making(self._meters.of(self.version.id), by=prompt.adapter or self.version.id)
            self._making += 1
            try:
                async with aclosing(self._engine.generate(prompt)) as parts:
                    async for part in parts:
                        yield made.counted(part)
            finally:
                self._making -= 1

    def _accept(self, prompt: Prompt) -> str:
        """The version that the prompt may be made by, as far as can be told before the door."""
        if self._draining:
            raise OtherVersion(f"A replica of {self.version.id} is leaving.", retry_after_s=RETRY_AFTER_S)
        if not self.weights.coming or prompt.model != self.weights.coming:
            self._check(prompt, self.version.id)
        return self.version.id

    def _check(self, prompt: Prompt, expected: str) -> None:
        """A reply that nobody has seen anything of may be made by the version that has come since."""
        if self.version.id not in (expected, prompt.model):
            if prompt.said or prompt.pinned or prompt.adapter:
                raise self.weights.other(expected)
        elif prompt.model not in ("", self.version.model, self.version.id, prompt.adapter):
            raise self.weights.other(prompt.model)
        if prompt.adapter and not self.weights.has(prompt.adapter):
            said = f"The adapter {prompt.adapter} is not loaded here."
            raise AdapterMissing(said, next="Have it loaded.", retry_after_s=RETRY_AFTER_S)

    # -- health

    async def warm(self) -> None:
        """One token, so that whoever comes first does not wait for what an engine does only once. To be
        called before the replica is said to be up. Raises what the engine raises."""
        await self.weights.warm()

    async def ping(self) -> None:
        """Returns if the engine makes tokens, or is being reloaded. Raises `Unavailable` otherwise."""
        if lost := self.weights.lost:
            raise Unavailable(lost, next="Its process is started again.", retry_after_s=30.0)
        if (since := self._door.closed_at) is None:
            async with self._door.entered():
                return await self._engine.ping()
        if self._clock.monotonic() - since > RELOAD_MAX_S:
            raise Unavailable(f"The weights did not load in {RELOAD_MAX_S:g} s.", retry_after_s=30.0)
        return None

    # -- leaving

    def drain(self) -> int:
        """Takes nothing new from now on; what is being made is finished. How many replies that is."""
        if not self._draining:
            self._draining = True
            self._log.info("replica.draining", version=self.version.id, running=self._making)
        return self._making + self._door.waiting
