"""`flotilla chat`: talk to the fleet in a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.client import Completed, Delta, Denied, Failed, Interrupted, Rewound
from flotilla.client.blocking import Talk
from flotilla.client.events import Said
from flotilla.core.errors import error_of


def chat(
    question: Annotated[
        str | None, typer.Argument(help="Ask this and end; without it, a conversation.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Whom to ask.")] = "flotilla",
) -> None:
    """Talk to an agent of the fleet."""
    with Client() as client, client.sessions.open(agent, channel="cli").connect() as talk:
        if question:
            _ask(talk, question)
        else:
            _converse(talk, agent)


def _converse(talk: Talk, agent: str) -> None:
    console.print(f"You talk to [bold]{agent}[/]. An empty line ends it.\n")
    while question := console.input("[bold cyan]you  [/]").strip():
        _ask(talk, question)


def _ask(talk: Talk, question: str) -> None:
    console.print("[bold green]agent[/]", end=" ")
    for event in talk.send(question):
        match event:
            case Delta():
                console.print(event.text, end="", markup=False, soft_wrap=True)
            case Rewound():  # a terminal takes nothing back
                console.print("\n[dim](a host died; this part is said again)[/]")
            case Completed():
                _finish(event.said)
            case Interrupted():
                console.print("\n  [dim]Interrupted.[/]\n")
            case Failed():
                raise error_of(event.trouble.problem)
            case Denied():
                raise error_of(event.problem)
            case _:
                continue


def _finish(said: Said) -> None:
    console.print()
    for n, citation in enumerate(said.citations, 1):
        console.print(f"  [{n}] {citation.title}: “{citation.quote}”", style="dim", markup=False)
    console.print(
        f"  {said.timing.total:.0f} ms, of which the fleet's own {said.timing.overhead:.0f} ms\n", style="dim"
    )
