"""Models as a client sees them: what their record tells, what their replicas are busy with, what was counted.
What of it is not for every tenant is behind a veil (serve/model_veil.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from actors.roster import Roster
from flotilla.core.ledger import Codec, Recorded
from flotilla.core.members import Member
from flotilla.core.swap import Model
from flotilla.core.swap_views import ModelView, SwapView
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Version
from flotilla.views import events
from serve.figures import figures_of
from serve.model_veil import Veil

ROLE = "model"
ADAPTER = "adapter:"
recorded = Codec(Model).recorded
"""An entry of a model's journal, decoded."""


def version_of(version: Version, veil: Veil) -> dict[str, Any]:
    return veil.version({"id": version.id} | msgspec.to_builtins(version))


# -- one model


def shown(
    view: ModelView, veil: Veil, replicas: list[dict[str, Any]], counted: Tallies, span_s: float | None
) -> dict[str, Any]:
    versions = {id: version for id, version in view.versions.items() if not veil.hides(id)}
    by = view.added_by if veil.who.operator else {}
    return {
        "name": view.name,
        "seq": view.seq,
        "serving": _serving(view.plan, veil),
        "versions": [
            version_of(version, veil) | {"added_by": by.get(id, ""), "placed": id in _placed(view.plan)}
            for id, version in versions.items()
        ],
        "swap": _swap(view.swap, veil),
        "swaps": [shown for swap in view.swaps if (shown := _swap(swap, veil))],
        "scores": {id: score for id, score in view.scores.items() if id in versions},
        "figures": {id: found for id in versions if (found := figures_of(counted, id))},
        "span_s": span_s,
        "replicas": replicas,
    }


def _serving(plan: Plan, veil: Veil) -> dict[str, Any] | None:
    """Who is answered by which version; null if none answers yet."""
    return None if plan.route is None else veil.serving(msgspec.to_builtins(plan.route))


def _placed(plan: Plan) -> frozenset[str]:
    return frozenset(placed.version.id for placed in plan.placed)


def _swap(swap: SwapView | None, veil: Veil) -> dict[str, Any] | None:
    if swap is None or veil.hides_swap(swap):
        return None
    found: dict[str, Any] = msgspec.to_builtins(swap)
    verdicts = {
        stage: verdict | {"passed": not verdict.get("reasons")}
        for stage, verdict in found["verdicts"].items()
    }
    named = {"from" if name == "from_" else name: value for name, value in found.items()}
    return veil.swap(named | {"verdicts": verdicts})


# -- all of them


def listed(
    name: str, plan: Plan | None, versions: Collection[str], swap: SwapView | None, roster: Roster
) -> dict[str, Any]:
    """A line of the list. `versions` are those that are to be seen."""
    route = plan.route if plan and plan.route and plan.route.stable in versions else None
    swap = swap if swap and swap.to in versions else None
    return {
        "name": name,
        "stable": route.stable if route else None,
        "candidate": swap.to if swap else None,
        "percent": route.canary.percent if route and swap else 0.0,
        "stage": swap.stage if swap else None,
        "versions": len(versions),
        "replicas": sum(member.info.get("version") in versions for member in roster.members(ROLE)),
    }


# -- replicas


def replicas(roster: Roster, versions: Iterable[str]) -> list[dict[str, Any]]:
    """Those that serve one of the versions now, by name, with those of the versions that they hold as
    adapters."""
    ids = frozenset(versions)
    found = [member for member in roster.members(ROLE) if member.info.get("version") in ids]
    return [_replica(member, roster, ids) for member in sorted(found, key=lambda member: member.name)]


def _replica(member: Member, roster: Roster, ids: Collection[str]) -> dict[str, Any]:
    load: Mapping[str, float] = member.load
    return {
        "name": member.name,
        "version": member.info.get("version", ""),
        "state": "suspect" if roster.suspects(member) else member.state,
        "load": {name: value for name, value in load.items() if not name.startswith(ADAPTER)},
        "adapters": sorted(id for name in load if (id := name.removeprefix(ADAPTER)) != name and id in ids),
    }


# -- events


def event(fact: Recorded, veil: Veil) -> dict[str, Any] | None:
    """As `events.event`; a gate set is told of by its name and its size. None for what is not to be told."""
    return _told(events.event(fact), veil)


def live(json: bytes, veil: Veil) -> bytes | None:
    """An event on its way, as `event` has it."""
    told = _told(msgspec.json.decode(json), veil)
    return None if told is None else msgspec.json.encode(told)


def _told(told: dict[str, Any], veil: Veil) -> dict[str, Any] | None:
    data: dict[str, Any] = told.get("data") or {}
    if told["type"] == "version.added":
        version = msgspec.convert(data["version"], Version)
        data["version"] = {"id": version.id} | msgspec.to_builtins(version)
    gate = data.get("order", {}).get("gate")
    if gate:
        data["order"]["gate"] = {"name": gate["name"], "cases": len(gate["cases"])}
    return veil.event(told)
