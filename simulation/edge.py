"""What stands in for HTTP: a gateway that takes messages for actors and streams what they show."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from actors import frames
from actors.fleet import Fleet
from flotilla.core.actor import Actor
from flotilla.core.errors import NotFound
from flotilla.core.ledger import Codec
from flotilla.views import events


class Edge:
    """`answer` is the handler of a gateway's listener. Bodies are those of the links between its hosts."""

    def __init__(self, fleet: Fleet, codecs: Mapping[str, Codec]) -> None:
        self._fleet = fleet
        self._codecs = codecs

    async def answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        match method:
            case "ask":
                frame = frames.decode_ask(body)
                message = self._codecs[frame.actor.kind].message(frame.message)
                yield frames.encode(await self._fleet.ask(frame.actor, message))
            case "follow":
                async with aclosing(self._follow(frames.decode_follow(body))) as items:
                    async for item in items:
                        yield item
            case _:
                raise NotFound(f"A gateway has no method {method!r}.")

    async def _follow(self, frame: frames.FollowFrame) -> AsyncGenerator[bytes]:
        async with aclosing(self._fleet.follow(frame.actor, frame.after, frame.offset)) as parts:
            async for part in parts:
                durable = part.offset is None
                if durable and events.open_envelope(part.json).type in events.NOT_FOR_VISITORS:
                    continue
                yield frames.encode(part)


def codecs_of(kinds: Iterable[type[Actor]]) -> dict[str, Codec]:
    return {kind.kind.name: Codec(kind) for kind in kinds}
