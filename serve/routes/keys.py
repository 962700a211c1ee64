"""Keys of the tenant: made, listed, rotated, revoked. See docs/keys.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from flotilla.core.api_keys import IssuedKey, KeyLimits, NewSecret, new_key_id
from flotilla.core.errors import FlotillaError, Forbidden, NotFound, Refused
from flotilla.core.ids import is_name
from flotilla.core.limits import LIMITS
from flotilla.core.scopes import OF_A_TENANT, check_scopes
from flotilla.core.versions import FLEET
from flotilla.views.events import stamp
from serve.auth import Principal, needs
from serve.bodies import Stored
from serve.doors import Doors, doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/keys", tags=["keys"])

Reader = Annotated[Principal, needs("keys:read")]
Writer = Annotated[Principal, needs("keys:write")]
YEARS_MAX_S = 10 * 365 * 24 * 3600
GRACE_MAX_S = 30 * 24 * 3600
KeyId = Annotated[Stored, Path(max_length=128)]
TenantName = Annotated[str | None, Query(max_length=128, description="Another tenant; for operators.")]


class LimitsBody(BaseModel):
    """0 for the fleet's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages_per_s: float = Field(0.0, ge=0, le=1e6)
    messages_burst: int = Field(0, ge=0, le=10**7)
    sessions_per_min: int = Field(0, ge=0, le=10**7)
    sockets: int = Field(0, ge=0, le=10**7)
    streams: int = Field(0, ge=0, le=10**7)

    @classmethod
    def none(cls) -> LimitsBody:
        return cls.model_validate({})


class CreateKey(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$", description="What it is for."
    )
    scopes: list[str] = Field(
        [], max_length=64, description="What it may do; all of a tenant's that yours may, if empty."
    )
    expires_in_s: int | None = Field(None, ge=1, le=YEARS_MAX_S)
    limits: LimitsBody = Field(default_factory=LimitsBody.none)


class RotateKey(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    grace_s: int = Field(
        int(LIMITS.key_grace_s), ge=0, le=GRACE_MAX_S, description="How long the secret before goes on."
    )


@router.post("", status_code=201)
async def create_key(request: Request, who: Writer, body: CreateKey, tenant: TenantName = None) -> Response:
    """`key` is shown this once and kept nowhere. A key gives no scope that it doesn't hold itself."""
    doors = doors_of(request)
    asked = body.scopes or sorted(who.scopes & OF_A_TENANT)
    id, now = new_key_id(), doors.clock.now()
    new = doors.keys.fresh(id)
    key = IssuedKey(
        id=id,
        tenant=_tenant(who, tenant),
        name=body.name,
        scopes=check_scopes(asked, who.scopes),
        limits=KeyLimits(**body.limits.model_dump()),
        shown=new.shown,
        digest=new.digest,
        created=now,
        created_by=who.key,
        expires=now + timedelta(seconds=body.expires_in_s) if body.expires_in_s else None,
    )
    await (await doors.api_keys()).create(key)
    return json(_with_secret(key, new), 201)


@router.get("")
async def list_keys(
    request: Request,
    who: Reader,
    *,
    limit: Annotated[int, Query(ge=1, le=LIMITS.page_max)] = 50,
    cursor: Annotated[Stored | None, Query(max_length=128)] = None,
    tenant: TenantName = None,
) -> Response:
    """Newest first, without their secrets. `next` is the cursor of the page after this one, null on the last."""
    store = await doors_of(request).api_keys()
    found = await store.list(_tenant(who, tenant), before=cursor, limit=limit)
    following = found[-1].id if len(found) == limit else None
    return json({"keys": [_view(key) for key in found], "next": following})


@router.get("/{key}")
async def show_key(request: Request, who: Reader, key: KeyId, tenant: TenantName = None) -> Response:
    return json(_view(await _read(doors_of(request), _tenant(who, tenant), key)))


@router.post("/{key}/rotate")
async def rotate_key(
    request: Request, who: Writer, key: KeyId, body: RotateKey, tenant: TenantName = None
) -> Response:
    """Another secret for the key, shown this once. The one before goes on for `grace_s`; one before that
    ends now."""
    doors, of = doors_of(request), _tenant(who, tenant)
    known = await _read(doors, of, key)
    check_scopes(known.scopes, who.scopes)  # who gets a secret gets what it may do
    new, now = doors.keys.fresh(known.id), doors.clock.now()
    until = now + timedelta(seconds=body.grace_s)
    store = await doors.api_keys()
    rotated = await store.rotate(of, known.id, digest=new.digest, shown=new.shown, at=now, until=until)
    if rotated is None:
        raise Refused("The key was revoked or has expired.", field="key", next="Have another one made.")
    return json(_with_secret(rotated, new) | await _told(doors.revocations.tell_changed(rotated.id)))


@router.delete("/{key}")
async def revoke_key(request: Request, who: Writer, key: KeyId, tenant: TenantName = None) -> Response:
    """Refused everywhere from now on, and what it has open is closed; so it is with the tokens that it
    vouches for. `note` says so if the gateways can't be told: then it takes them up to half a minute."""
    doors = doors_of(request)
    revoked = await (await doors.api_keys()).revoke(_tenant(who, tenant), key, doors.clock.now())
    if revoked is None:
        raise _no_key(key)
    return json(_view(revoked) | await _told(doors.revocations.tell_revoked(revoked.id)))


async def _told(telling: Any) -> dict[str, str]:
    try:
        await telling
    except FlotillaError as error:
        wait = f"{LIMITS.key_fresh_s:g} s"
        return {"note": f"Recorded. The gateways could not be told ({error.detail}) and know within {wait}."}
    return {}


async def _read(doors: Doors, tenant: str, id: str) -> IssuedKey:
    found = await (await doors.api_keys()).read(tenant, id)
    if found is None:
        raise _no_key(id)
    return found


def _tenant(who: Principal, asked: str | None) -> str:
    if asked is None or asked == who.tenant:
        return who.tenant
    if not who.operator:
        raise Forbidden("This key is of another tenant.", field="tenant", next="Use an operator's key.")
    if not is_name(asked) or asked == FLEET:
        raise Refused("That is no tenant's name.", field="tenant", next="Name one tenant.")
    return asked


def _no_key(id: str) -> NotFound:
    return NotFound(f"There is no key {id[:64]!r}.", field="key", next="See `flotilla keys list`.")


def _with_secret(key: IssuedKey, new: NewSecret) -> dict[str, Any]:
    return {"key": new.key, **_view(key)}


def _view(key: IssuedKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "shown": f"{key.shown}…",
        "scopes": key.scopes,
        "limits": msgspec.structs.asdict(key.limits),
        "state": _state(key),
        "created_by": key.created_by,
        "created": stamp(key.created),
        "expires": _stamp(key.expires),
        "revoked": _stamp(key.revoked),
        "used": _stamp(key.used),
        "former_until": _stamp(key.former_until),
    }


def _state(key: IssuedKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "live" if key.live(datetime.now(UTC)) else "expired"


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else stamp(at)
