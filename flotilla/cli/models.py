"""`flotilla models`: versions of models, and swaps from one to another that nobody notices."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from flotilla.cli import models_orders as orders
from flotilla.cli import models_tables as tables
from flotilla.cli.client import Client
from flotilla.cli.models_sources import inspected, is_local
from flotilla.cli.models_watch import follow
from flotilla.cli.screen import console
from flotilla.client.models import Steering
from flotilla.core.errors import Refused

app = typer.Typer(no_args_is_help=True, help="The models of the fleet: versions, swaps, what is counted.")

Model = Annotated[str, typer.Argument(help="As `flotilla models list` shows it.")]
Name = Annotated[str, typer.Argument(metavar="VERSION", help="`2`, or in full `smollm2@2`.")]
Gate = Annotated[Path | None, typer.Option(help="A file with questions that it has to answer first.")]
Percents = Annotated[str, typer.Option(help="Of the conversations, step by step.")]
Hold = Annotated[float, typer.Option(help="Seconds that each step is watched for.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Watch = Annotated[bool, typer.Option(help="Stay, and show how it goes until its end.")]


@app.command("list")
def list_() -> None:
    """Show the models: who answers, and what is being swapped."""
    answer = Client().models.list()
    tables.show_list(answer["models"])
    if answer["more"]:
        console.print("There are more.", style="dim")


@app.command()
def show(model: Model) -> None:
    """Show a model: its versions, its replicas, its swaps."""
    tables.show_model(Client().models.show(model))


@app.command()
def add(
    version: Annotated[
        str, typer.Argument(metavar="MODEL@VERSION", help="It never changes once it is there.")
    ],
    *,
    source: Annotated[
        str, typer.Option(help="A folder, package:, s3://, gs://, az:// or hf://ORG/NAME@REV.")
    ] = "",
    adapter: Annotated[str, typer.Option(help="A LoRA adapter, found the same ways; it needs --base.")] = "",
    base: Annotated[str, typer.Option(help="The version that the adapter runs on.")] = "",
    engine: Annotated[
        str, typer.Option(help="What runs it: vllm, scripted, openai, anthropic, google …")
    ] = "vllm",
    setting: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the engine; again for more.")
    ] = None,
    quantisation: Annotated[
        str, typer.Option(help="How the weights are packed; found out if it is local.")
    ] = "",
    context: Annotated[int, typer.Option(help="Tokens of prompt and reply; found out if it is local.")] = 0,
    licence: Annotated[str, typer.Option(help="Found out if it is local and says so.")] = "",
    checksum: Annotated[str, typer.Option(help="SHA-256 of the weights; found out if it is local.")] = "",
    tenant: Annotated[list[str] | None, typer.Option(help="Only they may use it; again for more.")] = None,
    price_prompt: Annotated[int, typer.Option(help="Micro-units for a million tokens of prompt.")] = 0,
    price_cached: Annotated[int, typer.Option(help="The same, of a prompt's cached tokens.")] = 0,
    price_completion: Annotated[int, typer.Option(help="The same, of a reply.")] = 0,
    note: Annotated[str, typer.Option(help="For people.")] = "",
    inspect: Annotated[bool, typer.Option(help="Look into a source that is on this machine.")] = True,
) -> None:
    """Register a version. A source on this machine is looked into and its checksum taken first."""
    model, name = _named(version)
    body: dict[str, Any] = {
        "name": name,
        "engine": engine,
        "source": orders.absolute(source),
        "adapter": orders.absolute(adapter),
        "base": orders.version_id(model, base),
        "settings": orders.settings(setting or []),
        "quantisation": quantisation,
        "context_tokens": context,
        "licence": licence,
        "checksum": checksum,
        "tenants": tenant or [],
        "price": {"prompt": price_prompt, "cached": price_cached, "completion": price_completion},
        "note": note,
        "by": _me(),
    }
    weights = body["adapter"] or body["source"]
    if inspect and is_local(weights):
        body = orders.filled_in(body, inspected(weights))
    tables.show_added(model, body, Client().models.add(model, body))


@app.command()
def drop(model: Model, version: Name) -> None:
    """Forget a version that nobody needs; its name is never used again."""
    name = version.removeprefix(f"{model}@")
    tables.show_model(Client().models.drop(model, name, by=_me()))


@app.command()
def serve(
    model: Model,
    version: Annotated[str, typer.Argument(help="The first one that answers; to change it, swap.")] = "",
    *,
    least: Annotated[int | None, typer.Option(help="Replicas, at least.")] = None,
    most: Annotated[int | None, typer.Option(help="Replicas, at most.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Ray's CPUs for each replica.")] = None,
    gpus: Annotated[
        float | None, typer.Option(help="Ray's GPUs for each replica; parts of one are fine.")
    ] = None,
    fallback: Annotated[
        list[str] | None, typer.Option(help="Who answers when it can't; again for more.")
    ] = None,
) -> None:
    """Have a model answer, and set its replicas and its fallbacks."""
    body = {"version": orders.version_id(model, version), "by": _me()}
    given = {"least": least, "most": most, "cpus": cpus, "gpus": gpus, "fallbacks": fallback}
    body |= {key: value for key, value in given.items() if value is not None}
    tables.show_model(Client().models.serve(model, body))


# -- evaluating and swapping


@app.command("eval")
def eval_(
    model: Model,
    version: Name,
    *,
    gate: Annotated[Path, typer.Option(help="The questions, with the facts that a good answer has.")],
    against: Annotated[str, typer.Option(help="Another version to compare it with.")] = "",
) -> None:
    """Put questions to a version that is loaded, and judge its answers. Ends with 1 if it fails."""
    body = {"version": version, "against": against, "gate": orders.gate(gate), "by": _me()}
    with console.status("asking"):
        found = Client().models.evaluate(model, body)
    tables.show_evaluation(found)
    if not found["verdict"]["passed"]:
        raise typer.Exit(1)


@app.command()
def swap(
    model: Model,
    version: Name,
    *,
    gate: Gate = None,
    shadow: Annotated[int, typer.Option(help="Replies made too, compared, and never sent; 0 for none.")] = 0,
    canary: Percents = "5,25,50",
    hold: Hold = 30.0,
    replies: Annotated[int, typer.Option(help="Replies that each step wants of it, too.")] = 0,
    tenant: Annotated[list[str] | None, typer.Option(help="These come first; again for more.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="TENANT/AGENT: these too.")] = None,
    in_place: Annotated[bool, typer.Option(help="Reload the replicas one by one: memory for one.")] = False,
    manual: Annotated[
        bool, typer.Option(help="Wait at the end of each step until somebody goes on.")
    ] = False,
    keep: Annotated[float, typer.Option(help="Seconds that the old version stays loaded behind it.")] = 600.0,
    watch: Watch = False,
) -> None:
    """Swap to another version: load, warm, evaluate, shadow, canary, promote; back by itself if it is worse."""
    order = orders.order(gate, shadow, canary, hold, tenants=tenant or [], agents=agent or [])
    for step in order["steps"]:
        step["replies_min"] = replies
    order |= {"in_place": in_place, "automatic": not manual, "keep_s": keep}
    _begin(model, version, order, watch=watch)


@app.command()
def warm(model: Model, version: Name, *, watch: Watch = False) -> None:
    """Load a version beside the one that answers, and wait: nobody is answered by it."""
    _begin(model, version, orders.waiting(None, 0, ["0", "5", "25", "50"]), watch=watch)


@app.command()
def shadow(
    model: Model,
    version: Name,
    *,
    replies: Annotated[int, typer.Option(help="So many are made by both.")] = 50,
    share: Annotated[float, typer.Option(help="Of the replies, 0 to 1.")] = 0.2,
    gate: Gate = None,
    watch: Watch = False,
) -> None:
    """Have a version make replies too that nobody is sent, compare them, and wait."""
    order = orders.waiting(gate, replies, ["0", "5", "25", "50"]) | {"shadow_share": share}
    _begin(model, version, order, watch=watch)


@app.command()
def canary(
    model: Model,
    version: Name,
    *,
    percent: Percents = "5",
    gate: Gate = None,
    hold: Hold = 30.0,
    tenant: Annotated[list[str] | None, typer.Option(help="These come first; again for more.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="TENANT/AGENT: these too.")] = None,
    watch: Watch = False,
) -> None:
    """Answer a part of the conversations with a version, and wait at the end of each step."""
    order = orders.order(gate, 0, percent, hold, tenants=tenant or [], agents=agent or []) | {
        "automatic": False
    }
    _begin(model, version, order, watch=watch)


def _begin(model: str, version: str, order: dict[str, Any], *, watch: bool) -> None:
    body = {"to": orders.version_id(model, version), "order": order, "by": _me()}
    client = Client()
    seen = client.models.swap(model, body)
    found = seen["swap"] or (seen["swaps"][0] if seen["swaps"] else {"id": "?"})
    console.print(f"The swap {found['id']} from {found.get('from')} to {body['to']} is under way.")
    if order["gate"] is None:
        console.print("[yellow]![/] No gate: nothing is asked of it before customers are let near it.")
    if not watch:
        console.print(f"See `flotilla models watch {model}`.")
    elif follow(client, model, swap=found["id"]) != "done":
        raise typer.Exit(1)


# -- steering


@app.command()
def pause(model: Model) -> None:
    """Hold a swap where it is; a budget that burns still turns it back."""
    _steer(model, "pause")


@app.command()
def resume(model: Model) -> None:
    """Go on with a swap that was held or that waits; once it is promoted, retire the old version now."""
    swap = Client().models.show(model)["swap"]
    _steer(model, "resume", at=swap["at"] if swap else 0)


@app.command()
def promote(model: Model) -> None:
    """Answer all conversations with the new version, now."""
    _steer(model, "promote")


@app.command()
def rollback(model: Model, *, reason: Reason = "") -> None:
    """Answer all conversations with the old version, now; also for a while after the swap."""
    _steer(model, "rollback", reason=reason)


def _steer(model: str, verb: Steering, **more: str | int) -> None:
    seen = Client().models.steer(model, verb, by=_me(), **more)
    tables.show_swap(seen)


@app.command()
def watch(model: Model) -> None:
    """Show a swap as it goes: both versions side by side, and the replicas. Ctrl-C ends it."""
    follow(Client(), model)


def _named(version: str) -> tuple[str, str]:
    model, at, name = version.partition("@")
    if not (model and at and name):
        raise Refused(f"{version!r} names no version.", field="MODEL@VERSION", next="Write smollm2@2, say.")
    return model, name


def _me() -> str:
    """Who is at the keyboard, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
