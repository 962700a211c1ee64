"""What a model's actor refuses, with the field at fault: versions that don't fit, orders that can't be."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from flotilla.core.errors import Conflict, LimitReached, NotFound, Refused, TooLarge
from flotilla.core.ids import is_name
from flotilla.core.policy.gate import check_gate
from flotilla.core.swap_facts import Serve
from flotilla.core.swap_orders import Budgets, CanaryStep, SwapOrder
from flotilla.core.versions import Canary, Plan, Version, check_version

VERSIONS_MAX = 1_000
VERSION_BYTES_MAX = 16 * 1024
REPLICAS_MAX = 1_000
FALLBACKS_MAX = 8
STEPS_MAX = 32
CANARY_NAMES_MAX = 100
"""Of each sort: every prompt is compared with all of them."""
SPAN_S_MAX = 30 * 86_400.0
COUNT_MAX = 1_000_000


def check_added(version: Version, model: str, known: Mapping[str, Version]) -> None:
    """Whether `version` can join the `known` ones of its model."""
    check_version(version)
    if version.model != model:
        raise Refused(
            f"{version.id} is no version of {model}.", field="model", next=f"Add it to {version.model}."
        )
    if (there := known.get(version.id)) is not None:
        if there != version:
            raise Conflict(
                f"{version.id} is there, with other content.",
                field="name",
                next="A version never changes: give the new one a name of its own.",
            )
        return
    if len(known) >= VERSIONS_MAX:
        raise LimitReached(f"{model} has {len(known)} versions; {VERSIONS_MAX} are the most.", field="name")
    if (size := len(msgspec.json.encode(version))) > VERSION_BYTES_MAX:
        raise TooLarge(f"The version has {size} bytes; {VERSION_BYTES_MAX} are the most.", field="settings")
    if version.base:
        _check_base(version, known)


def _check_base(version: Version, known: Mapping[str, Version]) -> None:
    """A base of another model is looked for when the adapter is loaded: its registry is another actor's."""
    model, at, name = version.base.partition("@")
    if not (at and is_name(model) and is_name(name)) or "@" in name:
        raise Refused(f"{version.base!r} is no id of a version.", field="base", next="Give MODEL@NAME.")
    if model != version.model:
        return
    if (base := known.get(version.base)) is None:
        raise NotFound(f"There is no version {version.base}.", field="base", next="Add the base first.")
    if base.base:
        raise Refused(f"{base.id} is an adapter itself.", field="base", next=f"Use its base, {base.base}.")


def check_dropped(version: Version, known: Mapping[str, Version], plan: Plan) -> None:
    """Whether nobody needs `version` any more: nobody is answered by it, nothing runs it or on it."""
    if plan.route is not None and version.id == plan.route.stable:
        raise Refused(f"{version.id} answers.", field="version", next="Swap to another version first.")
    if version.id in {placed.version.id for placed in plan.placed}:
        raise Conflict(
            f"{version.id} is loaded, for a swap or for an adapter.",
            field="version",
            next="Wait for the end of the swap, or swap to a version that does without it.",
        )
    if above := [one.id for one in known.values() if one.base == version.id]:
        raise Conflict(
            f"{', '.join(above)} runs on {version.id}.", field="version", next="Drop the adapters first."
        )


def check_served(serve: Serve, model: str) -> None:
    _within(serve.least, 0, REPLICAS_MAX, "least")
    _within(serve.most, 1, REPLICAS_MAX, "most")
    _within(serve.cpus, 0.0, 1024.0, "cpus")
    _within(serve.gpus, 0.0, 1024.0, "gpus")
    fallbacks = serve.fallbacks or ()
    if len(fallbacks) > FALLBACKS_MAX:
        raise Refused(f"{FALLBACKS_MAX} fallbacks are the most.", field="fallbacks")
    for fallback in fallbacks:
        if fallback == model or not all(map(is_name, fallback.split("@", 1))):
            raise Refused(f"{model} can't fall back to {fallback!r}.", field="fallbacks")


