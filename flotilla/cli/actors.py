"""`flotilla actors`: what lives in the fleet, what became of its messages, and how to move it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.core.errors import Refused

PIPE_WIDTH = 10_000

app = typer.Typer(no_args_is_help=True, help="The actors of the fleet, their dead letters, and their hosts.")

Actor = Annotated[str, typer.Argument(metavar="KIND/NAME", help="As `flotilla actors list` shows it.")]


@app.command("list")
def list_(
    kind: Annotated[str, typer.Option(help="Of this kind only.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
) -> None:
    """Show who is awake, and where; those with most to do first."""
    answer = Client().call("GET", "/v1/actors?" + urlencode({"kind": kind, "limit": limit}))
    rows = answer["actors"]
    names = ("actor", "host", "state", "waiting", "idle_s", "seq", "followers")
    _table(
        ("actor", "host", "state", "waiting", "idle (s)", "seq", "followers"), names, rows, "Nobody is awake."
    )
    if answer["more"]:
        console.print("There are more: see --limit and --kind.", style="dim")
    _notes(answer)


@app.command()
def show(actor: Actor) -> None:
    """Show an actor: its state and its mailbox if it is awake, and what the record tells of it."""
    seen = Client().call("GET", _path(actor))
    awake = seen["awake"]
    if awake is None:
        console.print(f"[bold]{seen['actor']}[/] sleeps; its next message wakes it at {seen['home']}.")
    else:
        listed = awake["listed"]
        console.print(f"[bold]{seen['actor']}[/] is awake at {awake['host']}: {listed['state']}.")
        console.print(f"waiting    {', '.join(awake['mailbox']) or 'nothing'}", markup=False)
        console.print(f"works on   {', '.join(awake['working_on']) or 'nothing'}", markup=False)
        console.print(f"followers  {listed['followers']}")
        console.print("state")
        console.print_json(msgspec.json.encode(awake["state"]).decode())
    if seen["pinned"]:
        console.print(f"It is pinned to {seen['pinned']}.")
    console.print(f"\nLast facts, of {seen['seq']}:")
    _table(("seq", "at", "type"), ("seq", "at", "type"), seen["last"], "none")
    if seen["reminders"]:
        console.print("\nReminders:")
        _table(("name", "due"), ("name", "due"), seen["reminders"], "none")
    _notes(seen)


@app.command()
def journal(
    actor: Actor,
    after: Annotated[int, typer.Option(help="Facts behind this seq.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    bodies: Annotated[bool, typer.Option(help="Also what they say: customers' words, it may be.")] = False,
) -> None:
    """Show an actor's facts, in order."""
    query = urlencode({"after": after, "limit": limit, "bodies": str(bodies).lower()})
    facts = Client().call("GET", f"{_path(actor)}/journal?{query}")["facts"]
    if bodies:
        facts = [fact | {"body": msgspec.json.encode(fact["body"]).decode()} for fact in facts]
    names = ("seq", "at", "type", "version", *(["body"] if bodies else []))
    _table(names, names, facts, "Nothing more is recorded.")


@app.command()
def letters(
    actor: Annotated[str, typer.Argument(metavar="[KIND/NAME]", help="Of this actor only.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
) -> None:
    """Show the messages that broke their actors and were set aside, oldest first."""
    query = urlencode({"limit": limit} | ({"actor": actor} if actor else {}))
    found = Client().call("GET", f"/v1/letters?{query}")["letters"]
    names = ("id", "actor", "at", "message", "problem", "tries")
    _table(names, names, found, "There are no dead letters.")


@app.command()
def replay(letter: str) -> None:
    """Send a dead letter's message to its actor again. The letter is gone once the actor has taken it."""
    taken = Client().call("POST", f"/v1/letters/{quote(letter, safe='')}/replay")
    console.print(f"{taken['actor']} has taken it; the letter {letter} is gone.")


@app.command()
def discard(letter: str) -> None:
    """Throw a dead letter away."""
    Client().call("DELETE", f"/v1/letters/{quote(letter, safe='')}")
    console.print(f"The letter {letter} is gone.")


@app.command()
def move(actor: Actor, host: str) -> None:
    """Have an actor live at a host from now on, until it is unpinned or the host is gone."""
    moved = Client().call("POST", f"{_path(actor)}/move", {"host": host})
    console.print(f"{moved['actor']} is pinned to {moved['host']}: everybody sends there within two seconds.")


@app.command()
def unpin(actor: Actor) -> None:
    """Have an actor live where hashing puts it."""
    was = Client().call("DELETE", f"{_path(actor)}/pin")["was"]
    console.print(f"{actor} was pinned to {was}." if was else f"{actor} was not pinned.")


@app.command()
def passivate(actor: Actor) -> None:
    """Put an actor to sleep after what it handles now. Its next message wakes it from its journal."""
    answer = Client().call("POST", f"{_path(actor)}/passivate")
    hosts = ", ".join(answer["hosts"])
    console.print(f"{hosts} has let go of {actor}." if hosts else f"{actor} was not awake.")
    _notes(answer)


@app.command()
def hosts() -> None:
    """Show the hosts: their state, their load, their version. Wants an operator's key."""
    answer = Client().call("GET", "/v1/hosts")
    rows = [host | {"busy": f"{host['busy']:.0%}"} for host in answer["hosts"]]
    heads = (
        "host",
        "role",
        "state",
        "awake",
        "ready",
        "busy",
        "links",
        "reminders late (s)",
        "version",
        "address",
    )
    names = (
        *("name", "role", "state", "activations", "ready", "busy"),
        *("links", "reminder_lag_s", "version", "address"),
    )
    _table(heads, names, rows, "No host is alive: they restart by themselves.")
    _notes(answer)


@app.command()
def drain(host: str) -> None:
    """Have a host let go of its actors, to end it. Wants an operator's key."""
    by = Client().call("POST", f"/v1/hosts/{quote(host, safe='')}/drain")["by"]
    console.print(f"{host} lets go of its actors: see `flotilla actors hosts`.")
    if by == "controller":
        console.print("The controller ends it when it is empty, and starts another if too few are left.")
    else:
        console.print("There is no controller, so it stays, empty, until you end its process.")


def _path(actor: str) -> str:
    kind, slash, name = actor.partition("/")
    if not (kind and slash and name):
        raise Refused(
            f"{actor!r} is no actor.", field="KIND/NAME", next="Name it as `flotilla actors list` does."
        )
    return f"/v1/actors/{quote(kind, safe='')}/{quote(name, safe='')}"


def _table(heads: Sequence[str], names: Sequence[str], rows: list[dict[str, Any]], empty: str) -> None:
    if not rows:
        console.print(empty)
        return
    table = Table(*(Column(head, overflow="fold") for head in heads), box=None)
    for row in rows:
        table.add_row(*(Text("–" if row[name] is None else str(row[name])) for name in names))
    # In a pipe there is no width to keep to, and a name that is cut is no name.
    (console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)).print(table)


def _notes(answer: dict[str, Any]) -> None:
    for note in answer["notes"]:
        console.print(f"[yellow]![/] {note}", soft_wrap=True)
