"""The answering end of a replica: one engine, one version at a time, many streams.

The version can be swapped in place: new requests wait at the door, those that run finish, the weights are
reloaded and tried, and the door opens again, with the old weights if the new ones were no good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from actors import frames
from actors.serving import bodies
from actors.serving.apart import apart
from actors.serving.door import Door
from actors.serving.meters import Meters
from flotilla.core.clock import Clock
from flotilla.core.errors import (
    AdapterMissing,
    Conflict,
    FlotillaError,
    Misconfigured,
    NotFound,
    OtherVersion,
    Refused,
    Unavailable,
)
from flotilla.core.generation import ChatMessage, EngineLoad, Finished, Generated, Prompt
from flotilla.core.members import MemberState
from flotilla.core.ports import Engine
from flotilla.core.versions import Version

ONE_TOKEN = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=1)
# How long a swap in place waits for the replies that are being made.
IN_PLACE_WAIT_S = 20.0
# An engine that reloads for longer is lost, and its process ends.
RELOAD_MAX_S = 600.0
RETRY_AFTER_S = 0.5

Fetch = Callable[[str, str], Awaitable[str]]
"""Source and checksum in, the folder of the weights out. Raises `Misconfigured` or `Unavailable`."""


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
        self._fetch = fetch
        self._clock = clock
        self._log = log
        self._door = door or Door(clock)
        self._in_place_wait_s = in_place_wait_s
        self._making = 0
        self._draining = False
        self._lost = ""
        self._changing = asyncio.Lock()
        self._reload: tuple[str, asyncio.Task[None]] | None = None
        self._meters = Meters()
        self.version = version

    def __repr__(self) -> str:
        state = "draining" if self._draining else "up"
        return f"<Replica of {self.version.id}, {state}: {self._making} being made, {self._door!r}>"

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
                await self.load_adapter(bodies.version(body))
            case "unload_adapter":
                await self.unload_adapter(bodies.id(body))
            case "reload":
                await self.reload(bodies.version(body))
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
            made_by, meter, told = prompt.adapter or self.version.id, self._meters.of(self.version.id), 0
            self._making += 1
            try:
                async with aclosing(self._engine.generate(prompt)) as parts:
                    async for part in parts:
                        if isinstance(part, Finished):
                            part = msgspec.structs.replace(part, model=made_by)  # noqa: PLW2901
                            meter.finished(part, told)
                        else:
                            part = part if told else msgspec.structs.replace(part, model=made_by)  # noqa: PLW2901
                            told += part.tokens
                            meter.generated_tokens += part.tokens
                        yield part
            finally:
                self._making -= 1

    def _accept(self, prompt: Prompt) -> str:
        """The version that the prompt may be made by, as far as can be told before the door."""
        if self._draining:
            raise OtherVersion(f"A replica of {self.version.id} is leaving.", retry_after_s=RETRY_AFTER_S)
        if self._reload is None or prompt.model != self._reload[0]:
            self._check(prompt, self.version.id)
        return self.version.id

    def _check(self, prompt: Prompt, expected: str) -> None:
        """A reply that nobody has seen anything of may be made by the version that has come since."""
        if self.version.id not in (expected, prompt.model):
            if prompt.said or prompt.pinned or prompt.adapter:
                raise self._other(expected)
        elif prompt.model not in ("", self.version.model, self.version.id, prompt.adapter):
            raise self._other(prompt.model)
        if prompt.adapter and not self._has(prompt.adapter):
            said = f"The adapter {prompt.adapter} is not loaded here."
            raise AdapterMissing(said, next="Have it loaded.", retry_after_s=RETRY_AFTER_S)

    def _has(self, adapter: str) -> bool:
        return adapter in self._engine.load().adapters

    def _other(self, wanted: str) -> OtherVersion:
        said = f"This replica serves {self.version.id}, not {wanted}."
        return OtherVersion(
            said, next="Ask another one.", retry_after_s=RETRY_AFTER_S, instead=self.version.id
        )

    # -- health

    async def warm(self) -> None:
        """One token, so that whoever comes first does not wait for what an engine does only once. To be
        called before the replica is said to be up. Raises what the engine raises."""
        async with aclosing(self._engine.generate(ONE_TOKEN)) as parts:
            async for _ in parts:
                pass

    async def ping(self) -> None:
        """Returns if the engine makes tokens, or is being reloaded. Raises `Unavailable` otherwise."""
        if self._lost:
            raise Unavailable(self._lost, next="Its process is started again.", retry_after_s=30.0)
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

    # -- adapters

    async def load_adapter(self, version: Version) -> None:
        """Raises `Misconfigured` (field `adapter`) for one that doesn't fit this base, `OtherVersion` for one
        of another base."""
        if not version.adapter:
            raise Refused(f"{version.id} is no adapter.", field="adapter", next="Load it as a version.")
        if self._has(version.id):
            return
        self._check_base(version)
        folder = await self._fetch(version.adapter, version.checksum)
        async with self._changing:
            self._check_base(version)
            await self._engine.load_adapter(version.id, folder)

    def _check_base(self, version: Version) -> None:
        if version.base != self.version.id:
            raise self._other(version.base)

    async def unload_adapter(self, id: str) -> None:
        async with self._changing:
            await self._engine.unload_adapter(id)

    async def _unload_all(self) -> None:
        """They were made for other weights. One that stays is asked for by nobody."""
        for id in self._engine.load().adapters:
            try:
                await self._engine.unload_adapter(id)
            except FlotillaError as error:
                self._log.warning("adapter.stays", adapter=id, reason=error.detail)

    # -- other weights

    async def reload(self, version: Version) -> None:
        """Serves `version` from now on. Who asks for the same while it is under way waits for the same; a
        caller that leaves does not end it.

        Raises `Misconfigured` or `Unsupported` with the old version serving on, `Unavailable` if those that
        run take too long, `Conflict` if another is on the way."""
        if self._reload is not None:
            coming, task = self._reload
            if coming != version.id:
                raise Conflict(f"This replica is being reloaded with {coming}.", retry_after_s=5.0)
            return await asyncio.shield(task)
        if version.id == self.version.id:
            return None
        self._check_fits(version)
        task = asyncio.get_running_loop().create_task(self._reloaded(version))
        self._reload = version.id, task
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._reload = None
        if not task.cancelled() and (error := task.exception()):
            self._log.warning("replica.not_reloaded", version=self.version.id, reason=str(error))

    def _check_fits(self, version: Version) -> None:
        mine = self.version
        if version.adapter:
            raise Refused(f"{version.id} is an adapter.", field="adapter", next="Load it as one.")
        if (version.model, version.engine) != (mine.model, mine.engine):
            said = f"{version.id} ({version.engine}) can't take the place of {mine.id} ({mine.engine})."
            raise Misconfigured(said, field="engine", next="Start replicas of their own for it.")

    async def _reloaded(self, version: Version) -> None:
        folder = await self._folder(version)  # before the door is closed: it may take minutes
        async with self._changing:
            await self._door.close(self._in_place_wait_s)
            try:
                await self._swap(version, folder)
            finally:
                self._door.open()

    async def _swap(self, version: Version, folder: str) -> None:
        old = self.version
        await self._unload_all()
        await self._engine.reload(folder, version.id)
        try:
            await self.warm()
        except Exception as error:
            await self._back_to(old, error)
            raise
        self.version = version
        self._log.info("replica.reloaded", version=version.id, was=old.id)

    async def _back_to(self, old: Version, error: Exception) -> None:
        """The new weights loaded, and make no token."""
        try:
            await self._engine.reload(await self._folder(old), old.id)
            await self.warm()
        except Exception:
            self._lost = f"Neither the new weights nor those of {old.id} make a token ({error})."
            raise

    async def _folder(self, version: Version) -> str:
        return await self._fetch(version.source, version.checksum) if version.source else ""
