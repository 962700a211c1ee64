"""Weights in an object store: `s3://BUCKET/FOLDER`, `gs://…`, `az://…`, by obstore.

Keys, regions and end points are taken from the variables that each store's own tools read (`AWS_…`,
`GOOGLE_…`, `AZURE_…`); `AWS_ALLOW_HTTP=true` and the like allow an end point without TLS.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import obstore
from obstore import exceptions
from obstore.store import from_url

from flotilla.core.errors import FlotillaError, Misconfigured, Unavailable
from models.remote import FILES_MAX, Listing, RemoteFile, wanted

PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
PART_BYTES = 16 << 20  # a request each: what is retried, and what is in memory, of each file
FILES_AT_ONCE = 4
_STATUS = re.compile(r"status code: (\d{3})")
_QUERY = re.compile(r"\?\S+")  # may hold a signature
# A request that is answered with nothing is given up; a part has longer.
CLIENT = {"connect_timeout": "10s", "timeout": "300s"}
FAILURES = (exceptions.BaseError, FileNotFoundError)
RETRY = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}


class ObjectSource:
    """A folder of an object store."""

    pinned = ""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._scheme = uri.partition("://")[0]
        http = os.environ.get(f"{PREFIXES.get(self._scheme, '')}_ALLOW_HTTP", "").lower() == "true"
        options: Any = {"client_options": CLIENT | {"allow_http": http}, "retry_config": RETRY}
        open_store: Any = from_url  # one signature a store, and none for all
        try:
            self._store: Any = open_store(uri, **({} if self._scheme == "file" else options))
        except FAILURES as error:
            said = str(error).split("\n", 1)[0]
            next = f"Check the address and the {PREFIXES.get(self._scheme)}_… variables."
            raise Misconfigured(f"{uri} can't be opened: {said}", field="source", next=next) from error

    async def listing(self) -> Listing:
        """What is in the folder now. Raises `Misconfigured`, `Unavailable`."""
        try:
            found = await obstore.list_with_delimiter_async(self._store, None)
        except FAILURES as error:
            raise self._error(error, self._uri) from error
        objects = cast("Sequence[dict[str, Any]]", found["objects"])
        if len(objects) > FILES_MAX:
            raise Misconfigured(
                f"{self._uri} holds {len(objects)} objects; a model has at most {FILES_MAX} files.",
                field="source",
                next="Name the folder of one model.",
            )
        files = [RemoteFile(o["path"], o["size"], o["e_tag"] or "") for o in objects if wanted(o["path"])]
        return Listing(tuple(sorted(files)), _tag(files))

    async def bring(self, listing: Listing, folder: Path, progress: Callable[[int], None]) -> None:
        """Fetches what is missing in `folder`; `progress` is told of the bytes that came."""
        slots = asyncio.Semaphore(FILES_AT_ONCE)

        async def one(file: RemoteFile) -> None:
            async with slots:
                await self._file(file, folder, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for file in listing.files:
                    group.create_task(one(file))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _file(self, file: RemoteFile, folder: Path, progress: Callable[[int], None]) -> None:
        """Goes on where an earlier try was cut off. A file has its name once it is whole."""
        whole, part = folder / file.name, folder / f"{file.name}.part"
        if whole.is_file():
            return progress(file.size)
        with part.open("ab") as out:
            progress(at := min(out.tell(), file.size))
            out.truncate(at)
            while at < file.size:
                block = await self._range(file, at, min(at + PART_BYTES, file.size))
                await asyncio.to_thread(out.write, block)
                at += len(block)
                progress(len(block))
            out.flush()
            await asyncio.to_thread(os.fsync, out.fileno())
        part.rename(whole)
        return None

    async def _range(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Of the object that was listed, not of one that has replaced it since."""
        options: dict[str, Any] = {"range": (start, end)} | ({"if_match": file.tag} if file.tag else {})
        try:
            got = await obstore.get_async(self._store, file.name, options=cast("Any", options))
            block = bytes(await got.bytes_async())
        except FAILURES as error:
            raise self._error(error, f"{self._uri}/{file.name}") from error
        if len(block) != end - start:
            raise Unavailable(
                f"{self._uri}/{file.name} ended early: {len(block)} bytes of {end - start} came.",
                field="source",
                next="Try again: what has come is kept.",
            )
        return block

    def _error(self, error: Exception, what: str) -> FlotillaError:
        said = _QUERY.sub("", str(error).split("\n", 1)[0])[:300]
        status = _STATUS.search(said)
        check = f"Check the address and the {PREFIXES.get(self._scheme)}_… variables."
        match error, status and status.group(1):
            case (FileNotFoundError(), _) | (_, "404"):
                return Misconfigured(f"There is no {what}.", field="source", next="Check bucket and folder.")
            case (exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError(), _) | (
                _,
                "401" | "403",
            ):
                return Misconfigured(
                    f"{what} can't be read: access is denied.",
                    field="source",
                    next=f"Give the fleet's processes keys: the {PREFIXES.get(self._scheme)}_… variables.",
                )
            case exceptions.PreconditionError(), _:
                return Unavailable(
                    f"{what} was replaced while it was fetched.",
                    field="source",
                    next="Try again, once the upload is over.",
                )
            case _, str(number) if number.startswith("4") and number not in ("408", "429"):
                return Misconfigured(f"{what} can't be opened: {said}", field="source", next=check)
            case _:
                return Unavailable(
                    f"{what} can't be reached: {said}", field="source", next=check, retry_after_s=10.0
                )


def _tag(files: Sequence[RemoteFile]) -> str:
    lines = [f"{file.name}\n{file.size}\n{file.tag}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
