"""Opens the engine of a version. A new engine is one file: a module with an `open_engine`, found by the name
of the engine in `models/hosted/`, then in `models/`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any, TypeVar

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.errors import Misconfigured
from flotilla.core.ports import Engine
from flotilla.core.versions import Version

PACKAGES = ("models.hosted", "models")
ELSEWHERE = {"vllm": "models.paged"}
"""No file is named after a library that runs in this process."""

S = TypeVar("S", bound=msgspec.Struct)


async def open_engine(version: Version, folder: str, *, threads: int, clock: Clock | None = None) -> Engine:
    """The engine of `version`, ready to generate, named by the version's id. `folder` has its weights, "" for
    an engine without any; `threads` are the CPU threads it may use, 0 for all; `clock` is for an engine that
    keeps time itself (the scripted one).

    Raises `Misconfigured`, naming the setting at fault (`settings.KEY`).
    """
    # Late: an engine's libraries are imported where it runs, and nowhere else. Some take seconds.
    name = _module(version.engine)
    module = sys.modules.get(name) or await asyncio.to_thread(import_module, name)
    keeps_time = clock is not None and "clock" in signature(module.open_engine).parameters
    timed = {"clock": clock} if keeps_time else {}
    return await module.open_engine(version, folder, name=version.id, threads=threads, **timed)


def _module(engine: str) -> str:
    if engine in ELSEWHERE:
        return ELSEWHERE[engine]
    for module in (f"{package}.{engine}" for package in PACKAGES if engine.isidentifier()):
        if find_spec(module) is not None:
            return module
    raise Misconfigured(f"There is no engine {engine!r}.", field="engine", next="See models/engines.py.")


def decode(settings: Mapping[str, Any], type: type[S]) -> S:
    """The settings of a version as its engine's struct. Raises `Misconfigured` naming the key that the
    engine doesn't know or whose value doesn't fit; values are not repeated, one may be a secret."""
    for key in settings:
        if key not in type.__struct_fields__:
            raise Misconfigured(
                f"The engine has no setting {key!r}.",
                field=f"settings.{key}",
                next=f"It has {', '.join(type.__struct_fields__)}.",
            )
    try:
        return msgspec.convert(dict(settings), type)
    except msgspec.ValidationError as error:
        raise _unfit(str(error)) from None


def _unfit(detail: str) -> Misconfigured:
    """msgspec ends with where: "Expected `int`, got `str` - at `$.seed`"."""
    where = re.search(r"`\$\.([^`]+)`$", detail)
    missing = re.search(r"missing required field `([^`]+)`", detail)
    key = (where or missing or [None, ""])[1]
    return Misconfigured(
        f"A setting of the engine doesn't fit: {detail}.",
        field=f"settings.{key}" if key else "settings",
        next="Mend it.",
    )
