"""How many replicas each version should have, and which: decided once a second from plans and beats.

The judgement rests on what everybody can see: the plans of the models, the directory, the names that the
scheduler knows. So two controllers that see the same decide the same. `History` says for how long something
has been so. A replica's name has the version it was *started* with; what it *serves* it says itself, as its
weights may have been swapped in place since.

A replica is ended only for a reason that a plan gives. One of a model without a plan is left alone, and so
is one that is being reloaded, or whose version somebody is answered by though it is not placed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from flotilla.core.members import Member
from flotilla.core.versions import Placed, Plan, Plans, replica_name, version_of

HIGH_FOR_S, LOW_FOR_S = 5.0, 120.0
# After any change of who is up, so that what it did can be seen before the next one.
COOL_DOWN_S = 30.0
# With no more replies at a time than this for each that would be left, there is one too many.
RUNNING_LOW = 1.0
# An engine with large weights takes minutes to start, and Ray starts again what dies.
UP_AFTER_S = 900.0
DEATHS_MAX, DEATHS_WITHIN_S = 5, 600.0
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


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A replica, and since when, in seconds of the monotonic clock. `deaths` are those of late."""

    serves: str
    was: str = ""
    life: str = ""
    silent_since: float | None = None
    draining_since: float | None = None
    deaths: tuple[float, ...] = ()


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A placed version. `failures` were given up in a row; none is started before `again_at`."""

    wanted: int = 0
    up: frozenset[str] = frozenset()
    hot_since: float | None = None
    cold_since: float | None = None
    changed_at: float = -math.inf
    failures: int = 0
    again_at: float = -math.inf


class History(msgspec.Struct, frozen=True, kw_only=True):
    """`highest` are the last numbers in use, by version."""

    versions: dict[str, Watched] = {}
    replicas: dict[str, Seen] = {}
    highest: dict[str, int] = {}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas to start, to drain (or go on draining) and to end; why versions were given up for now, and
    those that have recovered since."""

    start: tuple[tuple[str, Placed], ...] = ()
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    gave_up: dict[str, str] = {}
    recovered: tuple[str, ...] = ()
    history: History


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be seen of one: `member` is None while it doesn't beat."""

    name: str
    seen: Seen
    member: Member | None

    @property
    def up(self) -> bool:
        return self.member is not None and self.seen.draining_since is None

    @property
    def coming(self) -> bool:
        return self.member is None and self.seen.draining_since is None

    @property
    def reloading(self) -> bool:
        return self.load("reloading") > 0

    def load(self, name: str) -> float:
        return self.member.load.get(name, 0.0) if self.member else 0.0


def plan(
    plans: Plans,
    members: Sequence[Member],
    running: Collection[str],
    failed: Mapping[str, str],
    now: float,
    history: History,
    targets: Targets = Targets(),  # noqa: B008 (frozen)
) -> Decision:
    """What to do at `now`. `members` are the replicas that beat; `running` the names of those that the
    scheduler runs, or means to run (again); `failed` says why some of them can't start."""
    replicas = _look(plans, members, running, now, history)
    highest = _highest(plans, replicas, history)
    parts = [
        _version(placed, _of(placed, each, replicas), failed, now, history, targets, highest)
        for each in plans.values()
        for placed in each.placed
    ]
    leaving = _leaving(plans, replicas, failed, now)
    return _joined([*parts, leaving], replicas, highest, now)


# -- who is there


def _look(
    plans: Plans, members: Sequence[Member], running: Collection[str], now: float, history: History
) -> list[Replica]:
    """Those of models with a plan."""
    beating = {member.name: member for member in members}
    names = sorted({*beating, *running})
    ours = [name for name in names if _model(name) in plans and number_of(name) is not None]
    return [_replica(name, beating.get(name), now, history.replicas.get(name)) for name in ours]


def _replica(name: str, member: Member | None, now: float, before: Seen | None) -> Replica:
    seen = before or Seen(serves=version_of(name))
    if member is None:
        since = now if seen.silent_since is None else seen.silent_since
        return Replica(name=name, member=None, seen=msgspec.structs.replace(seen, silent_since=since))
    died = (now,) if seen.life not in ("", member.life) else ()
    seen = msgspec.structs.replace(
        seen,
        serves=member.info.get("version", version_of(name)),
        was=member.info.get("was", ""),
        life=member.life,
        silent_since=None,
        draining_since=_draining_since(member, seen, now),
        deaths=tuple(at for at in (*seen.deaths, *died) if now - at < DEATHS_WITHIN_S),
    )
    return Replica(name=name, member=member, seen=seen)


def _draining_since(member: Member, seen: Seen, now: float) -> float | None:
    """One that is started again in the middle of it still leaves."""
    return now if seen.draining_since is None and member.state == "draining" else seen.draining_since


def _model(name: str) -> str:
    return version_of(name).partition("@")[0]


