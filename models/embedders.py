"""Embedders and rerankers by their versions: each engine's way from a folder of weights to a port."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flotilla.core.errors import Misconfigured, Refused, Unavailable
from flotilla.core.ports import Embedder, Reranker
from flotilla.core.versions import Version
from models.checksums import checksum_of
from models.embedder import MINILM, WEIGHTS_PACKAGE, BatchedEmbedder, MiniLM, packaged_weights
from models.reranker import CrossEncoderReranker
from models.sources import path_of
from models.torch_encoders import SentenceEncoder, check_folder

PACKAGED = f"package:{WEIGHTS_PACKAGE}"
CONFIGS = ("config.json", "modules.json")

DEFAULT = Version(model=MINILM.partition("@")[0], name=MINILM.partition("@")[2], engine="minilm")
"""The weights that come in a package. The id of its version is the name that a collection remembers."""


async def open_embedder(version: Version, *, threads: int) -> Embedder:
    """Loads it. Raises `Misconfigured` (field `source` or `checksum`) if its weights can't be used, `Refused`
    if its engine doesn't embed."""
    match version.engine:
        case "minilm":
            embedder = MiniLM(threads=threads, name=version.id, folder=await _folder(version))
            await _ready(embedder)
            return embedder
        case "sentence-transformers":
            folder = await _folder(version)
            try:
                return await BatchedEmbedder.open(version.id, lambda: SentenceEncoder(folder, threads))
            except Unavailable as broken:
                raise _unusable(broken) from broken
        case _:
            raise _no_engine(version, "embed", "minilm or sentence-transformers")


async def open_reranker(version: Version, *, threads: int) -> Reranker:
    """As `open_embedder`."""
    if version.engine != "cross-encoder":
        raise _no_engine(version, "rank", "cross-encoder")
    folder = await _folder(version)
    reranker = CrossEncoderReranker.of_folder(folder, name=version.id, threads=threads)
    await _ready(reranker)
    return reranker


async def _ready(opened: Embedder | Reranker) -> None:
    """Closes what can't be loaded."""
    try:
        await opened.ping()
    except BaseException as broken:
        await opened.close()
        raise _unusable(broken) if isinstance(broken, Unavailable) else broken from broken


async def _folder(version: Version) -> Path:
    packaged = version.source == PACKAGED or (version.engine == "minilm" and not version.source)
    folder = packaged_weights() if packaged else path_of(version.source)
    check_folder(folder, *CONFIGS)
    if version.checksum and (found := await asyncio.to_thread(checksum_of, folder)) != version.checksum:
        raise Misconfigured(
            f"The weights of {version.id} have the checksum {found}, not {version.checksum}.",
            field="checksum",
            next="Restore those weights, or name a new version with the checksum that they have now.",
        )
    return folder


def _unusable(broken: Unavailable) -> Misconfigured:
    return Misconfigured(broken.detail, field="source", next="Name a folder whose weights are whole.")


def _no_engine(version: Version, what: str, engines: str) -> Refused:
    return Refused(
        f"The engine {version.engine!r} of {version.id} does not {what}.",
        field="engine",
        next=f"Use {engines}.",
    )
