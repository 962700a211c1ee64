"""Which replicas there are, and which version each of them counts for.

A replica's name has the version it was *started* with; what it *serves* it says itself, as its weights may
have been swapped in place since.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

import msgspec

from flotilla.core.members import Member
from flotilla.core.versions import Placed, Plan, Plans, version_of

DEATHS_WITHIN_S = 600.0
# A beat, and a look at the directory, with time to spare.
RELOADED_SETTLES_S = 5.0


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be seen at `now`. `members` are the replicas that beat; `running` the names of those that
    the scheduler runs, or means to run (again); `failed` says why some of them can't start."""

    plans: Plans
    members: Sequence[Member]
    running: Collection[str]
    failed: Mapping[str, str] = {}
    now: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A replica, and since when, in seconds of the monotonic clock. `deaths` are those of late; `ended` it
    is if it was to be, though the scheduler may still list it."""

    serves: str
    life: str = ""
    silent_since: float | None = None
    draining_since: float | None = None
    deaths: tuple[float, ...] = ()
    ended: bool = False


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
    """`highest` are the last numbers in use, by version; `reloading` says until when versions count as being
    reloaded: a little longer than the plan says so, until every replica has told what it serves now."""

    versions: dict[str, Watched] = {}
    replicas: dict[str, Seen] = {}
    highest: dict[str, int] = {}
    reloading: dict[str, float] = {}


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """`member` is None while it doesn't beat."""

    name: str
    seen: Seen
    member: Member | None

    @property
    def stays(self) -> bool:
        return not self.seen.ended and self.seen.draining_since is None

    @property
    def up(self) -> bool:
        return self.stays and self.member is not None

    @property
    def coming(self) -> bool:
        return self.stays and self.member is None

    @property
    def reloading(self) -> bool:
        return self.load("reloading") > 0

    def load(self, name: str) -> float:
        return self.member.load.get(name, 0.0) if self.member else 0.0


# -- who is there


def look(sight: Sight, history: History) -> list[Replica]:
    """Those of models with a plan, by name."""
    beating = {member.name: member for member in sight.members}
    names = sorted({*beating, *sight.running})
    ours = [name for name in names if model_of(name) in sight.plans and number_of(name) is not None]
    return [_replica(name, beating.get(name), sight.now, history.replicas.get(name)) for name in ours]


def _replica(name: str, member: Member | None, now: float, before: Seen | None) -> Replica:
    seen = before or Seen(serves=version_of(name))
    if member is None:
        since = now if seen.silent_since is None else seen.silent_since
        return Replica(name=name, member=None, seen=msgspec.structs.replace(seen, silent_since=since))
    died = (now,) if seen.life not in ("", member.life) else ()
    seen = msgspec.structs.replace(
        seen,
        serves=member.info.get("version", version_of(name)),
        life=member.life,
        silent_since=None,
        draining_since=_draining_since(member, seen, now),
        deaths=tuple(at for at in (*seen.deaths, *died) if now - at < DEATHS_WITHIN_S),
    )
    return Replica(name=name, member=member, seen=seen)


def _draining_since(member: Member, seen: Seen, now: float) -> float | None:
    """One that is started again in the middle of it still leaves."""
    return now if seen.draining_since is None and member.state == "draining" else seen.draining_since


def model_of(name: str) -> str:
    return version_of(name).partition("@")[0]


def number_of(name: str) -> int | None:
    """The N of `MODEL@VERSION.N`; None for a name of another kind."""
    version, _, digits = name.rpartition(".")
    return int(digits) if digits.isdecimal() and "@" in version else None


def highest(plans: Plans, replicas: Iterable[Replica], history: History) -> dict[str, int]:
    """The highest number in use or known, by version."""
    known = {id for each in plans.values() for id in each.versions}
    numbers = {id: number for id, number in history.highest.items() if id in known}
    for replica in replicas:
        version = version_of(replica.name)
        numbers[version] = max(numbers.get(version, 0), number_of(replica.name) or 0)
    return numbers


# -- what each counts for


def reloading(sight: Sight, history: History) -> dict[str, float]:
    """The versions that are being reloaded, and until when they count as such at least."""
    still = {id: until for id, until in history.reloading.items() if until > sight.now}
    named = (id for plan in sight.plans.values() for id in plan.reloading)
    return still | dict.fromkeys(named, sight.now + RELOADED_SETTLES_S)


def crew_of(placed: Placed, replicas: Iterable[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.seen.serves == placed.version.id]


def is_over(replica: Replica, sight: Sight, reloading: Container[str]) -> bool:
    """Whether nobody wants it any more: neither as a replica that is to be, nor to be answered by."""
    plan = sight.plans[model_of(replica.name)]
    wanted = {placed.version.id for placed in plan.placed} | _used(plan)
    return (
        replica.seen.serves not in wanted and not replica.reloading and replica.seen.serves not in reloading
    )


def _used(plan: Plan) -> set[str]:
    """The versions, with engines of their own, that somebody is answered by."""
    asked = (plan.route.stable, plan.route.candidate) if plan.route else ()
    return {plan.versions[id].runs_on if id in plan.versions else id for id in asked if id}
