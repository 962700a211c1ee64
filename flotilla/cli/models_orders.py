"""What is typed about models, as the API wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.policy.gate import parse_gate

FOUND = ("checksum", "licence", "quantisation", "context_tokens")
"""What looking into the weights tells of a version."""


def version_id(model: str, version: str) -> str:
    return version if not version or "@" in version else f"{model}@{version}"


def absolute(source: str) -> str:
    """A path as any process of this machine understands it."""
    if not source or "://" in source or source.startswith("package:"):
        return source
    return str(Path(source).expanduser().absolute())


def settings(given: Sequence[str]) -> dict[str, Any]:
    """`key=value`: JSON where it is JSON, else text."""
    found: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise Refused(f"{one!r} is no setting.", field="--setting", next="Write KEY=VALUE.")
        try:
            found[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[key] = value
    return found


def filled_in(body: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """What was typed wins; but weights with another checksum are other weights."""
    if body["checksum"] and body["checksum"].removeprefix("sha256:").lower() != seen["checksum"]:
        raise Refused(
            f"The weights have the checksum {seen['checksum']}, not {body['checksum']}.",
            field="--checksum",
            next="Check that they are the ones that you mean, or leave it out.",
        )
    if bool(seen.get("adapter")) != bool(body["adapter"]):
        what = "an adapter" if seen.get("adapter") else "whole weights, and no adapter"
        raise Refused(
            f"There is {what}.",
            field="--adapter" if seen.get("adapter") else "--source",
            next="Give an adapter with --adapter and --base, weights with --source.",
        )
    return body | {name: seen[name] for name in FOUND if seen.get(name) and not body[name]}


def gate(path: Path) -> dict[str, Any]:
    """A gate set from its file. Raises `Refused` with the line at fault."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused(
            f"{path} can't be read: {error.strerror}.", field="--gate", next="Check the path."
        ) from None
    return msgspec.to_builtins(parse_gate(content, name=path.stem))


def order(
    gate_path: Path | None,
    shadow_replies: int,
    percents: str,
    hold_s: float,
    *,
    tenants: Sequence[str] = (),
    agents: Sequence[str] = (),
) -> dict[str, Any]:
    names = {"tenants": list(tenants), "agents": list(agents)}
    steps = [
        {"canary": {"percent": percent} | names, "hold_s": hold_s, "hold_max_s": max(hold_s, 3600.0)}
        for percent in map(_percent, filter(None, percents.split(",")))
    ]
    return {
        "gate": gate(gate_path) if gate_path else None,
        "shadow_replies": shadow_replies,
        "steps": steps,
    }


def waiting(gate_path: Path | None, shadow_replies: int, percents: Sequence[str]) -> dict[str, Any]:
    """One that waits at the end of each step of the canary; the first, of 0 %, lets nobody near it."""
    made = order(gate_path, shadow_replies, ",".join(percents), 0.0)
    return made | {"automatic": False}


def _percent(text: str) -> float:
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0.0 <= percent <= 100.0:
        raise Refused(f"{text!r} is no percentage.", field="--canary", next="Write 5,25,50, say.")
    return percent
