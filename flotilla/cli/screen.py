"""What a person sees of a command."""

from __future__ import annotations

from rich.console import Console

from flotilla.core.errors import FlotillaError

console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)


def fail(error: FlotillaError) -> None:
    field = f" ({error.field})" if error.field else ""
    _errors.print(f"[bold red]{error.title}[/]{field}", soft_wrap=True)
    _errors.print(error.detail, soft_wrap=True, markup=False)
    if error.next:
        _errors.print(f"→ {error.next}", soft_wrap=True, markup=False)
