"""Weights on a model hub: `hf://ORG/NAME@REVISION`, by huggingface_hub.

That library reads once, when it is imported, whether it may use the network, and vLLM's processes tell it
not to: so it runs in a process of its own, `python -m models.hub`. `HF_ENDPOINT` and `HF_TOKEN` are its
own variables; with `FLOTILLA_HUB_OFFLINE=1` nothing is asked of the network.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import msgspec

from flotilla.core.errors import FlotillaError, Misconfigured, Problem, Unavailable, error_of
from models.remote import FILES_MAX, Listing, RemoteFile, wanted

_ADDRESS = re.compile(r"hf://([\w.\-]+/[\w.\-]+)(?:@([\w.\-/]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FILES_AT_ONCE = 4
ASK_TIMEOUT_S = 30.0
LINE_BYTES_MAX = 1 << 20


class Said(msgspec.Struct, omit_defaults=True):
    """A line of the process that asks the hub: one of these."""

    listing: Listing | None = None
    came: int = 0
    problem: Problem | None = None


class HubSource:
    """A model at a revision."""

    def __init__(self, uri: str) -> None:
        found = _ADDRESS.fullmatch(uri)
        if found is None:
            raise Misconfigured(
                f"{uri!r} is no address on a hub.", field="source", next="Write hf://ORG/NAME@REVISION."
            )
        self._name, revision = found.groups()
        self._revision = revision or "main"
        self.pinned = self._revision if _COMMIT.fullmatch(self._revision) else ""

    async def listing(self) -> Listing:
        async with aclosing(_run("list", self._name, self._revision)) as lines:
            async for said in lines:
                if said.listing:
                    return said.listing
        raise Unavailable(f"Asking the hub for {self._name} ended without an answer.", field="source")

    async def bring(self, listing: Listing, folder: Path, progress: Callable[[int], None]) -> None:
        names = [file.name for file in listing.files]
        async with aclosing(_run("bring", self._name, listing.tag, str(folder), *names)) as lines:
            async for said in lines:
                progress(said.came)


async def _run(*words: str) -> AsyncGenerator[Said]:
    """What the process says; raises the problem that it ends with. It ends when we do: it watches the pipe
    that it reads from."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "models.hub", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        limit=LINE_BYTES_MAX,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            said = msgspec.json.decode(line, type=Said)
            if said.problem:
                raise error_of(said.problem)
            yield said
        if await process.wait():
            raise Unavailable("Fetching from the hub broke off.", field="source", next="Try again.")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _environment() -> dict[str, str]:
    offline = os.environ.get("FLOTILLA_HUB_OFFLINE", "0")
    ours = {"HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return os.environ | ours


# -- in the process of its own


def main(words: list[str]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        match words:
            case ["list", name, revision]:
                _say(Said(listing=_list(name, revision)))
            case ["bring", name, commit, folder, *files]:
                _bring(name, commit, folder, files)
            case _:
                raise Misconfigured("python -m models.hub list|bring NAME REVISION …")
    except FlotillaError as error:
        _say(Said(problem=error.problem()))


def _end_with_parent() -> None:
    os.read(0, 1)  # nobody writes: it ends when the parent does
    os._exit(1)


def _say(said: Said) -> None:
    os.write(1, msgspec.json.encode(said) + b"\n")


def _list(name: str, revision: str) -> Listing:
    from huggingface_hub import HfApi  # noqa: PLC0415

    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ASK_TIMEOUT_S)
    except Exception as error:
        raise _translated(error, name, revision) from error
    found = info.siblings or []
    files = [RemoteFile(s.rfilename, s.size or 0, s.blob_id or "") for s in found if wanted(s.rfilename)]
    return Listing(tuple(sorted(files)[:FILES_MAX]), info.sha or revision)


def _bring(name: str, commit: str, folder: str, files: list[str]) -> None:
    """What was cut off goes on, by the hub's own records in `folder/.cache`."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    def one(file: str) -> None:
        path = hf_hub_download(name, file, revision=commit, local_dir=folder)
        _say(Said(came=Path(path).stat().st_size))

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        try:
            list(pool.map(one, files))
        except Exception as error:
            raise _translated(error, name, commit) from error


def _translated(error: Exception, name: str, revision: str) -> FlotillaError:
    """The hub says 401 for a model that there isn't, so as not to tell which private ones there are."""
    from huggingface_hub import errors  # noqa: PLC0415

    what, said = f"hf://{name}@{revision}", (str(error).strip().splitlines() or [""])[0][:300]
    match error:
        case errors.GatedRepoError():
            next = "Accept its licence on the hub, and set HF_TOKEN."
            return Misconfigured(f"{what} is given only to those let in.", field="source", next=next)
        case errors.RepositoryNotFoundError():
            next = "Check the name; for a private model set HF_TOKEN."
            return Misconfigured(f"There is no {what}, or not for this token.", field="source", next=next)
        case errors.LocalEntryNotFoundError():  # its way to say that the network failed
            return Unavailable(f"{what} can't be fetched: {said}", field="source", retry_after_s=10.0)
        case errors.RevisionNotFoundError() | errors.EntryNotFoundError():
            return Misconfigured(f"There is no {what}.", field="source", next="Check the revision.")
        case errors.OfflineModeIsEnabled():
            next = "Unset FLOTILLA_HUB_OFFLINE, or give a folder as the source."
            return Misconfigured(f"{what} is not here, and the hub is off.", field="source", next=next)
        case OSError() if error.errno == errno.ENOSPC:
            next = "Make room, then try again: what has come is kept."
            return Misconfigured(f"No space is left for {what}.", field="source", next=next)
        case _:
            return Unavailable(f"{what} can't be fetched: {said}", field="source", retry_after_s=10.0)


if __name__ == "__main__":
    main(sys.argv[1:])
