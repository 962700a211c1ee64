"""What the processes of a fleet are made of: a wiring function, the settings, a place to run."""

from __future__ import annotations

from actors.cluster import Recipe
from actors.dedicated import Alone, process_name
from flotilla.core.actor import Resources
from flotilla.core.ids import ActorId
from flotilla.core.versions import Placed
from serve.settings import Settings
from serve.versions import Manned


def recipe(settings: Settings, role: str, name: str) -> Recipe:
    """Each role is a resource of the nodes that may run it (cluster.yaml)."""
    return Recipe(
        role=role,
        name=name,
        wire=f"serve.processes.{role}:wire",
        settings=settings,
        listen=settings.listen,
        resources={role: 1},
    )


def replica(settings: Settings, name: str, placed: Placed) -> Recipe:
    """A replica of a model. It is given what Ray is asked for, a GPU too."""
    return Recipe(
        role="model",
        name=name,
        wire="serve.processes.model:wire",
        settings=Manned(settings=settings, version=placed.version),
        listen=settings.listen,
        cpus=placed.cpus,
        gpus=placed.gpus,
        resources={"model": 1},
        quiet=True,
    )


def dedicated(settings: Settings, actor: ActorId, resources: Resources) -> Recipe:
    return Recipe(
        role="dedicated",
        name=process_name(actor),
        wire="serve.processes.dedicated:wire",
        settings=Alone(settings, actor),
        listen=settings.listen,
        cpus=resources.cpus,
        gpus=resources.gpus,
        memory_bytes=resources.memory_bytes,
        resources={"dedicated": 1},
    )
