"""The answering end of links."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator, Callable

import msgspec

from actors.wire import HELLO_BYTES_MAX, Frames, Op, check_size
from flotilla.core.errors import FlotillaError, Refused
from flotilla.core.limits import LIMITS

Handler = Callable[[str, bytes], AsyncGenerator[bytes]]
"""Answers a call: the method's name and its body in, items out."""


class _Work:
    """One stream, as its handler sees it: how many items may still be sent."""

    def __init__(self) -> None:
        self.credit = LIMITS.link_window_items
        self.more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def grant(self, items: int) -> None:
        self.credit += items
        self.more.set()

    async def spend(self) -> None:
        while self.credit == 0:
            self.more.clear()
            await self.more.wait()
        self.credit -= 1


class _Answering(Frames):
    def __init__(self, handler: Handler, token: str, peers: set[_Answering]) -> None:
        super().__init__()
        self.body_bytes_max = HELLO_BYTES_MAX
        self._handler = handler
        self._token = token
        self._trusted = False
        self._work: dict[int, _Work] = {}
        self._peers = peers
        peers.add(self)

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        if not self._trusted:
            self._trusted = op is Op.HELLO and hmac.compare_digest(body, self._token.encode())
            self.body_bytes_max = LIMITS.link_frame_bytes_max
            return None if self._trusted else self.abort()
        if op is Op.OPEN:
            work = self._work[stream] = _Work()
            work.task = asyncio.get_running_loop().create_task(self._run(stream, work, body))
        elif work := self._work.get(stream):
            if op is Op.CREDIT:
                work.grant(int.from_bytes(body, "big"))
            elif op is Op.CANCEL and work.task is not None:
                work.task.cancel()
        return None

    async def _run(self, stream: int, work: _Work, body: bytes) -> None:
        method, _, payload = body.partition(b"\0")
        try:
            async with contextlib.aclosing(self._handler(_text(method), payload)) as items:
                async for item in items:
                    check_size(item)
                    await work.spend()
                    await self.writable()
                    self.send(Op.ITEM, stream, item)
            self.send(Op.END, stream)
        except FlotillaError as error:
            self.send(Op.ERROR, stream, msgspec.json.encode(error.problem()))
        except Exception as error:
            problem = FlotillaError(f"{type(error).__name__} in {method!r}.").problem()
            self.send(Op.ERROR, stream, msgspec.json.encode(problem))
            raise
        finally:
            self._work.pop(stream, None)

    def on_lost(self) -> None:
        self._peers.discard(self)
        for work in self._work.values():
            if work.task is not None:
                work.task.cancel()


def _text(method: bytes) -> str:
    try:
        return method.decode()
    except UnicodeDecodeError:
        raise Refused(f"{method!r} is no method's name.") from None


class Listener:
    """Answers links with `handler`."""

    def __init__(self, handler: Handler, token: str) -> None:
        self._handler = handler
        self._token = token
        self._peers: set[_Answering] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listens; returns HOST:PORT."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Answering(self._handler, self._token, self._peers), host, port
        )
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.abort()