def check_order(order: SwapOrder, stable: Version, candidate: Version) -> None:
    """Raises `Refused` with the field at fault, as a path in the order."""
    if (order.in_place or order.automatic or not order.steps) and (why := leaves_out(stable, candidate)):
        raise Refused(why, field="to", next="Try it by hand (`automatic` false), or ask for it by its id.")
    if order.in_place:
        _check_in_place(stable, candidate)
    if order.gate is not None:
        check_gate(order.gate, "order.gate")
    _within(order.shadow_share, 0.0, 1.0, "order.shadow_share")
    _within(order.shadow_replies, 0, COUNT_MAX, "order.shadow_replies")
    if order.shadow_replies and not order.shadow_share:
        raise Refused("A shadow needs a share of the replies.", field="order.shadow_share")
    _within(order.shadow_max_s, 0.0, SPAN_S_MAX, "order.shadow_max_s")
    _within(order.load_max_s, 0.001, SPAN_S_MAX, "order.load_max_s")
    _within(order.keep_s, 0.0, SPAN_S_MAX, "order.keep_s")
    _check_budgets(order.budgets)
    if len(order.steps) > STEPS_MAX:
        raise Refused(f"A canary has {STEPS_MAX} steps at most.", field="order.steps")
    for n, step in enumerate(order.steps):
        _check_step(step, f"order.steps.{n}")


def leaves_out(stable: Version, candidate: Version) -> str:
    """Why the candidate can't take the stable version's place, as somebody would be answered by nobody; "" if
    all whom that one answers may use it."""
    if not candidate.tenants or (stable.tenants and {*stable.tenants} <= {*candidate.tenants}):
        return ""
    return (
        f"{candidate.id} is for {', '.join(candidate.tenants)} alone: others would be left without an answer."
    )


def _check_in_place(stable: Version, candidate: Version) -> None:
    if stable.adapter or candidate.adapter:
        raise Refused(
            "An adapter is loaded beside its base: nothing is swapped in place.",
            field="order.in_place",
            next="Leave `in_place` out.",
        )
    if stable.engine != candidate.engine:
        raise Refused(
            f"{stable.id} runs on {stable.engine} and {candidate.id} on {candidate.engine}: "
            "no replica can turn from one into the other.",
            field="order.in_place",
            next="Leave `in_place` out.",
        )


def _check_budgets(budgets: Budgets) -> None:
    _within(budgets.error_share_max, 0.0, 1.0, "order.budgets.error_share_max")
    _within(budgets.errors_min, 1, COUNT_MAX, "order.budgets.errors_min")
    _within(budgets.first_token_ratio_max, 1.0, 1000.0, "order.budgets.first_token_ratio_max")
    _within(budgets.first_token_slack_ms, 0.0, 1e6, "order.budgets.first_token_slack_ms")
    _within(budgets.quality_drop_max, 0.0, 1.0, "order.budgets.quality_drop_max")
    _within(budgets.replies_min, 1, COUNT_MAX, "order.budgets.replies_min")


def _check_step(step: CanaryStep, field: str) -> None:
    _within(step.hold_s, 0.0, SPAN_S_MAX, f"{field}.hold_s")
    _within(step.hold_max_s, step.hold_s, SPAN_S_MAX, f"{field}.hold_max_s")
    _within(step.replies_min, 0, COUNT_MAX, f"{field}.replies_min")
    _check_canary(step.canary, f"{field}.canary")


def _check_canary(canary: Canary, field: str) -> None:
    _within(canary.percent, 0.0, 100.0, f"{field}.percent")
    for sort in ("tenants", "agents", "conversations"):
        names: tuple[str, ...] = getattr(canary, sort)
        if len(names) > CANARY_NAMES_MAX:
            raise Refused(f"{CANARY_NAMES_MAX} {sort} are the most.", field=f"{field}.{sort}")
        for name in names:
            parts = [name] if sort == "tenants" else name.split("/", 1)
            if len(parts) != 1 + (sort != "tenants") or not all(map(is_name, parts)):
                form = "a tenant" if sort == "tenants" else "TENANT/NAME"
                raise Refused(f"{name!r} is not {form}.", field=f"{field}.{sort}")


def _within(value: float | None, least: float, most: float, field: str) -> None:
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise Refused(f"`{field}` is {least:g} to {most:g}, not {value:g}.", field=field)
