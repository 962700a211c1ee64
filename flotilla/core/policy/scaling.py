"""How many hosts a fleet should have, and which: decided once a second from what the hosts say.

The judgement rests on what everybody can see, the directory and the names that the scheduler knows, so
that two controllers that see the same decide the same. What is remembered from one second to the next
(`History`) says for how long something has been so. Names count upwards: none comes back at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import msgspec

from flotilla.core.members import Member

# `busy` is the share of the last second in which a host's loop was working, 0 to 1.
BUSY_HIGH, HIGH_FOR_S = 0.75, 5.0
BUSY_LOW, LOW_FOR_S = 0.25, 60.0
# Of the activations that all hosts together may hold: now, and if there were one host fewer.
FULL_HIGH, FULL_LOW = 0.8, 0.4
# After any change of who is up, so that what it did can be seen before the next one.
COOL_DOWN_S = 30.0
# A host is given up that was up and hasn't come back; or that never was (it may have waited for a machine).
LOST_AFTER_S, NEVER_UP_AFTER_S = 30.0, 300.0


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many hosts there may be, and what one of them may hold."""

    least: int
    most: int
    activations_max: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What has been so, and since when, in seconds of the monotonic clock.

    `wanted` is the number of hosts that there should be: as many as there were, less those that left on
    purpose. `draining` are the names that are leaving, until nothing is left of them."""

    wanted: int = 0
    highest: int = -1
    up: frozenset[str] = frozenset()
    ever_up: frozenset[str] = frozenset()
    draining: frozenset[str] = frozenset()
    missing: dict[str, float] = {}
    hot_since: float | None = None
    cold_since: float | None = None
    changed_at: float = -math.inf


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Names of hosts to start, to drain (or go on draining), and to end because they don't come back."""

    start: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    history: History


def plan(
    hosts: Sequence[Member], running: Collection[str], bounds: Bounds, now: float, history: History
) -> Plan:
    """What to do at `now`. `hosts` are those that beat; `running` the names of those that the scheduler
    runs, or means to run (again)."""
    draining = _draining(hosts, running, history)
    up = [host for host in hosts if host.name not in draining]
    missing = _missing(hosts, draining, running, now, history)
    lost = [name for name, since in missing.items() if now - since > _patience_s(name, history)]
    coming = len(missing) - len(lost)
    seen = msgspec.structs.replace(
        _seen(up, running, bounds, now, history),
        wanted=_wanted(len(up) + coming, draining, lost, bounds, history),
        highest=max(history.highest, *map(_number, running), *(_number(host.name) for host in hosts), -1),
        draining=draining,
        missing=missing,
    )
    decided = _decide(up, coming, bounds, now, seen)
    return msgspec.structs.replace(decided, stop=tuple(sorted(lost)))


def _decide(up: Sequence[Member], coming: int, bounds: Bounds, now: float, seen: History) -> Plan:
    """Replaces who is missing at once; else changes the number of hosts by one, if it is time to."""
    start, leaving = seen.wanted - len(up) - coming, frozenset[str]()
    steady = start <= 0 and not coming and not seen.draining
    cool = steady and now - seen.changed_at >= COOL_DOWN_S
    if cool and len(up) < bounds.most and _lasted(seen.hot_since, now, HIGH_FOR_S):
        start = 1
    elif (steady and len(up) > bounds.most) or (
        cool and len(up) > bounds.least and _lasted(seen.cold_since, now, LOW_FOR_S)
    ):
        leaving = frozenset([max((host.name for host in up), key=_number)])
    names = tuple(f"host-{seen.highest + n}" for n in range(1, start + 1))
    history = msgspec.structs.replace(
        seen, draining=seen.draining | leaving, wanted=seen.wanted - len(leaving)
    )
    return Plan(start=names, drain=tuple(sorted(history.draining)), history=history)


# -- what is to be seen


def _draining(hosts: Iterable[Member], running: Collection[str], history: History) -> frozenset[str]:
    """Those that say so, and those that were: one that is started again in the middle of it still leaves."""
    there = {host.name for host in hosts}.union(running)
    return frozenset(host.name for host in hosts if host.state == "draining") | (history.draining & there)


def _missing(
    hosts: Iterable[Member],
    draining: Collection[str],
    running: Iterable[str],
    now: float,
    history: History,
) -> dict[str, float]:
    """Since when those that should beat don't."""
    beating = {host.name for host in hosts}
    silent = (name for name in running if name not in beating and name not in draining)
    return {name: history.missing.get(name, now) for name in silent}


def _patience_s(name: str, history: History) -> float:
    return LOST_AFTER_S if name in history.ever_up else NEVER_UP_AFTER_S


def _wanted(
    present: int, draining: frozenset[str], lost: Sequence[str], bounds: Bounds, history: History
) -> int:
    """One that never came up is not wanted any more: there was no room for it."""
    left = len(draining - history.draining) + sum(name not in history.ever_up for name in lost)
    return min(max(history.wanted - left, present, bounds.least), bounds.most)


def _seen(
    up: Sequence[Member], running: Collection[str], bounds: Bounds, now: float, history: History
) -> History:
    names = frozenset(host.name for host in up)
    changed = names != history.up
    before = History() if changed else history
    return msgspec.structs.replace(
        history,
        up=names,
        ever_up=history.ever_up.intersection(running) | names,
        hot_since=_since(before.hot_since, _hot(up, bounds), now),
        cold_since=_since(before.cold_since, _cold(up, bounds), now),
        changed_at=now if changed else history.changed_at,
    )


# -- load


def _hot(up: Sequence[Member], bounds: Bounds) -> bool:
    """What waits is not asked for: when it waits for a store, another host does not help."""
    return bool(up) and (_busy(up) > BUSY_HIGH or _full(up, len(up), bounds) > FULL_HIGH)


def _cold(up: Sequence[Member], bounds: Bounds) -> bool:
    return len(up) > 1 and _busy(up) < BUSY_LOW and _full(up, len(up) - 1, bounds) < FULL_LOW


def _busy(up: Sequence[Member]) -> float:
    return sum(host.load.get("busy", 0.0) for host in up) / len(up)


def _full(up: Sequence[Member], hosts: int, bounds: Bounds) -> float:
    """How full `hosts` hosts are, or would be, with all that is active; 1 is full."""
    return sum(host.load.get("activations", 0.0) for host in up) / (hosts * bounds.activations_max)


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasted(since: float | None, now: float, span_s: float) -> bool:
    return since is not None and now - since >= span_s


def _number(name: str) -> int:
    """The N of `host-N`; -1 for other names."""
    _, _, digits = name.rpartition("-")
    return int(digits) if digits.isdecimal() else -1