def number_of(name: str) -> int | None:
    """The N of `MODEL@VERSION.N`; None for a name of another kind."""
    version, _, digits = name.rpartition(".")
    return int(digits) if digits.isdecimal() and "@" in version else None


def _highest(plans: Plans, replicas: Iterable[Replica], history: History) -> dict[str, int]:
    known = {id for each in plans.values() for id in each.versions}
    highest = {id: number for id, number in history.highest.items() if id in known}
    for replica in replicas:
        version = version_of(replica.name)
        highest[version] = max(highest.get(version, 0), number_of(replica.name) or 0)
    return highest


# -- what each counts for


def _counts_for(replica: Replica, plan: Plan) -> str:
    """The placed version that it is a replica of; "" for none. In the middle of a reload in place it still
    stands for the version that it was."""
    placed = {each.version.id for each in plan.placed}
    return next((id for id in (replica.seen.serves, replica.seen.was) if id in placed), "")


def _of(placed: Placed, plan: Plan, replicas: Iterable[Replica]) -> list[Replica]:
    here = (replica for replica in replicas if _model(replica.name) == plan.model)
    return [replica for replica in here if _counts_for(replica, plan) == placed.version.id]


def _used(plan: Plan) -> set[str]:
    """The versions, with engines of their own, that somebody is answered by."""
    asked = (plan.route.stable, plan.route.candidate) if plan.route else ()
    return {plan.versions[id].runs_on if id in plan.versions else id for id in asked if id}


# -- one version


def _version(
    placed: Placed,
    crew: Sequence[Replica],
    failed: Mapping[str, str],
    now: float,
    history: History,
    targets: Targets,
    highest: Mapping[str, int],
) -> Decision:
    id = placed.version.id
    before = history.versions.get(id, Watched())
    given_up = _given_up(crew, failed, now)
    up = [replica for replica in crew if replica.up and replica.name not in given_up]
    coming = [replica for replica in crew if replica.coming and replica.name not in given_up]
    watched = _watched(up, before, placed, now, targets)
    watched = _after_failures(watched, given_up, now)
    wanted = _wanted(watched, up, coming, placed, now, targets, given_up=bool(given_up))
    stop, drain = _surplus(up, coming, wanted)
    start = _to_start(watched, wanted - len(up) - len(coming), len(coming), now)
    names = (replica_name(id, highest.get(id, 0) + n) for n in range(1, start + 1))
    return Decision(
        start=tuple((name, placed) for name in names),
        drain=tuple(drain),
        stop=(*given_up, *stop),
        gave_up={id: reason for reason in given_up.values()},
        recovered=(id,) if before.failures and not watched.failures else (),
        history=History(versions={id: msgspec.structs.replace(watched, wanted=wanted)}),
    )


def _given_up(crew: Iterable[Replica], failed: Mapping[str, str], now: float) -> dict[str, str]:
    found = {replica.name: _why_not(replica, failed, now) for replica in crew}
    return {name: reason for name, reason in found.items() if reason}


def _why_not(replica: Replica, failed: Mapping[str, str], now: float) -> str:
    silent = replica.seen.silent_since
    if replica.member is None and replica.name in failed:
        return failed[replica.name]
    if silent is not None and now - silent > UP_AFTER_S:
        return f"{replica.name} was not up after {UP_AFTER_S:.0f} s."
    if len(replica.seen.deaths) >= DEATHS_MAX:
        return f"{replica.name} died {DEATHS_MAX} times in {DEATHS_WITHIN_S:.0f} s."
    return ""


def _watched(up: Sequence[Replica], before: Watched, placed: Placed, now: float, targets: Targets) -> Watched:
    names = frozenset(replica.name for replica in up)
    changed = names != before.up
    since = Watched() if changed else before
    return msgspec.structs.replace(
        before,
        up=names,
        hot_since=_since(since.hot_since, _hot(up, targets), now),
        cold_since=_since(since.cold_since, _cold(up, placed), now),
        changed_at=now if changed else before.changed_at,
        failures=0 if names - before.up else before.failures,
    )


def _after_failures(watched: Watched, given_up: Collection[str], now: float) -> Watched:
    """The pause is doubled with each failure in a row."""
    if not given_up:
        return watched
    pause_s = min(AGAIN_AFTER_MAX_S, AGAIN_AFTER_S * 2 ** min(watched.failures, 10))
    return msgspec.structs.replace(watched, failures=watched.failures + 1, again_at=now + pause_s)


def _to_start(watched: Watched, missing: int, coming: int, now: float) -> int:
    """After a failure one is tried, and the others wait for what becomes of it."""
    if now < watched.again_at:
        return 0
    return max(0, min(missing, 1 - coming) if watched.failures else missing)


