"""What can go wrong, and what to do next.

Every error that leaves the fleet is one of these. Each has a stable `type`, an
HTTP status, and room for the field at fault, the next move and the time after
which trying again helps. They travel between processes as a `Problem` and
reach clients as RFC 9457 documents.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

TYPE_PREFIX = "https://flotilla.dev/problems/"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An RFC 9457 problem document. `request_id` is that of the answer which it is in; `instead` names what is
    there in place of what was asked for."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    next: str | None = None
    retry_after_s: float | None = None
    instead: str | None = None
    request_id: str | None = None


class FlotillaError(Exception):
    """The root of all errors that a caller may see."""

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something broke inside the fleet"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        next: str | None = None,
        retry_after_s: float | None = None,
        instead: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.next = next
        self.retry_after_s = retry_after_s
        self.instead = instead

    def problem(self) -> Problem:
        return Problem(
            type=TYPE_PREFIX + self.slug,
            title=self.title,
            status=self.status,
            detail=self.detail,
            field=self.field,
            next=self.next,
            retry_after_s=self.retry_after_s,
            instead=self.instead,
        )

    def __str__(self) -> str:
        return f"{self.detail} {self.next}" if self.next else self.detail


class Refused(FlotillaError):
    """The request is wrong as it stands; the person can mend it."""

    slug, title, status = "refused", "The request can't be taken as it is", 422


class TooLarge(FlotillaError):
    slug, title, status = "too-large", "Larger than the limit", 413


class TooSlow(FlotillaError):
    slug, title, status = "too-slow", "The request did not come in time", 408


class Unauthenticated(FlotillaError):
    slug, title, status = "unauthenticated", "No valid key or token", 401


class Forbidden(FlotillaError):
    slug, title, status = "forbidden", "Not allowed with this key or token", 403


class NotFound(FlotillaError):
    slug, title, status = "not-found", "There is no such thing here", 404


class Conflict(FlotillaError):
    """Someone else got there first: another owner, or other content under the same id."""

    slug, title, status = "conflict", "In conflict with what is already recorded", 409


class LimitReached(FlotillaError):
    """The caller is over a limit of its own."""

    slug, title, status = "limit-reached", "Over a limit", 429


class Rejected(FlotillaError):
    """The actor is busy and its policy is to say no."""

    slug, title, status = "rejected", "The agent is still talking", 409


class UnknownKind(NotFound):
    slug, title = "unknown-kind", "No such kind of actor"


class UnknownActor(NotFound):
    slug, title = "unknown-actor", "No such actor"


class Erased(FlotillaError):
    slug, title, status = "erased", "Erased at its person's wish", 410


class MailboxFull(LimitReached):
    slug, title = "mailbox-full", "Too much waits for this actor"


class BudgetSpent(LimitReached):
    slug, title = "budget-spent", "The request has used up its budget"


class DeadlinePassed(FlotillaError):
    slug, title, status = "deadline-passed", "The time for an answer is up", 504


class Cycle(FlotillaError):
    """Actors that wait for each other in a circle would wait for ever."""

    slug, title, status = "cycle", "An actor in the chain of callers was asked again", 508


class PlanChanged(Conflict):
    """The plan of an agent wants something else than it did when its steps were recorded."""

    slug, title = "plan-changed", "The plan does not agree with its record"


class Poisoned(FlotillaError):
    """The message broke its actor each time it was tried, and was set aside."""

    slug, title, status = "poisoned", "The actor can't take this message", 500


class Undecodable(FlotillaError):
    """What is in the record can't be read by this release."""

    slug, title, status = "undecodable", "The record of this actor can't be read", 500


class Overloaded(FlotillaError):
    """The fleet sheds load; nothing was accepted."""

    slug, title, status = "overloaded", "The fleet is shedding load", 503


class Unavailable(FlotillaError):
    """Something the fleet depends on doesn't answer; nothing was lost."""

    slug, title, status = "unavailable", "A part of the fleet doesn't answer", 503


class Misconfigured(FlotillaError):
    """The operator's settings or machine can't work; starting is refused."""

    slug, title, status = "misconfigured", "The settings can't work", 500


class Unsupported(Refused):
    """This engine can't do that, now or later."""

    slug, title = "unsupported", "This engine can't do that"


class AdapterMissing(Unavailable):
    """The adapter is not loaded at this replica (any more); nothing was generated."""

    slug, title = "adapter-missing", "The adapter is not loaded here"


class OtherVersion(Unavailable):
    """The replica serves another version by now (`instead`), or none any more; nothing was generated."""

    slug, title = "other-version", "The replica serves another version"


class RateLimited(Overloaded):
    """A provider says that we ask too much."""

    slug, title = "rate-limited", "The provider limits our rate"


class Moved(Unavailable):
    """The actor lives at another host now."""

    slug, title = "moved", "The actor has moved"


def _family(cls: type[FlotillaError]) -> list[type[FlotillaError]]:
    return [cls, *(kin for child in cls.__subclasses__() for kin in _family(child))]


_BY_TYPE = {TYPE_PREFIX + c.slug: c for c in _family(FlotillaError)}


def error_of(problem: Problem) -> FlotillaError:
    """The exception that `problem` was made from, so that it can be raised in another process."""
    cls = _BY_TYPE.get(problem.type, FlotillaError)
    return cls(
        problem.detail,
        field=problem.field,
        next=problem.next,
        retry_after_s=problem.retry_after_s,
        instead=problem.instead,
    )
