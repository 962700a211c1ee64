"""What a model wants of the fleet, from where its swap has come to.

| the swap is | replicas of | everybody is answered by | but |
|---|---|---|---|
| loading, warming, evaluating | both | the stable version | |
| shadowing | both | the stable version | the candidate makes a share of the replies too, unless it is paused |
| at a step of the canary | both | the stable version | the candidate answers the canary |
| promoted, retiring | both | the candidate | |
| turned back | both, until the candidate has nobody left | the stable version | |

An adapter runs on its base: that one has the replicas, if it is of this model. In place, replicas are of
whichever version is stable, and the controller leaves them alone while they are reloaded.

What has no replicas to run on may not be asked for: who was given the name of a version that is gone, or of
an adapter whose base is gone, is answered by the stable version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from flotilla.core.swap_facts import Served
from flotilla.core.swap_state import Swap
from flotilla.core.versions import Canary, Placed, Plan, Route, Version


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas each version is to have, with which resources of Ray's."""

    least: int = 1
    most: int = 1
    cpus: float = 0.0
    gpus: float = 0.0

    def changed(self, fact: Served) -> Sizes:
        """With what the fact sets; None in it is for what stays."""
        return Sizes(
            least=self.least if fact.least is None else fact.least,
            most=self.most if fact.most is None else fact.most,
            cpus=self.cpus if fact.cpus is None else fact.cpus,
            gpus=self.gpus if fact.gpus is None else fact.gpus,
        )


def plan_of(
    *,
    model: str,
    revision: int,
    versions: Mapping[str, Version],
    stable: str,
    sizes: Sizes,
    fallbacks: tuple[str, ...],
    swap: Swap | None,
) -> Plan:
    serving = list(_serving(stable, swap))
    bases = dict.fromkeys(versions[id].runs_on for id in serving)
    placed = [versions[id] for id in bases if id in versions]
    return Plan(
        model=model,
        revision=revision,
        stage=_stage(swap),
        route=_route(stable, fallbacks, swap) if stable else None,
        versions={id: one for id, one in versions.items() if id in serving or _runs(one, bases)},
        placed=tuple(_placed(version, sizes, swap) for version in placed),
        reloading=_reloading(swap),
    )


def _stage(swap: Swap | None) -> str:
    if swap is None:
        return ""
    return "turned_back" if swap.turned else swap.stage


def _serving(stable: str, swap: Swap | None) -> Iterator[str]:
    if stable:
        yield stable
    if swap is not None and not swap.order.in_place:
        yield from (swap.from_, swap.to)


def _runs(version: Version, bases: Mapping[str, None]) -> bool:
    """Whether it has replicas to run on; of an adapter on another model's version nobody here knows."""
    return version.runs_on in bases or version.base.partition("@")[0] not in ("", version.model)


def _placed(version: Version, sizes: Sizes, swap: Swap | None) -> Placed:
    """What is swapped in has at least one replica, also where there are none while nobody asks."""
    least = max(1, sizes.least) if swap is not None else sizes.least
    return Placed(version=version, least=least, most=max(least, sizes.most), cpus=sizes.cpus, gpus=sizes.gpus)


def _reloading(swap: Swap | None) -> tuple[str, ...]:
    if swap is None or not swap.order.in_place or swap.promoted:
        return ()
    return (swap.from_, swap.to)


def _route(stable: str, fallbacks: tuple[str, ...], swap: Swap | None) -> Route:
    route = Route(stable=stable, fallbacks=fallbacks)
    if swap is None or swap.turned:
        return route
    if swap.stage == "shadowing" and not swap.paused:
        share = swap.order.shadow_share
        return msgspec.structs.replace(route, candidate=swap.to, shadow=share, salt=swap.id)
    if swap.stage == "canary":
        canary: Canary = swap.order.steps[swap.step].canary
        return msgspec.structs.replace(route, candidate=swap.to, canary=canary, salt=swap.id)
    return route
