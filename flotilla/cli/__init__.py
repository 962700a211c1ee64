"""`flotilla`: the fleet at the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from flotilla.cli import (
    actors,
    bench,
    chat,
    doctor,
    down,
    keys,
    knowledge,
    models,
    profile,
    roll,
    simulate,
    status,
    trace,
    up,
)
from flotilla.cli.screen import fail
from flotilla.core.errors import FlotillaError

app = typer.Typer(
    name="flotilla",
    help="An actor runtime for fleets of AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "up": up.up,
    "down": down.down,
    "status": status.status,
    "chat": chat.chat,
    "doctor": doctor.doctor,
    "trace": trace.trace,
    "profile": profile.profile,
    "roll": roll.roll,
    "simulate": simulate.simulate,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(actors.app, name="actors")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")


def main() -> None:
    try:
        app()
    except FlotillaError as error:
        fail(error)
        sys.exit(1)
