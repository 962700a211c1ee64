"""What every gateway must hear, as a stream in Valkey: unlike a channel of pub/sub it loses nothing when a
gateway has to connect again, and a new one reads what was told before it came."""

from __future__ import annotations

from typing import Any

from flotilla.stores.valkey import Client, translated

_NOTICES = "flotilla:notices"
KEPT = 100_000  # about, and for as long as the server has room: 100 bytes each


class ValkeyNotices:
    """Implements `Notices`. `hear` keeps a connection to itself while it waits."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tell(self, name: str) -> None:
        async with translated():
            await self._client.xadd(_NOTICES, {"name": name}, maxlen=KEPT, approximate=True)

    async def hear(self, after: str, wait_s: float) -> tuple[str, list[str]]:
        async with translated():
            found: Any = await self._client.xread({_NOTICES: after or "0"}, block=int(wait_s * 1000))
        if not found:
            return after, []
        batches: list[Any] = found[_NOTICES.encode()] if isinstance(found, dict) else found[0][1:]
        entries = [entry for batch in batches for entry in batch]
        return entries[-1][0].decode(), [fields[b"name"].decode() for _, fields in entries]
