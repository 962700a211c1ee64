"""How many replicas each version should have, and which: decided once a second from plans and beats.

The judgement rests on what everybody can see: the plans of the models, the directory, the names that the
scheduler knows. So two controllers that see the same decide the same. `History` says for how long something
has been so.

A replica is ended only for a reason that a plan gives. One of a model without a plan is left alone, and so
is one that is being reloaded, or whose version somebody is answered by though it is not placed. A model
that is to have no replicas says so in its plan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Sequence

import msgspec

from flotilla.core.policy import crew
from flotilla.core.policy.crew import DEATHS_WITHIN_S, History, Replica, Seen, Sight, Watched, number_of
from flotilla.core.versions import Placed, replica_name, version_of

HIGH_FOR_S, LOW_FOR_S = 5.0, 120.0
# After any change of who is up, so that what it did can be seen before the next one.
COOL_DOWN_S = 30.0
# With no more replies at a time than this for each that would be left, there is one too many.
RUNNING_LOW = 1.0
# An engine with large weights takes minutes to start, and Ray starts again what dies.
UP_AFTER_S = 900.0
DEATHS_MAX = 5
AGAIN_AFTER_S, AGAIN_AFTER_MAX_S = 30.0, 600.0
# A beat and a look at the roster, and everybody sends elsewhere.
DRAIN_SETTLES_S = 2.5
DRAIN_MAX_S = 180.0
# Who is not wanted and doesn't beat: the directory may have been down for a moment.
LEFT_AFTER_S = 10.0


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """Above these, on the average of its replicas, a version gets another one."""

    queued_tokens: float = 2048.0
    first_token_ms: float = 2000.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas to start, to drain (or go on draining) and to end; why versions were given up for now, and
    those that have recovered since."""

    start: tuple[tuple[str, Placed], ...] = ()
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    gave_up: dict[str, str] = {}
    recovered: tuple[str, ...] = ()
    history: History


def plan(sight: Sight, history: History, targets: Targets = Targets()) -> Decision:  # noqa: B008 (frozen)
    replicas = crew.look(sight, history)
    highest = crew.highest(sight.plans, replicas, history)
    reloading = crew.reloading(sight, history)
    parts = [_leaving(sight, replicas, reloading)]
    for placed in (placed for each in sight.plans.values() for placed in each.placed):
        id = placed.version.id
        if id in reloading and _anybody(placed, replicas):
            parts.append(_untouched(id, history))
            continue
        mine = _Version(placed, crew.crew_of(placed, replicas), sight, targets)
        parts.append(mine.decide(history.versions.get(id, Watched()), highest.get(id, 0)))
    return _joined(parts, replicas, sight.now, highest=highest, reloading=reloading)


def _anybody(placed: Placed, replicas: Sequence[Replica]) -> bool:
    """Whether a replica of the model is left, whose weights are being swapped in place, or were."""
    model = placed.version.model
    return any(replica.stays and crew.model_of(replica.name) == model for replica in replicas)


def _untouched(id: str, history: History) -> Decision:
    known = {id: history.versions[id]} if id in history.versions else {}
    return Decision(history=History(versions=known))


# -- one version


class _Version:
    """A placed version and its replicas, at one look."""

    def __init__(self, placed: Placed, replicas: Sequence[Replica], sight: Sight, targets: Targets) -> None:
        self.placed = placed
        self.now = sight.now
        self.targets = targets
        given_up = {each.name: _why_not(each, sight) for each in replicas if not each.seen.ended}
        self.given_up = {name: reason for name, reason in given_up.items() if reason}
        self.up = [each for each in replicas if each.up and each.name not in self.given_up]
        self.coming = [each for each in replicas if each.coming and each.name not in self.given_up]
        self.leaving = {each.name for each in replicas if each.seen.draining_since is not None}
        self.present = len(self.up) + len(self.coming)

    def decide(self, before: Watched, highest: int) -> Decision:
        id = self.placed.version.id
        left = len(self.leaving & before.up)  # another controller, or a person, has them leave
        watched = self._after_failures(self._watched(before))
        wanted = self._wanted(msgspec.structs.replace(watched, wanted=before.wanted - left))
        stop, drain = self._surplus(wanted)
        numbers = range(highest + 1, highest + 1 + self._to_start(watched, wanted))
        return Decision(
            start=tuple((replica_name(id, number), self.placed) for number in numbers),
            drain=tuple(drain),
            stop=(*self.given_up, *stop),
            gave_up={id: next(iter(self.given_up.values()))} if self.given_up else {},
            recovered=(id,) if before.failures and not watched.failures else (),
            history=History(versions={id: self._after(watched, wanted, drain)}),
        )

    def _after(self, watched: Watched, wanted: int, drain: Collection[str]) -> Watched:
        changed_at = self.now if drain else watched.changed_at
        up = watched.up.difference(drain)
        return msgspec.structs.replace(watched, wanted=wanted, up=up, changed_at=changed_at)

    def _watched(self, before: Watched) -> Watched:
        names = frozenset(replica.name for replica in self.up)
        changed = names != before.up
        since = Watched() if changed else before
        return msgspec.structs.replace(
            before,
            up=names,
            hot_since=_since(since.hot_since, self._hot(), self.now),
            cold_since=_since(since.cold_since, self._cold(), self.now),
            changed_at=self.now if changed else before.changed_at,
            failures=0 if names - before.up else before.failures,
        )

    def _after_failures(self, watched: Watched) -> Watched:
        """The pause is doubled with each failure in a row."""
        if not self.given_up:
            return watched
        pause_s = min(AGAIN_AFTER_MAX_S, AGAIN_AFTER_S * 2 ** min(watched.failures, 10))
        return msgspec.structs.replace(watched, failures=watched.failures + 1, again_at=self.now + pause_s)

    def _wanted(self, watched: Watched) -> int:
        """Those missing are replaced at once, but for those beyond the least that could not be started; else
        there is one change at a time."""
        wanted = self.present if self.given_up else max(watched.wanted, self.present)
        wanted = min(max(wanted, self.placed.least), self.placed.most)
        steady = wanted == self.present and not self.coming
        if not steady or self.now - watched.changed_at < COOL_DOWN_S:
            return wanted
        if _lasted(watched.hot_since, self.now, HIGH_FOR_S):
            return min(wanted + self._more(), self.placed.most)
        return wanted - _lasted(watched.cold_since, self.now, LOW_FOR_S)

    def _to_start(self, watched: Watched, wanted: int) -> int:
        """After a failure one is tried, and the others wait for what becomes of it."""
        if self.now < watched.again_at:
            return 0
        missing = wanted - self.present
        return max(0, min(missing, 1 - len(self.coming)) if watched.failures else missing)

    def _surplus(self, wanted: int) -> tuple[list[str], list[str]]:
        """Whom to end and whom to drain: first those that don't serve yet, then the youngest."""
        surplus = max(0, self.present - wanted)
        stop = _youngest(self.coming)[:surplus]
        idle = [replica for replica in self.up if not replica.reloading]
        return stop, _youngest(idle)[: surplus - len(stop)]

    # -- load

    def _hot(self) -> bool:
        """A first token that is slow where nobody is in another's way would be as slow elsewhere."""
        count, targets = len(self.up), self.targets
        slow = self._sum("first_token_ms") > targets.first_token_ms * count
        crowded = slow and self._busy() >= 2 * count
        return count > 0 and (crowded or self._sum("queued_tokens") > targets.queued_tokens * count)

    def _cold(self) -> bool:
        """The last one stays: nothing would be seen that could bring it back."""
        left = len(self.up) - 1
        enough = left >= max(self.placed.least, 1)
        return enough and not self._sum("queued_tokens") and self._busy() <= left * RUNNING_LOW

    def _more(self) -> int:
        """As many as the queue asks for, and at most as many as there are: starting one takes long."""
        enough = math.ceil(self._sum("queued_tokens") / self.targets.queued_tokens)
        return min(max(1, enough - len(self.up)), len(self.up))

    def _busy(self) -> float:
        return self._sum("running") + self._sum("waiting")

    def _sum(self, name: str) -> float:
        return sum(replica.load(name) for replica in self.up)


