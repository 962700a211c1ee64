"""Folders of weights that came from elsewhere: each whole or not at all, brought once, checked when used."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from flotilla.core.errors import Misconfigured, Unavailable
from models.checksums import checksum_of
from models.inspection import check_folder
from models.remote import Listing, Remote

SPACE_LEFT_MIN = 64 << 20  # what a disk keeps free behind a fetched model
LOCK_POLL_S = 0.2

Progress = Callable[[float], None]


async def verify(folder: Path, checksum: str, cache: Path, uri: str) -> None:
    """That the folder is whole, and is what it should be."""
    await asyncio.to_thread(check_folder, folder)
    if not checksum:
        return
    found = await asyncio.to_thread(checksum_of, folder, cache)
    if found != checksum:
        raise Misconfigured(
            f"The weights at {uri} are not those of the version: their checksum is {found}, it should be "
            f"{checksum}.",
            field="checksum",
            next="Restore those weights, or add a new version with the checksum that they have now.",
        )


class Cached:
    """A model of somewhere else, and its folder in the cache.

    `NAME-KEY` is the folder; `.partial` what is on its way, `.lock` the lock of whoever brings it. The key
    stands for the address and the checksum; without one for the files as they are listed, and `.last`
    remembers which folder that was, for when the remote can't be asked.
    """

    def __init__(self, uri: str, checksum: str, remote: Remote, folders: Path, progress: Progress) -> None:
        self._uri, self._checksum, self._remote = uri, checksum, remote
        self._folders, self._progress = folders, progress
        self._cache = folders.parent
        self._slug = re.sub(r"[^A-Za-z0-9.\-]+", "-", uri.rstrip("/").rpartition("/")[2])[:64]

    async def folder(self) -> Path:
        self._make_room_for_names()
        known = self._checksum or self._remote.pinned
        if known and await self._is_whole(self._named(known)):
            return self._named(known)
        try:
            listing = await self._remote.listing()
        except Unavailable:
            if not known and (last := self._last()) and await self._is_whole(last):
                return last
            raise
        return await self._bring_once(listing, self._named(known or listing.tag))

    def _make_room_for_names(self) -> None:
        try:
            self._folders.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_problem(error, self._folders) from error

    def _named(self, key: str) -> Path:
        digest = hashlib.sha256(f"{self._uri}\n{key}".encode()).hexdigest()
        return self._folders / f"{self._slug}-{digest[:16]}"

    @property
    def _note(self) -> Path:
        return self._folders / f"{self._slug}-{hashlib.sha256(self._uri.encode()).hexdigest()[:16]}.last"

    def _last(self) -> Path | None:
        try:
            return self._folders / self._note.read_text(encoding="utf-8")
        except OSError:
            return None

    async def _is_whole(self, folder: Path) -> bool:
        """False also for one that somebody has spoilt since: it is fetched again."""
        try:
            await verify(folder, self._checksum, self._cache, self._uri)
        except Misconfigured:
            return False
        return True

    async def _bring_once(self, listing: Listing, folder: Path) -> Path:
        self._check_listing(listing)
        try:
            async with _locked(folder.with_name(folder.name + ".lock")):
                if not await self._is_whole(folder):
                    await self._bring(listing, folder)
        except OSError as error:
            raise disk_problem(error, self._folders) from error
        self._remember(folder)
        return folder

    def _remember(self, folder: Path) -> None:
        note = self._note.with_name(f"{self._note.name}.{os.getpid()}")
        with suppress(OSError):  # it is for bad times only
            note.write_text(folder.name, encoding="utf-8")
            note.rename(self._note)

    def _check_listing(self, listing: Listing) -> None:
        names = [file.name for file in listing.files]
        if any(name.endswith(".safetensors") for name in names):
            return
        found = f"only {', '.join(names[:5])}" if names else "no file of a model"
        raise Misconfigured(
            f"There are no weights at {self._uri}: {found}.",
            field="source",
            next="Name the folder that holds config.json and *.safetensors.",
        )

    async def _bring(self, listing: Listing, folder: Path) -> None:
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(exist_ok=True)
        self._check_space(listing, partial)
        came = 0

        def count(more: int) -> None:
            nonlocal came
            came += more
            self._progress(min(1.0, came / max(1, listing.bytes)))

        await self._remote.bring(listing, partial, count)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the hub's own records of what is under way
        try:
            await verify(partial, self._checksum, self._cache, self._uri)
        except Misconfigured:
            shutil.rmtree(partial)  # whole, and still wrong: the next try begins anew
            raise
        shutil.rmtree(folder, ignore_errors=True)
        await asyncio.to_thread(_to_disk, partial)
        partial.rename(folder)

    def _check_space(self, listing: Listing, partial: Path) -> None:
        here = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        needed, free = max(0, listing.bytes - here), shutil.disk_usage(partial).free
        if needed + SPACE_LEFT_MIN > free:
            raise Misconfigured(
                f"{self._uri} needs {_size(needed)} more; {self._folders} has {_size(free)} free.",
                field="source",
                next=f"Make room there: folders of old versions under {self._folders} may go.",
            )


@asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    """One process at a time; the kernel opens the lock of one that dies. Waits without holding a thread."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield


def _to_disk(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def disk_problem(error: OSError, where: Path) -> Misconfigured:
    if error.errno == errno.ENOSPC:
        detail, next = f"No space is left in {where}.", "Make room there, then try again: what came is kept."
    else:
        detail, next = f"{where} can't be written: {error.strerror or error}.", "Check who may write there."
    return Misconfigured(detail, field="source", next=next)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
