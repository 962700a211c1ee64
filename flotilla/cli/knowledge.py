"""`flotilla knowledge`: what the agents can look up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flotilla.cli.client import Client
from flotilla.cli.models_orders import absolute
from flotilla.cli.screen import console
from flotilla.connectors import documents
from flotilla.connectors.documents import Unreadable
from flotilla.core.errors import Refused
from flotilla.core.knowledge import Document

app = typer.Typer(no_args_is_help=True, help="What the agents can look up.")

BATCH_DOCUMENTS = 32
BATCH_CHARACTERS = 1_000_000
WATCH_EVERY_S = 0.5


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A file or a folder: JSONL, Markdown, HTML, PDF, text.")],
    collection: Annotated[str, typer.Option(help="Where to put it.")] = "default",
    prune: Annotated[
        bool, typer.Option(help="Remove what is in the collection and no longer there.")
    ] = False,
) -> None:
    """Import documents; what has not changed since the last time is passed over."""
    unreadable = load(Client(), collection, path, prune=prune)
    for item in unreadable:
        console.print(f"[red]not read[/] {item.name}: {item.reason}", soft_wrap=True)


@app.command()
def search(
    query: str,
    collection: Annotated[str, typer.Option()] = "default",
    limit: Annotated[int, typer.Option()] = 5,
) -> None:
    """Search a collection."""
    for hit in Client().knowledge.search(collection, query, limit=limit):
        passage = hit.passage
        console.print(f"[bold]{passage.title}[/]  [dim]{passage.id}  {hit.similarity:.2f}[/]")
        console.print(passage.text[:300], markup=False, soft_wrap=True)


@app.command()
def reembed(
    version: Annotated[
        str, typer.Argument(metavar="MODEL@VERSION", help="A name for it; that of one known goes back.")
    ],
    *,
    source: Annotated[str, typer.Option(help="Its weights, as with `flotilla models add`.")] = "",
    engine: Annotated[str, typer.Option(help="sentence-transformers or minilm.")] = "sentence-transformers",
    checksum: Annotated[str, typer.Option(help="SHA-256 of the weights.")] = "",
    watch: Annotated[bool, typer.Option(help="Stay until all collections have it.")] = False,
) -> None:
    """Embed all documents anew with another embedder, while they are searched."""
    model, at, name = version.partition("@")
    if not (model and at and name):
        raise Refused(f"{version!r} names no version.", field="MODEL@VERSION", next="Write bge-small@1, say.")
    body = {"model": model, "name": name, "engine": engine, "source": absolute(source), "checksum": checksum}
    client = Client()
    _show(client.knowledge.reembed(body))
    if watch:
        _watch(client, version)


@app.command()
def embedder() -> None:
    """Show which embedder the collections have, and how far they are on their way to another."""
    _show(Client().knowledge.embedder())


def _watch(client: Client, version: str) -> None:
    """Until all collections that are known of are searched by it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task, left = progress.add_task("documents"), 1
        while left:
            found = client.knowledge.embedder()["collections"]
            left = sum(not one["switched"] or one["embedder"] != version for one in found)
            done, total = (sum(one[what] for one in found) for what in ("done", "total"))
            progress.update(task, completed=done, total=total)
            time.sleep(WATCH_EVERY_S if left else 0.0)
    _show(client.knowledge.embedder())


def _show(seen: dict[str, Any]) -> None:
    console.print(f"The embedder is [bold]{seen['embedder'] or 'not there yet'}[/].")
    for one in seen["collections"]:
        state = "searched by it" if one["switched"] else f"searched by {one['live']} meanwhile"
        said = f"{one['tenant']}/{one['collection']}: {one['done']} of {one['total']} documents, {state}"
        console.print(said + (f"; {one['problem']}" if one["problem"] else ""), markup=False, soft_wrap=True)


def load(client: Client, collection: str, path: Path, *, prune: bool = False) -> list[Unreadable]:
    """Imports with a progress bar; returns what could not be read."""
    if not path.exists():
        raise Refused(f"There is nothing at {path}.", field="path", next="Check the path.")
    found = list(documents.read(path))
    good = [item for item in found if isinstance(item, Document)]
    unreadable = [item for item in found if isinstance(item, Unreadable)]
    done = _send(client, collection, good)
    gone = _prune(client, collection, {d.id for d in good}) if prune else 0
    console.print(
        f"{path.name}: {done['added']} new, {done['changed']} changed, {done['unchanged']} unchanged, "
        f"{gone} removed, {len(unreadable)} unreadable"
    )
    return unreadable


def _prune(client: Client, collection: str, there: set[str]) -> int:
    known = client.knowledge.documents(collection)
    gone = sorted(known.keys() - there)
    for id in gone:
        client.knowledge.remove(collection, id)
    return len(gone)


def _send(client: Client, collection: str, good: Sequence[Document]) -> Counter[str]:
    """The fleet passes over what it has already, by content hash; returns its counts."""
    done: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"into {collection}", total=len(good))
        for batch in _batches(good):
            done.update(msgspec.structs.asdict(client.knowledge.add(collection, batch)))
            progress.advance(task, len(batch))
    return done


def _batches(changed: Sequence[Document]) -> list[list[Document]]:
    batches: list[list[Document]] = []
    room = 0
    for document in changed:
        room -= len(document.text)
        if room < 0 or len(batches[-1]) == BATCH_DOCUMENTS:
            batches.append([])
            room = BATCH_CHARACTERS - len(document.text)
        batches[-1].append(document)
    return batches
