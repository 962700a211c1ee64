"""A customer's right to be forgotten."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from flotilla.core.errors import NotFound
from serve.auth import Principal, needs
from serve.doors import doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/customers", tags=["customers"])


@router.delete("/{customer}")
async def erase_customer(
    request: Request, who: Annotated[Principal, needs("customers:erase")], customer: str
) -> Response:
    """Drops the key that seals all that is recorded of `customer`: nobody can read it any more, in no
    backup either. Sessions that are awake let go of what they remember. `notes` names hosts that did not
    answer; they forget when their sessions fall asleep."""
    doors = doors_of(request)
    journal = await doors.journal()
    if not await journal.erase(who.tenant, customer):
        raise NotFound("Nothing is recorded under this customer.", field="customer")
    gone = await doors.overview.forget(who.tenant, customer)
    return json({"customer": customer, "sessions_awake": sum(gone.said.values()), "notes": gone.notes})
