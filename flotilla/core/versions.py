"""Versions of models: what the registry knows of each, and what of them is to run and to be used.

A *model* is a name that agents and clients ask for (`smollm2`). A *version* (`smollm2@2`) is weights, an
engine and its settings, and never changes. A *plan* is what a model wants of the fleet: the versions that
are to have replicas, and who is to be answered by which. The model's actor writes it
(`flotilla/core/swap.py`), the controller starts and ends replicas by it, and whoever asks routes by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.ids import is_name

FLEET = "_fleet"
"""The tenant of what belongs to the whole fleet: its models."""

EngineName = Literal[
    "vllm", "scripted", "extract", "openai", "anthropic", "google",
    "minilm", "sentence-transformers", "cross-encoder",
]  # fmt: skip


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """In micro-units of the ledger's currency for a million tokens."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`source` is where the weights are: a path, `package:NAME`, `s3://…`, `gs://…`, `file://…`,
    `hf://ORG/NAME@REVISION`; "" for an engine without weights. One with an `adapter` (a PEFT folder, found
    the same ways) runs on the replicas of its `base`, another version. `settings` go to the engine as they
    are. `checksum` is the SHA-256 of the weights (`models/sources.py`); "" takes what comes. `tenants` may
    use it; all if there are none."""

    model: str
    name: str
    engine: EngineName = "vllm"
    source: str = ""
    base: str = ""
    adapter: str = ""
    quantisation: str = ""
    settings: dict[str, Any] = {}
    context_tokens: int = 0
    licence: str = ""
    checksum: str = ""
    tenants: tuple[str, ...] = ()
    price: Price = Price()
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.model}@{self.name}"

    @property
    def runs_on(self) -> str:
        """The id of the version whose replicas serve it."""
        return self.base or self.id


AMOUNT_MAX = 10**12


def _amounts(version: Version) -> Iterator[tuple[str, int]]:
    yield "context_tokens", version.context_tokens
    for name in ("prompt", "cached", "completion"):
        yield f"price.{name}", getattr(version.price, name)


def check_version(version: Version) -> None:
    """Raises `Refused` with the field at fault; looks at nothing outside of `version`."""
    for field in ("model", "name"):
        value = getattr(version, field)
        if not is_name(value) or "@" in value:
            raise Refused(
                f"{value!r} can't be a {field}.", field=field, next="Use letters, digits, - _ . and :."
            )
    for field, amount in _amounts(version):
        if not 0 <= amount <= AMOUNT_MAX:
            raise Refused(f"`{field}` is 0 to {AMOUNT_MAX}, not {amount}.", field=field)
    if bool(version.base) != bool(version.adapter):
        raise Refused("A base goes with an adapter, and an adapter with a base.", field="base")
    if version.engine == "vllm" and not (version.source or version.adapter):
        raise Refused("There are no weights.", field="source", next="Say where they are.")


class Canary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which conversations the candidate answers: a percentage of all (by a hash of the conversation, so that
    one that is in stays in as it grows), and those of the tenants, agents and conversations named
    (`TENANT/NAME`)."""

    percent: float = 0.0
    tenants: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is answered by which version. `stable` answers whoever the canary leaves; `candidate` the canary.
    `shadow` is the share of the replies, 0 to 1, that the candidate makes too, to be compared and never
    sent. `fallbacks` are models or versions to ask, in order, when the version can't answer. `salt` makes
    other conversations go first the next time."""

    stable: str
    candidate: str = ""
    canary: Canary = Canary()
    shadow: float = 0.0
    fallbacks: tuple[str, ...] = ()
    first_token_timeout_s: float = 30.0
    salt: str = ""


class Placed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version that is to have replicas: between `least` and `most` of them, each with these resources of
    Ray's. Only versions with engines of their own are placed; an adapter runs on its base's."""

    version: Version
    least: int = 1
    most: int = 1
    cpus: float = 0.0
    gpus: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model wants of the fleet. `revision` is the `seq` of its actor: a higher one replaces a lower
    one. `versions` are all that may be asked for, by id, adapters too; `placed` those that get replicas.
    Replicas of a version in `reloading`, which others are being made of in place, are neither started nor
    ended by the controller. `stage` is that of the swap under way, for whoever watches; "" without one."""

    model: str
    revision: int
    stage: str = ""
    route: Route | None = None
    versions: dict[str, Version] = {}
    placed: tuple[Placed, ...] = ()
    reloading: tuple[str, ...] = ()


Plans = dict[str, Plan]
"""By the name of the model."""


def replica_name(version: str, number: int) -> str:
    """The name of a replica's process; the number counts upwards, none comes back at once."""
    return f"{version}.{number}"


def version_of(replica: str) -> str:
    """The id of the version that a replica was started with."""
    return replica.rpartition(".")[0]
