"""Models as a client sees them: what their record tells, what their replicas are busy with, what was counted.

A tenant sees the versions that it may use, and not where they come from or what they are set to: there may
be keys in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from actors.roster import Roster
from flotilla.core.ledger import Codec, Recorded
from flotilla.core.members import Member
from flotilla.core.swap import Model
from flotilla.core.swap_facts import ModelView, SwapView
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Version
from flotilla.views import events
from serve.auth import Principal
from serve.figures import figures_of

ROLE = "model"
ADAPTER = "adapter:"
_OPERATORS_ONLY = ("source", "adapter", "settings", "note")

recorded = Codec(Model).recorded
"""An entry of a model's journal, decoded."""


def may_see(version: Version, who: Principal) -> bool:
    return who.operator or not version.tenants or who.tenant in version.tenants


def version_of(version: Version, who: Principal) -> dict[str, Any]:
    shown = {"id": version.id} | msgspec.to_builtins(version)
    if not who.operator:
        shown = {name: value for name, value in shown.items() if name not in _OPERATORS_ONLY}
        shown.pop("tenants", None)
    return shown


# -- one model


def shown(
    view: ModelView, who: Principal, replicas: list[dict[str, Any]], counted: Tallies, span_s: float | None
) -> dict[str, Any]:
    versions = {id: version for id, version in view.versions.items() if may_see(version, who)}
    return {
        "name": view.name,
        "seq": view.seq,
        "serving": _serving(view.plan),
        "versions": [
            version_of(version, who)
            | {"added_by": view.added_by.get(id, ""), "placed": id in _placed(view.plan)}
            for id, version in versions.items()
        ],
        "swap": _swap(view.swap),
        "swaps": [_swap(swap) for swap in view.swaps],
        "scores": {id: score for id, score in view.scores.items() if id in versions},
        "figures": {id: found for id in versions if (found := figures_of(counted, id))},
        "span_s": span_s,
        "replicas": replicas,
    }


def _serving(plan: Plan) -> dict[str, Any] | None:
    """Who is answered by which version; null if none answers yet."""
    return None if plan.route is None else msgspec.to_builtins(plan.route)


def _placed(plan: Plan) -> frozenset[str]:
    return frozenset(placed.version.id for placed in plan.placed)


def _swap(swap: SwapView | None) -> dict[str, Any] | None:
    if swap is None:
        return None
    found: dict[str, Any] = msgspec.to_builtins(swap)
    verdicts = {
        stage: verdict | {"passed": not verdict.get("reasons")}
        for stage, verdict in found["verdicts"].items()
    }
    return {"from" if name == "from_" else name: value for name, value in found.items()} | {
        "verdicts": verdicts
    }


# -- all of them


def listed(
    name: str, plan: Plan | None, versions: Collection[str], swap: SwapView | None, roster: Roster
) -> dict[str, Any]:
    """A line of the list."""
    route = plan.route if plan else None
    return {
        "name": name,
        "stable": route.stable if route else None,
        "candidate": swap.to if swap else None,
        "percent": route.canary.percent if route else 0.0,
        "stage": swap.stage if swap else None,
        "versions": len(versions),
        "replicas": sum(member.info.get("version") in versions for member in roster.members(ROLE)),
    }


# -- replicas


def replicas(roster: Roster, versions: Iterable[str]) -> list[dict[str, Any]]:
    """Those that serve one of the versions now, by name."""
    ids = frozenset(versions)
    found = [member for member in roster.members(ROLE) if member.info.get("version") in ids]
    return [_replica(member, roster) for member in sorted(found, key=lambda member: member.name)]


def _replica(member: Member, roster: Roster) -> dict[str, Any]:
    load: Mapping[str, float] = member.load
    return {
        "name": member.name,
        "version": member.info.get("version", ""),
        "state": "suspect" if roster.suspects(member) else member.state,
        "load": {name: value for name, value in load.items() if not name.startswith(ADAPTER)},
        "adapters": sorted(name.removeprefix(ADAPTER) for name in load if name.startswith(ADAPTER)),
    }


# -- events


def event(fact: Recorded, who: Principal) -> dict[str, Any]:
    """As `events.event`; a gate set is told of by its name and its size."""
    return _told(events.event(fact), who)


def live(json: bytes, who: Principal) -> bytes:
    """An event on its way, as `event` has it."""
    return msgspec.json.encode(_told(msgspec.json.decode(json), who))


def _told(told: dict[str, Any], who: Principal) -> dict[str, Any]:
    data: dict[str, Any] = told.get("data") or {}
    if told["type"] == "version.added":
        data["version"] = version_of(msgspec.convert(data["version"], Version), who)
    gate = data.get("order", {}).get("gate")
    if gate:
        data["order"]["gate"] = {"name": gate["name"], "cases": len(gate["cases"])}
    return told
