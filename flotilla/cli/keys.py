"""`flotilla keys`: API keys of a tenant."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.table import Table

from flotilla.cli.client import Client
from flotilla.cli.screen import console
from flotilla.core.errors import Refused

app = typer.Typer(no_args_is_help=True, help="API keys.")

Tenant = Annotated[str | None, typer.Option(help="Another tenant; with an operator's key.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="As `flotilla keys list` shows it.")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; several times for several. All of a tenant's if none."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="90d", help="When it ends: 30m, 12h, 90d.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="sockets=100", help="A limit of its own; several times for several."),
    ] = None,
    tenant: Tenant = None,
) -> None:
    """Make a key. It is shown this once."""
    made = Client().keys.create(
        name,
        scopes=scope or [],
        expires_in_s=None if expires is None else seconds(expires, "--expires"),
        limits=dict(map(_limit, limit or [])),
        tenant=tenant,
    )
    _secret(made)


@app.command("list")
def list_(tenant: Tenant = None, limit: Annotated[int, typer.Option(min=1, max=500)] = 50) -> None:
    """Show the newest keys, without their secrets."""
    found, following = Client().keys.list(limit=limit, tenant=tenant)
    if not found:
        console.print("There are no keys but those of FLOTILLA_API_KEYS.")
        return
    table = Table("name", "begins with", "state", "scopes", "ends", "last used", box=None)
    table.add_column("id", no_wrap=True)
    for key in found:
        ends, used = (_day(key[name]) for name in ("expires", "used"))
        scopes = " ".join(key["scopes"])
        table.add_row(key["name"], key["shown"], key["state"], scopes, ends, used, key["id"])
    console.print(table)
    if following:
        console.print("There are more: raise --limit.")


@app.command()
def rotate(
    key: KeyId,
    grace: Annotated[
        str, typer.Option(metavar="24h", help="How long the secret before goes on; 0s ends it now.")
    ] = "24h",
    tenant: Tenant = None,
) -> None:
    """Give a key another secret. It is shown this once."""
    _secret(Client().keys.rotate(key, grace_s=seconds(grace, "--grace"), tenant=tenant))


@app.command()
def revoke(key: KeyId, tenant: Tenant = None) -> None:
    """End a key at once, and all that it has open."""
    revoked = Client().keys.revoke(key, tenant=tenant)
    console.print(f"{revoked['id']} ({revoked['name']}) is revoked.", markup=False)
    _note(revoked)


def seconds(text: str, field: str) -> int:
    """Raises `Refused` unless it is a number with a unit."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise Refused(f"{text!r} is no span of time.", field=field, next="Write 30m, 12h or 90d.")
    return int(match[1]) * _UNITS_S[match[2]]


def _limit(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number) if name == "messages_per_s" else int(number)
    except ValueError:
        raise Refused(f"{text!r} is no limit.", field="--limit", next="Write sockets=100, say.") from None


def _secret(made: dict[str, Any]) -> None:
    """The key alone on standard output's first line, so that a script can take it from there."""
    console.print(made["key"], markup=False, soft_wrap=True)
    console.print(f"[dim]{made['id']}: keep it now, it is not shown again.[/]", soft_wrap=True)
    _note(made)


def _note(said: dict[str, Any]) -> None:
    if note := said.get("note"):
        console.print(f"[yellow]{note}[/]", soft_wrap=True)


def _day(stamp: str | None) -> str:
    return "never" if stamp is None else stamp[:16].replace("T", " ")
