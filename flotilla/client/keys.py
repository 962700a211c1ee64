"""API keys of a tenant, as JSON of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flotilla.client.calls import Calls

Json = dict[str, Any]


class Keys:
    """Reading wants the scope `keys:read`, changing `keys:write`. `tenant` is for operators."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = (),
        expires_in_s: int | None = None,
        limits: Mapping[str, float] | None = None,
        tenant: str | None = None,
    ) -> Json:
        """The key; its secret, `key`, is shown this once. Without `scopes` it may do what yours may."""
        body = {"name": name, "scopes": list(scopes), "limits": dict(limits or {})}
        more = {} if expires_in_s is None else {"expires_in_s": expires_in_s}
        return await self._calls.call("POST", "/v1/keys", body | more, query={"tenant": tenant})

    async def list(
        self, *, limit: int = 50, cursor: str | None = None, tenant: str | None = None
    ) -> tuple[list[Json], str | None]:
        """A page of keys, newest first, and the cursor of the next; None at the end."""
        query = {"limit": limit, "cursor": cursor, "tenant": tenant}
        page = await self._calls.call("GET", "/v1/keys", query=query)
        return page["keys"], page["next"]

    async def show(self, id: str, *, tenant: str | None = None) -> Json:
        return await self._calls.call("GET", _path(id), query={"tenant": tenant})

    async def rotate(self, id: str, *, grace_s: int | None = None, tenant: str | None = None) -> Json:
        """Another secret for the key, shown this once; the one before goes on for `grace_s`."""
        body = {} if grace_s is None else {"grace_s": grace_s}
        return await self._calls.call("POST", f"{_path(id)}/rotate", body, query={"tenant": tenant})

    async def revoke(self, id: str, *, tenant: str | None = None) -> Json:
        """Refused everywhere from now on."""
        return await self._calls.call("DELETE", _path(id), query={"tenant": tenant})


def _path(id: str) -> str:
    return f"/v1/keys/{quote(id, safe='')}"
