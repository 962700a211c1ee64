"""What of a model is not for every tenant: versions of others, who is in a canary, who has done what and why.

An operator sees all of it. A tenant sees the versions that it may use, that they are swapped and how they do.
"""

from __future__ import annotations

from typing import Any

from flotilla.core.errors import NotFound
from flotilla.core.swap_views import ModelView, SwapView
from flotilla.core.versions import Version
from serve.auth import Principal

Json = dict[str, Any]

_OPERATORS_ONLY = ("source", "adapter", "settings", "note", "tenants")
"""Of a version: there may be keys in it."""
_TOLD = frozenset(
    "version least most fallbacks swap to stage step end candidate stable verdict".split()  # noqa: SIM905
)
"""Of an event. Reasons and notes quote errors, with paths and addresses in them."""


def may_see(version: Version, who: Principal) -> bool:
    return who.operator or not version.tenants or who.tenant in version.tenants


class Veil:
    """Between a model and one who looks at it. Raises `NotFound` for a model of which nothing is to be seen."""

    def __init__(self, view: ModelView, who: Principal) -> None:
        self.who = who
        self._hidden = {id for id, version in view.versions.items() if not may_see(version, who)}
        if view.versions and len(self._hidden) == len(view.versions):
            raise NotFound(
                f"There is no model {view.name!r}.", field="model", next="GET /v1/models lists them."
            )
        known = (*view.swaps, *([view.swap] if view.swap else []))
        self._swaps = {swap.id for swap in known if self.hides_swap(swap)}

    def hides(self, id: str) -> bool:
        return id in self._hidden

    def hides_swap(self, swap: SwapView) -> bool:
        return self.hides(swap.to) or self.hides(swap.from_)

    # -- what is left

    def version(self, shown: Json) -> Json:
        if self.who.operator:
            return shown
        return {name: value for name, value in shown.items() if name not in _OPERATORS_ONLY}

    def serving(self, route: Json) -> Json | None:
        if self.who.operator:
            return route
        if self.hides(route["stable"]):
            return None
        if self.hides(route.get("candidate", "")):
            route = {name: route[name] for name in route.keys() - {"candidate", "canary", "shadow", "salt"}}
        return route | ({"canary": _share(route["canary"])} if "canary" in route else {})

    def swap(self, shown: Json) -> Json:
        if self.who.operator:
            return shown
        verdicts = {stage: _figures(verdict) for stage, verdict in shown["verdicts"].items()}
        reason = "It was turned back." if shown["reason"] else ""
        return shown | {"by": "", "reason": reason, "notes": [], "verdicts": verdicts}

    def event(self, told: Json) -> Json | None:
        """None for what is not to be told. What a follower hears is heard in order, so a version or a swap
        that came later is known by the time that something is told of it."""
        if self.who.operator:
            return told
        data: Json = told.get("data") or {}
        if self._is_hidden(told["type"], data):
            return None
        told = told | {"data": {name: value for name, value in data.items() if name in _TOLD}}
        if verdict := data.get("verdict"):
            told["data"]["verdict"] = _figures(verdict)
        if isinstance(version := data.get("version"), dict):
            told["data"]["version"] = self.version(version)
        return told

    def _is_hidden(self, type: str, data: Json) -> bool:
        if type == "version.added":
            tenants = data["version"].get("tenants", ())
            if tenants and self.who.tenant not in tenants:
                self._hidden.add(f"{data['version']['model']}@{data['version']['name']}")
                return True
            return False
        if type == "swap.begun" and self.hides(data["to"]):
            self._swaps.add(data["swap"])
        return data.get("swap") in self._swaps or self.hides(data.get("version", ""))


def _share(canary: Json) -> Json:
    return {name: canary[name] for name in canary.keys() & {"percent"}}


def _figures(verdict: Json) -> Json:
    return verdict | {name: [] for name in verdict.keys() & {"reasons", "notes"}}
