"""What hangs where everybody sees it: the plans of the models, what was counted, what failed.

Each board is one hash. Ages are told by the server's own clock, and judged where they are read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Plans
from flotilla.stores.valkey import Client, translated

_PLANS, _MARK = "flotilla:{plans}", "flotilla:{plans}:mark"
_TALLIES, _FAILURES = "flotilla:tallies", "flotilla:failures"

# KEYS: the plans, their mark. ARGV: model, revision, plan, a new mark. A value is `REVISION:PLAN`.
_PUBLISH = """
local there = redis.call('HGET', KEYS[1], ARGV[1])
local value = ARGV[2] .. ':' .. ARGV[3]
if there == value then return 0 end
if there and tonumber(string.match(there, '^(%d+):')) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], value)
redis.call('SET', KEYS[2], ARGV[4])
return 1
"""

# KEYS: the plans, their mark. ARGV: model, a new mark.
_REMOVE = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('SET', KEYS[2], ARGV[2]) end
return 1
"""

# KEYS: the pages. ARGV: name, page. A value is `SECONDS:PAGE`.
_PUT = """
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], now[1] .. '.' .. string.format('%06d', now[2]) .. ':' .. ARGV[2])
return 1
"""

# KEYS: the pages. ARGV: for how many seconds one is kept. Removes those that are older.
_READ = """
local now = redis.call('TIME')
local oldest = tonumber(now[1]) + tonumber(now[2]) / 1000000 - tonumber(ARGV[1])
local all, kept = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #all, 2 do
    local time, page = string.match(all[at + 1], '^([%d.]+):(.*)$')
    if time and tonumber(time) > oldest then
        kept[#kept + 1] = all[at]
        kept[#kept + 1] = page
    else
        redis.call('HDEL', KEYS[1], all[at])
    end
end
return kept
"""


class ValkeyPlanBoard:
    """Implements `PlanBoard`. A hundred processes look twice a second: as long as the mark is the one that
    they have seen, they read no more than that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._publish = client.register_script(_PUBLISH)
        self._remove = client.register_script(_REMOVE)
        self._mark: bytes | None = None
        self._known: Plans = {}

    async def publish(self, plan: Plan) -> None:
        body = msgspec.msgpack.encode(plan)
        async with translated():
            await self._publish([_PLANS, _MARK], [plan.model, plan.revision, body, new_id("p")])

    async def plans(self) -> Plans:
        """The same object until something changes: not to be written to."""
        async with translated():
            # Before the plans: if another one is hung up in between, the next look finds another mark.
            mark: Any = await self._client.get(_MARK)
            if mark != self._mark:
                found: Any = await self._client.hgetall(_PLANS) if mark else {}
                self._mark, self._known = mark, _decoded(found)
        return self._known

    async def remove(self, model: str) -> None:
        async with translated():
            await self._remove([_PLANS, _MARK], [model, new_id("p")])


def _decoded(found: dict[bytes, bytes]) -> Plans:
    """One that this release can't read, as a newer one wrote it, does not hide the others: its model is one
    without a plan."""
    plans: Plans = {}
    for model, value in sorted(found.items()):
        try:
            plans[model.decode()] = msgspec.msgpack.decode(value.partition(b":")[2], type=Plan)
        except msgspec.MsgspecError:
            continue
    return plans


class _Pages:
    """By name, each for `kept_s` seconds after it was put there."""

    def __init__(self, client: Client, key: str, kept_s: float) -> None:
        self._client = client
        self._key = key
        self._kept_s = kept_s
        self._put = client.register_script(_PUT)
        self._read = client.register_script(_READ)

    async def put(self, name: str, page: bytes) -> None:
        async with translated():
            await self._put([self._key], [name, page])

    async def all(self) -> dict[str, bytes]:
        async with translated():
            found: Any = await self._read([self._key], [self._kept_s])
        return {name.decode(): page for name, page in sorted(zip(found[::2], found[1::2], strict=True))}

    async def drop(self, name: str) -> None:
        async with translated():
            await self._client.hdel(self._key, name)


class ValkeyTallyBoard:
    """Implements `TallyBoard`."""

    def __init__(self, client: Client) -> None:
        self._pages = _Pages(client, _TALLIES, LIMITS.tallies_kept_s)

    async def post(self, process: str, tallies: Tallies) -> None:
        await self._pages.put(process, msgspec.msgpack.encode(tallies))

    async def pages(self) -> dict[str, Tallies]:
        """Those that this release can't read, as a newer one wrote them, do not hide the others."""
        found: dict[str, Tallies] = {}
        for name, page in (await self._pages.all()).items():
            with suppress(msgspec.MsgspecError):
                found[name] = msgspec.msgpack.decode(page, type=Tallies)
        return found


class ValkeyFailureBoard:
    """Implements `FailureBoard`."""

    def __init__(self, client: Client) -> None:
        self._pages = _Pages(client, _FAILURES, LIMITS.failures_kept_s)

    async def note(self, version: str, reason: str) -> None:
        await self._pages.put(version, reason[: LIMITS.failure_reason_max].encode())

    async def failures(self) -> dict[str, str]:
        return {version: reason.decode() for version, reason in (await self._pages.all()).items()}

    async def clear(self, version: str) -> None:
        await self._pages.drop(version)
