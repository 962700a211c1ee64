"""`flotilla knowledge`: what the agents can look up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.connectors import documents
from flotilla.connectors.documents import Unreadable
from flotilla.core.errors import Refused
from flotilla.core.knowledge import Document

app = typer.Typer(no_args_is_help=True, help="What the agents can look up.")

BATCH_DOCUMENTS = 32
BATCH_CHARACTERS = 1_000_000


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
    answer = Client().call("POST", f"/v1/knowledge/{collection}/search", {"query": query, "limit": limit})
    for hit in answer["hits"]:
        passage = hit["passage"]
        console.print(f"[bold]{passage['title']}[/]  [dim]{passage['id']}  {hit['similarity']:.2f}[/]")
        console.print(passage["text"][:300], markup=False, soft_wrap=True)


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
    known = client.call("GET", f"/v1/knowledge/{collection}/documents")["documents"]
    gone = sorted(known.keys() - there)
    for id in gone:
        client.call("DELETE", f"/v1/knowledge/{collection}/documents/{quote(id, safe='')}")
    return len(gone)


def _send(client: Client, collection: str, good: Sequence[Document]) -> Counter[str]:
    """The fleet passes over what it has already, by content hash; returns its counts."""
    done: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"into {collection}", total=len(good))
        for batch in _batches(good):
            body = [{"id": d.id, "title": d.title, "text": d.text} for d in batch]
            done.update(client.call("POST", f"/v1/knowledge/{collection}/documents", {"documents": body}))
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