def _wanted(
    watched: Watched,
    up: Sequence[Replica],
    coming: Sequence[Replica],
    placed: Placed,
    now: float,
    targets: Targets,
    *,
    given_up: bool,
) -> int:
    """Those missing are replaced at once; else there is one change at a time."""
    present = len(up) + len(coming)
    wanted = present if given_up else max(watched.wanted, present)
    wanted = min(max(wanted, placed.least), placed.most)
    steady = wanted == present and not coming and now - watched.changed_at >= COOL_DOWN_S
    if steady and _lasted(watched.hot_since, now, HIGH_FOR_S):
        return min(wanted + _more(up, targets), placed.most)
    if steady and _lasted(watched.cold_since, now, LOW_FOR_S):
        return wanted - 1
    return wanted


def _surplus(up: Sequence[Replica], coming: Sequence[Replica], wanted: int) -> tuple[list[str], list[str]]:
    """Whom to end and whom to drain: first those that don't serve yet, then the youngest."""
    surplus = max(0, len(up) + len(coming) - wanted)
    stop = _youngest(coming)[:surplus]
    idle = [replica for replica in up if not replica.reloading]
    return stop, _youngest(idle)[: surplus - len(stop)]


def _youngest(replicas: Iterable[Replica]) -> list[str]:
    names = (replica.name for replica in replicas)
    return sorted(names, key=lambda name: (number_of(name) or 0, name), reverse=True)


# -- load


def _hot(up: Sequence[Replica], targets: Targets) -> bool:
    """A first token that is slow where nobody is in another's way would be as slow at any other replica."""
    if not up:
        return False
    slow = _sum(up, "first_token_ms") > targets.first_token_ms * len(up)
    return _sum(up, "queued_tokens") > targets.queued_tokens * len(up) or (slow and _busy(up) >= 2 * len(up))


def _cold(up: Sequence[Replica], placed: Placed) -> bool:
    """The last one stays: nothing would be seen that could bring it back."""
    left = len(up) - 1
    return left >= max(placed.least, 1) and not _sum(up, "queued_tokens") and _busy(up) <= left * RUNNING_LOW


def _more(up: Sequence[Replica], targets: Targets) -> int:
    """As many as the queue asks for, and at most as many as there are: starting one takes long."""
    enough = math.ceil(_sum(up, "queued_tokens") / targets.queued_tokens)
    return min(max(1, enough - len(up)), len(up))


def _busy(up: Sequence[Replica]) -> float:
    return _sum(up, "running") + _sum(up, "waiting")


def _sum(up: Sequence[Replica], name: str) -> float:
    return sum(replica.load(name) for replica in up)


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasted(since: float | None, now: float, span_s: float) -> bool:
    return since is not None and now - since >= span_s


# -- those that leave


def _leaving(plans: Plans, replicas: Sequence[Replica], failed: Mapping[str, str], now: float) -> Decision:
    """Those of versions that are placed no longer, and the end of those that drain."""
    over = [replica for replica in replicas if _is_over(replica, plans[_model(replica.name)])]
    silent = (replica for replica in over if replica.member is None)
    gone = [r.name for r in silent if r.name in failed or _lasted(r.seen.silent_since, now, LEFT_AFTER_S)]
    drained = [replica.name for replica in replicas if _is_drained(replica, now)]
    drain = [r.name for r in replicas if r.member and (r in over or r.seen.draining_since is not None)]
    return Decision(drain=tuple(drain), stop=(*gone, *drained), history=History())


def _is_over(replica: Replica, plan: Plan) -> bool:
    if _counts_for(replica, plan) or replica.reloading:
        return False
    return not _used(plan).intersection((replica.seen.serves, replica.seen.was))


def _is_drained(replica: Replica, now: float) -> bool:
    if (since := replica.seen.draining_since) is None:
        return False
    if replica.member is None:
        return _lasted(replica.seen.silent_since, now, LEFT_AFTER_S)
    idle = replica.member.state == "draining" and not _busy([replica])
    return now - since >= (DRAIN_SETTLES_S if idle else DRAIN_MAX_S)


# -- all together


def _joined(
    parts: Sequence[Decision], replicas: Sequence[Replica], highest: dict[str, int], now: float
) -> Decision:
    stop = {name for part in parts for name in part.stop}
    drain = {name for part in parts for name in part.drain} - stop
    start = [each for part in parts for each in part.start]
    history = History(
        versions={id: watched for part in parts for id, watched in part.history.versions.items()},
        replicas={each.name: _marked(each.seen, each.name in drain, now) for each in replicas},
        highest=highest | {version_of(name): number_of(name) or 0 for name, _ in start},
    )
    return Decision(
        start=tuple(start),
        drain=tuple(sorted(drain)),
        stop=tuple(sorted(stop)),
        gave_up={id: reason for part in parts for id, reason in part.gave_up.items()},
        recovered=tuple(id for part in parts for id in part.recovered),
        history=history,
    )


def _marked(seen: Seen, draining: bool, now: float) -> Seen:
    since = now if draining and seen.draining_since is None else seen.draining_since
    return msgspec.structs.replace(seen, draining_since=since)
