"""Tasks and the versions that they began with, which must not be taken away before their end."""

from __future__ import annotations

from actors.performer import Activation
from flotilla.core.ports import Held, ModelDoor


def hold(at: Activation, task: str, model: ModelDoor, version: str) -> None:
    """From now on `task` goes on with `version`. Whoever forgets the activation lets go of it, too."""
    held: dict[str, Held] = at.notes or {}
    if version and task not in held:
        at.notes = held | {task: model.hold(version)}


def let_go(at: Activation, task: str) -> None:
    """The task has ended. Nothing if it held nothing."""
    held: dict[str, Held] = dict(at.notes or {})
    if one := held.pop(task, None):
        one.release()
        at.notes = held or None
