"""`flotilla chat`: talk to the fleet in a terminal."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.core.errors import FlotillaError, Problem, Unavailable, error_of
from flotilla.core.ids import new_id


def chat(
    question: Annotated[
        str | None, typer.Argument(help="Ask this and end; without it, a conversation.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Whom to ask.")] = "flotilla",
) -> None:
    """Talk to an agent of the fleet."""
    client = Client()
    session = client.call("POST", "/v1/sessions", {"agent": agent, "channel": "cli"})["id"]
    url = f"{client.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws"
    try:
        with connect(url, additional_headers={"Authorization": f"Bearer {client.key}"}) as socket:
            if question:
                return _ask(socket, question)
            _converse(socket, agent)
    except (OSError, ConnectionClosed) as error:
        raise Unavailable(f"The conversation broke off ({error}).", next="See `flotilla status`.") from None
    return None


def _converse(socket: ClientConnection, agent: str) -> None:
    console.print(f"You talk to [bold]{agent}[/]. An empty line ends it.\n")
    while question := console.input("[bold cyan]you  [/]").strip():
        _ask(socket, question)


def _ask(socket: ClientConnection, question: str) -> None:
    socket.send(msgspec.json.encode({"type": "message", "id": new_id("m"), "text": question}).decode())
    console.print("[bold green]agent[/]", end=" ")
    shown = ""
    for frame in socket:
        event: dict[str, Any] = msgspec.json.decode(frame)
        match event["type"]:
            case "reply.delta":
                text = event["data"]["text"][max(0, len(shown) - event["data"]["offset"]) :]
                console.print(text, end="", markup=False, soft_wrap=True)
                shown += text
            case "reply.completed":
                return _finish(event["data"], shown)
            case "reply.failed" | "error":
                raise _problem(event)
            case _:
                continue
    raise Unavailable("The fleet hung up.", next="See `flotilla status`.")


def _finish(data: dict[str, Any], shown: str) -> None:
    console.print(data["text"][len(shown) :], markup=False, soft_wrap=True)
    for n, citation in enumerate(data["citations"], 1):
        console.print(f"  [{n}] {citation['title']}: “{citation['quote']}”", style="dim", markup=False)
    timing = data["timing"]
    console.print(
        f"  {timing['total']:.0f} ms, of which the fleet's own {timing['overhead']:.0f} ms\n", style="dim"
    )


def _problem(event: dict[str, Any]) -> FlotillaError:
    problem = event.get("problem") or event["data"]["problem"]
    return error_of(msgspec.convert(problem, type=Problem))
