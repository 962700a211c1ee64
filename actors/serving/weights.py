"""What a replica has loaded: the weights of one version, the adapters to them, and how others take their place.

The version can be swapped in place: new requests wait at the door, those that run finish, the weights are
reloaded and tried, and the door opens again, with the old weights if the new ones were no good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from actors.serving.door import Door
from flotilla.core.errors import Conflict, FlotillaError, Misconfigured, OtherVersion, Refused
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.ports import Engine
from flotilla.core.versions import Version

ONE_TOKEN = Prompt(messages=(ChatMessage(role="user", text="Hi"),), tokens_max=1)
# How long a swap in place waits for the replies that are being made.
IN_PLACE_WAIT_S = 20.0
RETRY_AFTER_S = 0.5

Fetch = Callable[[str, str], Awaitable[str]]
"""Source and checksum in, the folder of the weights out. Raises `Misconfigured` or `Unavailable`."""


class Weights:
    """`version` is what is served now; `lost` says why nothing can be any more, "" as long as it can."""

    def __init__(
        self,
        engine: Engine,
        version: Version,
        fetch: Fetch,
        door: Door,
        log: Any,
        *,
        in_place_wait_s: float = IN_PLACE_WAIT_S,
    ) -> None:
        self._engine = engine
        self._fetch = fetch
        self._door = door
        self._log = log
        self._in_place_wait_s = in_place_wait_s
        self._changing = asyncio.Lock()
        self._reload: tuple[str, asyncio.Task[None]] | None = None
        self.version = version
        self.lost = ""

    def __repr__(self) -> str:
        return f"<Weights of {self.version.id}, {self.coming or 'nothing'} coming>"

    @property
    def coming(self) -> str:
        """The id of the version that is being loaded in place of this one, "" if none is."""
        return self._reload[0] if self._reload is not None else ""

    def other(self, wanted: str) -> OtherVersion:
        said = f"This replica serves {self.version.id}, not {wanted}."
        return OtherVersion(
            said, next="Ask another one.", retry_after_s=RETRY_AFTER_S, instead=self.version.id
        )

    async def warm(self) -> None:
        """Has one token made. Raises what the engine raises."""
        async with aclosing(self._engine.generate(ONE_TOKEN)) as parts:
            async for _ in parts:
                pass

    # -- adapters

    def has(self, adapter: str) -> bool:
        return adapter in self._engine.load().adapters

    async def load_adapter(self, version: Version) -> None:
        """Raises `Misconfigured` (field `adapter`) for one that doesn't fit this base, `OtherVersion` for one
        of another base."""
        if not version.adapter:
            raise Refused(f"{version.id} is no adapter.", field="adapter", next="Load it as a version.")
        if self.has(version.id):
            return
        self._check_base(version)
        folder = await self._fetch(version.adapter, version.checksum)
        async with self._changing:
            self._check_base(version)
            await self._engine.load_adapter(version.id, folder)

    def _check_base(self, version: Version) -> None:
        if version.base != self.version.id:
            raise self.other(version.base)

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
            self.lost = f"Neither the new weights nor those of {old.id} make a token ({error})."
            raise

    async def _folder(self, version: Version) -> str:
        return await self._fetch(version.source, version.checksum) if version.source else ""