def _why_not(replica: Replica, sight: Sight) -> str:
    """Why a replica is given up; "" if it isn't."""
    silent = replica.seen.silent_since
    if replica.member is None and replica.name in sight.failed:
        return sight.failed[replica.name]
    if silent is not None and sight.now - silent > UP_AFTER_S:
        return f"{replica.name} was not up after {UP_AFTER_S:.0f} s."
    if len(replica.seen.deaths) >= DEATHS_MAX:
        return f"{replica.name} died {DEATHS_MAX} times in {DEATHS_WITHIN_S:.0f} s."
    return ""


def _youngest(replicas: Iterable[Replica]) -> list[str]:
    names = (replica.name for replica in replicas)
    return sorted(names, key=lambda name: (number_of(name) or 0, name), reverse=True)


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasted(since: float | None, now: float, span_s: float) -> bool:
    return since is not None and now - since >= span_s


# -- those that leave


def _leaving(sight: Sight, replicas: Sequence[Replica], reloading: Container[str]) -> Decision:
    """Those of versions that are placed no longer, and the end of those that drain."""
    over = {r.name for r in replicas if crew.is_over(r, sight, reloading)}
    drain = [r.name for r in replicas if r.member and (r.name in over or not r.stays)]
    stop = [r.name for r in replicas if _is_to_end(r, r.name in over, sight)]
    return Decision(drain=tuple(drain), stop=tuple(stop), history=History())


def _is_to_end(replica: Replica, over: bool, sight: Sight) -> bool:
    seen, now = replica.seen, sight.now
    if seen.ended:
        return True
    if replica.member is None:
        leaves = over or seen.draining_since is not None
        return leaves and (replica.name in sight.failed or _lasted(seen.silent_since, now, LEFT_AFTER_S))
    busy = replica.load("running") + replica.load("waiting")
    idle = replica.member.state == "draining" and not busy
    return _lasted(seen.draining_since, now, DRAIN_SETTLES_S if idle else DRAIN_MAX_S)


# -- all together


def _joined(
    parts: Sequence[Decision],
    replicas: Sequence[Replica],
    now: float,
    *,
    highest: dict[str, int],
    reloading: dict[str, float],
) -> Decision:
    stop = {name for part in parts for name in part.stop}
    drain = {name for part in parts for name in part.drain} - stop
    start = [each for part in parts for each in part.start]
    for name, _ in start:
        highest[version_of(name)] = max(highest.get(version_of(name), 0), number_of(name) or 0)
    return Decision(
        start=tuple(start),
        drain=tuple(sorted(drain)),
        stop=tuple(sorted(stop)),
        gave_up={id: reason for part in parts for id, reason in part.gave_up.items()},
        recovered=tuple(id for part in parts for id in part.recovered),
        history=History(
            versions={id: watched for part in parts for id, watched in part.history.versions.items()},
            replicas={each.name: _marked(each, drain, stop, now) for each in replicas},
            highest=highest,
            reloading=reloading,
        ),
    )


def _marked(replica: Replica, drain: Collection[str], stop: Collection[str], now: float) -> Seen:
    seen = replica.seen
    since = now if replica.name in drain and seen.draining_since is None else seen.draining_since
    return msgspec.structs.replace(seen, draining_since=since, ended=replica.name in stop)
