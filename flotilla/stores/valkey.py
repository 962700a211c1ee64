"""Now: who is alive, and what customers have seen of replies under way. Valkey or Redis.

The hot log of a reply is a string that grows by compare-and-append: the length that the writer
believes in is the fence. (docs/decisions/0002 says why it isn't a stream.)
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import msgspec
import redis.asyncio as redis
from redis import exceptions

from flotilla.core.errors import Conflict, LimitReached, Misconfigured, Unavailable
from flotilla.core.generation import Shown
from flotilla.core.ids import ActorId, actor_of
from flotilla.core.limits import LIMITS
from flotilla.core.members import Member
from flotilla.stores.valkey_batch import Batch, Script

HOT_LOG_KEPT_S = 3600
HOT_LOG_SEALED_S = 120  # no host that was declared dead writes again later than that
BEAT_KEPT_MS = 3000
COMMAND_TIMEOUT_S = 2.0
CONNECTIONS_MAX = 16

Client = redis.Redis
_DOWN = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError)

# What a sealed log begins with: a byte that no UTF-8 text begins with. Its text follows, unless it was dropped.
_SEAL = b"\xff"

# KEYS: the log. ARGV: seconds to keep, '1' to drop the text.
_CLOSE = Script("""
local text = ARGV[2] ~= '1' and redis.call('GET', KEYS[1]) or ''
if string.byte(text) ~= 255 then text = '\\255' .. text end
redis.call('SET', KEYS[1], text, 'EX', ARGV[1])
return text
""")

# KEYS: the log. ARGV: bytes that are there, text, seconds to keep. Returns 1, or 0 if another writer was
# here or the log is sealed.
_APPEND = Script("""
local there = redis.call('STRLEN', KEYS[1])
if there ~= tonumber(ARGV[1]) then return 0 end
if there > 0 and redis.call('GETRANGE', KEYS[1], 0, 0) == '\\255' then return 0 end
redis.call('APPEND', KEYS[1], ARGV[2])
if ARGV[1] == '0' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
""")

# KEYS: the member's record, its role's names. ARGV: the life that ends, its name.
_LEAVE = """
local there = redis.call('GET', KEYS[1])
if not there or cjson.decode(there).life ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
"""

_PINS = "flotilla:pins"

# KEYS: the pins. ARGV: actor, host, how many there may be. Returns 0 if there are too many.
_PIN = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


def connect(url: str) -> redis.Redis:
    """A client that opens its sockets where and when it is used."""
    # Commands past the pool wait for a connection; a plain pool would fail them.
    pool = redis.BlockingConnectionPool.from_url(
        url,
        protocol=3,
        socket_timeout=COMMAND_TIMEOUT_S,
        socket_connect_timeout=COMMAND_TIMEOUT_S,
        max_connections=CONNECTIONS_MAX,
        timeout=COMMAND_TIMEOUT_S,
    )
    return redis.Redis.from_pool(pool)


@asynccontextmanager
async def translated():
    """For the other stores of Valkey too: no exception of the library's leaves it."""
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
        raise Misconfigured(
            f"Redis refuses: {error}.", field="REDIS_URL", next="Check user and password."
        ) from None
    except _DOWN as error:
        raise Unavailable(
            f"Redis does not answer ({type(error).__name__}).",
            next="Try again; nothing accepted is lost.",
            retry_after_s=1.0,
        ) from None
    except exceptions.ResponseError as error:
        raise Unavailable(
            f"Redis refuses to write: {error}.", next="Free memory or disk.", retry_after_s=5.0
        ) from None


class ValkeyHotLog:
    """Implements `HotLog`. What is written for many replies shares round trips."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._batch = Batch(client, translated)

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        if not await self._batch.run(_APPEND, _hot_key(actor, turn), said, text, HOT_LOG_KEPT_S):
            raise Conflict("Another host goes on with this reply.")

    async def read(self, actor: ActorId, turn: str) -> Shown:
        async with translated():
            value: Any = await self._client.get(_hot_key(actor, turn))
        text = (value or b"").removeprefix(_SEAL)
        return Shown(text.decode(), sealed=(value or b"").startswith(_SEAL))

    async def seal(self, actor: ActorId, turn: str, *, forget: bool = False) -> str:
        text: bytes = await self._batch.run(_CLOSE, _hot_key(actor, turn), HOT_LOG_SEALED_S, int(forget))
        return text.removeprefix(_SEAL).decode()

    async def ping(self) -> None:
        async with translated():
            await self._client.ping()

    async def close(self) -> None:
        await self._client.aclose()


def _hot_key(actor: ActorId, turn: str) -> str:
    return f"flotilla:{{{actor}}}:hot:{turn}"


class ValkeyDirectory:
    """Implements `Directory`. A member's record is gone `BEAT_KEPT_MS` after its last beat."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._leave = client.register_script(_LEAVE)

    async def beat(self, member: Member) -> None:
        async with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(_member_key(member), msgspec.json.encode(member), px=BEAT_KEPT_MS)
            pipeline.sadd(_role_key(member.role), member.name)
            await pipeline.execute()

    async def leave(self, member: Member) -> None:
        async with translated():
            keys = [_member_key(member), _role_key(member.role)]
            await self._leave(keys, [member.life, member.name])

    async def members(self, role: str) -> list[Member]:
        async with translated():
            found: Any = await self._client.smembers(_role_key(role))
            names = sorted(name.decode() for name in found)
            keys = [f"{_role_key(role)}:{name}" for name in names]
            values = await self._client.mget(keys) if keys else []
        return [msgspec.json.decode(value, type=Member) for value in values if value]

    async def ping(self) -> None:
        async with translated():
            await self._client.ping()

    async def close(self) -> None:
        await self._client.aclose()


def _role_key(role: str) -> str:
    return f"flotilla:members:{role}"


def _member_key(member: Member) -> str:
    return f"{_role_key(member.role)}:{member.name}"


class ValkeyPins:
    """Implements `Pins`: one hash, as every host reads all of it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pin = client.register_script(_PIN)

    async def pin(self, actor: ActorId, host: str) -> None:
        """Raises `LimitReached` past `LIMITS.pins_max`."""
        async with translated():
            done = await self._pin([_PINS], [str(actor), host, LIMITS.pins_max])
        if not done:
            raise LimitReached(
                f"{LIMITS.pins_max} actors are pinned.", next="Unpin some that may live anywhere."
            )

    async def unpin(self, actor: ActorId) -> None:
        async with translated():
            await self._client.hdel(_PINS, str(actor))

    async def pins(self) -> dict[ActorId, str]:
        async with translated():
            found: Any = await self._client.hgetall(_PINS)
        return {_actor(field.decode()): host.decode() for field, host in found.items()}


def _actor(text: str) -> ActorId:
    tenant, _, key = text.partition("/")
    return actor_of(tenant, key)


class ValkeyOnce:
    """Implements `Once`."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def claim(self, tenant: str, key: str, value: str) -> str:
        async with translated():
            known: Any = await self._client.set(
                f"flotilla:{{{tenant}}}:once:{key}", value, nx=True, get=True, ex=int(LIMITS.idempotency_s)
            )
        return known.decode() if known else value
