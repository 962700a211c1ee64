"""Versions put to the test outside of a swap."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from actors.serving.sight import Replicas
from actors.serving.swap_needs import SwapNeeds
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.policy.gate import check_gate, verdict
from flotilla.core.swap_views import ModelView
from serve import model_views as views
from serve.auth import Principal, needs
from serve.bodies_models import EvaluationBody, read
from serve.doors import Doors, doors_of
from serve.evaluations import evaluate
from serve.routes.models import version_id, view_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post("/{model}/evaluations")
async def run_evaluation(
    request: Request, who: Annotated[Principal, needs("models:write")], model: str
) -> Response:
    """Puts a gate set to a version that has replicas and, with `against`, to another: `verdict`, and the
    `answers` of each with their scores. Nothing is recorded."""
    doors, body = doors_of(request), await read(request, EvaluationBody)
    check_gate(body.gate)
    view = await view_of(doors, model)
    wanted = {"version": body.version} | ({"against": body.against} if body.against else {})
    ids = [_loaded(doors, view, version_id(model, id), field) for field, id in wanted.items()]
    outcomes = await evaluate(_needs(doors), body.gate, ids)
    candidate, *others = [outcome.judged for outcome in outcomes]
    found = verdict(body.gate, candidate, others[0] if others else None)
    shown = msgspec.to_builtins(found) | {"passed": found.passed}
    answers = {outcome.version: outcome.answers for outcome in outcomes}
    return json({"gate": body.gate.name, "verdict": shown, "answers": answers})


def _loaded(doors: Doors, view: ModelView, id: str, field: str) -> str:
    """Raises `NotFound` for a version that there isn't, `Unavailable` for one that nothing runs: another
    one would answer for it."""
    version = view.versions.get(id)
    if version is None:
        known = ", ".join(view.versions)
        raise NotFound(f"{view.name} has no version {id!r}.", field=field, next=f"Known: {known}.")
    if id not in view.plan.versions or not views.replicas(doors.roster, [version.runs_on]):
        coming = version.runs_on in {placed.version.id for placed in view.plan.placed}
        raise Unavailable(
            f"No replica runs {id} yet." if coming else f"No replica runs {id}.",
            field=field,
            next="It is being loaded: try again in a while."
            if coming
            else f"Load it first: `flotilla models warm {view.name} {version.name}`.",
            retry_after_s=5.0,
        )
    return id


def _needs(doors: Doors) -> SwapNeeds:
    return SwapNeeds(
        model=doors.model,
        tallies=doors.tallies,
        replicas=Replicas(doors.links, doors.roster, lambda _: None),
        clock=doors.clock,
        log=doors.log,
        judges=doors.settings.judges,
    )
