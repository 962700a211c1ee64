"""What a tenant has used: `GET /v1/usage`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from flotilla.core.charges import By, Spent
from flotilla.core.errors import Forbidden, Refused
from flotilla.core.ids import is_name
from serve.auth import Principal, needs
from serve.doors import doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/usage", tags=["usage"])

DAYS_MAX = 366


@router.get("")
async def read_usage(
    request: Request,
    who: Annotated[Principal, needs("usage:read")],
    *,
    since: date | None = None,
    until: date | None = None,
    by: By = "day",
    tenant: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """Tokens, and cost in micro-units, from the day `since` (the first of the month) until before the day
    `until` (tomorrow), in UTC; summed up `by` day, model or source. An operator may ask for any `tenant`."""
    of = _tenant(who, tenant)
    today = datetime.now(UTC).date()
    until = until or today + timedelta(days=1)
    last = max(until, date.min + timedelta(days=1)) - timedelta(days=1)
    since = since or min(today, last).replace(day=1)
    _check(since, until)
    doors = doors_of(request)
    found = await (await doors.ledger()).usage(of, since, until, by)
    total = Spent(name="total")
    for spent in found:
        total = total.plus(spent)
    allowance = doors.allowances.of(of)
    return json(
        {
            "tenant": of,
            "since": since,
            "until": until,
            "by": by,
            "usage": found,
            "total": total,
            "allowance": msgspec.structs.asdict(allowance) if allowance.bounded else None,
        }
    )


def _tenant(who: Principal, asked: str | None) -> str:
    if asked is None or asked == who.tenant:
        return who.tenant
    if not who.operator:
        raise Forbidden("This key is of another tenant.", field="tenant", next="Use an operator's key.")
    if not is_name(asked):
        raise Refused("That is no tenant's name.", field="tenant", next="Name one tenant.")
    return asked


def _check(since: date, until: date) -> None:
    if since >= until:
        raise Refused("`since` must be before `until`.", field="since", next="Send an earlier day.")
    if (until - since).days > DAYS_MAX:
        raise Refused(f"At most {DAYS_MAX} days fit.", field="since", next="Ask for fewer days.")
