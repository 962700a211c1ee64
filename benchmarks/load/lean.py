"""The lean client: each way in by what costs least, and nothing of what a load test does not look at.

What it loses it does not hide: a connection that ends is brought back by the crowd, a message that is refused is a
turn that was shed.
"""

from __future__ import annotations

from benchmarks.load.calls import Rpc
from benchmarks.load.conversation import Conversation, Door
from benchmarks.load.orders import Recruit
from benchmarks.load.sockets import Lost, Way
from benchmarks.load.streams import Http


class Lean:
    def __init__(self, recruit: Recruit) -> None:
        self._recruit = recruit
        self._sockets = {url: Way(url, recruit.key) for url in (recruit.url, recruit.aside) if url}
        self._http = Http(recruit.url, recruit.key)
        self._rpc = Rpc(recruit.rpc, recruit.key)

    def door(self, way: int, conversation: Conversation, lost: Lost) -> Door:
        """`way` is its number in `scenario.WAYS`."""
        sockets = self._sockets[self._recruit.sockets_url(conversation.number)]
        made = (sockets.door, self._http.stream_door, self._http.waiting_door, self._rpc.door)
        return made[way](conversation, lost)

    async def close(self) -> None:
        await self._http.close()
        await self._rpc.close()
