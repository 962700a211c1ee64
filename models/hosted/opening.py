"""How an engine of somebody else's is opened: with its settings, its key and connections of our own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2

from flotilla.core.errors import Misconfigured
from flotilla.core.versions import Version
from models.engines import decode
from models.hosted.errors import Troubles
from models.hosted.model import HostedModel, HostedSettings, Provider

CONNECTIONS_KEPT = 64

S = TypeVar("S", bound=HostedSettings)

MakeProvider = Callable[[S, str, Troubles], Provider]
"""Settings, the key ("" if none is wanted) and the words for what goes wrong in, a provider out."""


def open_hosted(
    version: Version, name: str, make: MakeProvider[S], settings: type[S], usual_key: str
) -> HostedModel:
    """`usual_key` is the environment variable of the provider's own SDK. Raises `Misconfigured` if there is no
    key, or if the version's settings are not the provider's."""
    read = decode(version.settings, settings)
    key = _key(read, usual_key)
    troubles = Troubles(name, key)
    return HostedModel(name, read, make(read, key, troubles), troubles)


def connections(settings: HostedSettings, hooks: dict[str, list[Any]] | None = None) -> httpx2.AsyncClient:
    """One for each reply, and one for `ping`. Its time-outs are `HostedModel`'s."""
    limits = httpx2.Limits(
        max_connections=settings.running_max + 1, max_keepalive_connections=CONNECTIONS_KEPT
    )
    return httpx2.AsyncClient(timeout=None, limits=limits, event_hooks=hooks)


def _key(settings: HostedSettings, usual: str) -> str:
    """From the environment; "" for an endpoint that wants none. Raises `Misconfigured`."""
    variable = settings.api_key_env or usual
    if variable == "-":
        return ""
    if key := os.environ.get(variable, "").strip():
        return key
    raise Misconfigured(
        f"There is no key: {variable} is not set in the environment of the replica.",
        field="settings.api_key_env",
        next=f"Set {variable}, or name the variable that holds the key.",
    )
