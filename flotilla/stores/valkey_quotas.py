"""Buckets and slots in Valkey: one script each, so that a call is one round trip and all gateways share one
clock, the server's."""

from __future__ import annotations

from typing import Any

from flotilla.core.access import Held
from flotilla.core.policy.gcra import Quota, Taken
from flotilla.stores.valkey import Client, translated

HELD_KEPT_S = 15.0

# The same as flotilla/core/policy/gcra.py, in microseconds; a contract test holds them together.
# KEYS: the bucket. ARGV: microseconds a token, burst, how many are wanted.
_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local every, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local filled = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local there = math.max(0, math.floor((now + burst * every - filled) / every + 0.000001))
local granted = math.min(wanted, there)
local after = filled + granted * every
if granted > 0 then
    redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', math.ceil((after - now) / 1000) + 1000)
end
local wait = 0
if granted == 0 and wanted > 0 then wait = math.max(0, after + every - burst * every - now) end
return {granted, there - granted, math.ceil(wait), math.ceil(after - now)}
"""

# KEYS: the slots. ARGV: holder, slots in use, slots wanted, slots there are, milliseconds to keep them.
# A value is `SLOTS:WHEN IT ENDS`. Holders that have been silent are taken out.
_HOLD = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local all, others = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #all, 2 do
    local slots, ends = string.match(all[at + 1], '^(%d+):(%d+)$')
    if tonumber(ends) < now then redis.call('HDEL', KEYS[1], all[at])
    elseif all[at] ~= ARGV[1] then others = others + tonumber(slots) end
end
local mine = math.max(tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), tonumber(ARGV[4]) - others))
if mine <= 0 then
    redis.call('HDEL', KEYS[1], ARGV[1])
    return {0, others}
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%.0f', mine, now + tonumber(ARGV[5])))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {mine, others}
"""


class ValkeyQuotas:
    """Implements `Quotas`."""

    def __init__(self, client: Client) -> None:
        self._take = client.register_script(_TAKE)
        self._hold = client.register_script(_HOLD)

    async def take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        arguments = [f"{quota.every_s * 1e6:.3f}", quota.burst, wanted]
        async with translated():
            found: Any = await self._take([f"flotilla:rate:{{{subject}}}"], arguments)
        granted, left, wait_us, full_us = found
        return Taken(granted=granted, left=left, retry_after_s=wait_us / 1e6, full_in_s=full_us / 1e6)

    async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
        arguments = [holder, used, wanted, most, int(HELD_KEPT_S * 1000)]
        async with translated():
            mine, others = await self._hold([f"flotilla:slots:{{{subject}}}"], arguments)
        return Held(mine, others)
