"""Where a caller stands, as `RateLimit-Policy` and `RateLimit` say it (draft-ietf-httpapi-ratelimit-headers-10),
and the way of a route to them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence

from starlette.requests import HTTPConnection

from serve.limits.bucket import LimitHit, Standing


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """A bucket of 10000 that fills in 5 s is the policy `"messages";q=10000;w=5`; `r` is what is left, `t` how
    many seconds until it is full again. With several, the key's comes before the tenant's."""
    if not standings:
        return {}
    return {
        "RateLimit-Policy": ", ".join(_policy(standing) for standing in standings),
        "RateLimit": ", ".join(_left(standing) for standing in standings),
    }


async def limited(request: HTTPConnection, taking: Awaitable[Sequence[Standing]]) -> None:
    """Has the answer of this request tell where its caller stands, also one that refuses."""
    try:
        request.state.standings = await taking
    except LimitHit as hit:
        request.state.standings = [hit.standing] if hit.standing else []
        raise


def _policy(standing: Standing) -> str:
    window_s = max(1, round(standing.quota.window_s))
    return f'"{standing.name}";q={standing.quota.burst};w={window_s}'


def _left(standing: Standing) -> str:
    return f'"{standing.name}";r={standing.left};t={math.ceil(standing.full_in_s)}'
