"""The plans as this process last read them, and which version a name in a prompt means."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Origin, Prompt
from flotilla.core.policy.canary import may_use, version_for
from flotilla.core.versions import FLEET, Plan, Plans, Route, Version

NOTHING_KNOWN_RETRY_S = 0.5


class Catalogue:
    """`default` is the model for prompts that name none; without it, the first that answers."""

    def __init__(self, default: str = "") -> None:
        self.plans: Plans = {}
        self._default = default

    def __repr__(self) -> str:
        return f"<Catalogue of {', '.join(sorted(self.plans)) or 'nothing'}>"

    def take(self, plans: Plans) -> None:
        """What hangs on the board now. A plan that is missing there was lost, as no model is ever without one:
        it holds until it is hung up again."""
        self.plans = self.plans | plans

    @property
    def default(self) -> str:
        """The model for prompts that name none; nothing (`""`) while none answers."""
        if self._default:
            return self._default
        return next((name for name, plan in sorted(self.plans.items()) if plan.route), "")

    def version(self, id: str) -> Version | None:
        plan = self.plans.get(model_of(id))
        return plan.versions.get(id) if plan else None

    def there(self, id: str) -> Version | None:
        """Like `version`; also one that replicas are being reloaded with, which may have begun a reply."""
        plan = self.plans.get(model_of(id))
        if plan is None or id in plan.versions or id not in plan.reloading or plan.route is None:
            return self.version(id)
        stable = plan.versions.get(plan.route.stable)
        return stable and _named_as(stable, id)

    def route(self, model: str) -> Route | None:
        plan = self.plans.get(model)
        return plan.route if plan else None

    def __iter__(self) -> Iterator[Version]:
        return (version for plan in self.plans.values() for version in plan.versions.values())

    # -- what a name means

    def choose(self, origin: Origin, wanted: str = "") -> Version:
        """See `ModelDoor.choose`."""
        if not self._is_read:
            raise Unavailable("The models are not known yet.", retry_after_s=NOTHING_KNOWN_RETRY_S)
        version = self.version(wanted) if "@" in wanted else self._of_model(origin, wanted)
        if version is None or not may_use(version, origin.tenant):
            raise NotFound(f"There is no model {wanted!r}.", field="model", next=self._instead(origin.tenant))
        return version

    @property
    def _is_read(self) -> bool:
        """A process that has just started knows of nothing; nor does a board that was lost, at first, and then of
        some. What a name means can be said once the model is there that always is."""
        return self._default in self.plans if self._default else bool(self.plans)

    def resolve(self, prompt: Prompt) -> Version:
        """Like `choose`, for a reply whose version was chosen some time ago: one that is in no plan any more
        is followed by its model's stable one: nobody is left who could go on with it. Not for the fleet
        itself, which wants to know of that very version. `Unavailable` for what was begun by a model of which
        only other processes have read so far."""
        kept = bool(prompt.said) or prompt.pinned
        if kept and "@" in prompt.model and model_of(prompt.model) not in self.plans:
            raise Unavailable(f"{prompt.model} is not known here yet.", retry_after_s=NOTHING_KNOWN_RETRY_S)
        if kept and (begun_by := self.there(prompt.model)) and may_use(begun_by, prompt.origin.tenant):
            return begun_by
        route = self.route(model_of(prompt.model))
        gone = "@" in prompt.model and self.version(prompt.model) is None
        if gone and route is not None and prompt.origin.tenant != FLEET:
            return self.choose(prompt.origin, route.stable)
        return self.choose(prompt.origin, prompt.model)

    def instead_of(self, version: Version, origin: Origin) -> list[Version]:
        """Who may answer when `version` can't, in order: what its replicas are being made of in place, its
        model's stable version, then the route's fallbacks. Nobody for the fleet itself, which wants to know
        how that very version does."""
        plan = self.plans.get(version.model)
        if plan is None or plan.route is None or origin.tenant == FLEET:
            return []
        named = (self._named(name, origin) for name in (plan.route.stable, *plan.route.fallbacks))
        found = {other.id: other for other in (*_in_its_place(version, plan), *named) if other}
        found.pop(version.id, None)
        return [other for other in found.values() if may_use(other, origin.tenant)]

    def _named(self, name: str, origin: Origin) -> Version | None:
        plan = self.plans.get(model_of(name))
        if plan is None or "@" in name:
            return plan.versions.get(name) if plan else None
        return plan.versions.get(version_for(plan.route, plan.versions, origin)) if plan.route else None

    def _of_model(self, origin: Origin, wanted: str) -> Version | None:
        name = wanted or self.default
        if not name:
            raise Unavailable("No model is known yet.", retry_after_s=NOTHING_KNOWN_RETRY_S)
        if name in self.plans and self.plans[name].route is None:
            raise Unavailable(f"{name} has no version that answers yet.", retry_after_s=1.0)
        return self._named(name, origin)

    def _instead(self, tenant: str) -> str:
        names = sorted({version.model for version in self if may_use(version, tenant)})
        return f"Ask for {' or '.join(names)}." if names else "Add one with `flotilla models add`."


def _in_its_place(version: Version, plan: Plan) -> Iterator[Version]:
    """While its replicas are reloaded one by one some serve the other version already, which is no version
    to be asked for yet. Whoever asks needs no more of it than its name."""
    if version.id in plan.reloading:
        for id in plan.reloading:
            yield _named_as(version, id)


def _named_as(version: Version, id: str) -> Version:
    return msgspec.structs.replace(version, name=id.partition("@")[2])


def model_of(wanted: str) -> str:
    """The model's name in the name of a model or the id of a version."""
    return wanted.partition("@")[0]
