"""The answering end of links."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator, Callable, Mapping

from actors.outlet import Feed, Outlet
from actors.reply import Asked, Reply, problem
from actors.wire import HELLO_BYTES_MAX, Frames, Op, check_size
from flotilla.core.errors import FlotillaError, Refused, Unavailable
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

    async def granted(self) -> None:
        while self.credit == 0:
            self.more.clear()
            await self.more.wait()

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class _Answering(Frames):
    """One peer. Reading from it stops while it has too much unanswered, or does not read its answers."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.body_bytes_max = HELLO_BYTES_MAX
        self._handler = listener.handler
        self._asked = listener.asked
        self._feeds = listener.feeds
        self._token = listener.token
        self._trusted = False
        self._work: dict[int, _Work | Outlet] = {}
        self.held: set[Outlet] = set()  # those that wait for the transport
        self._replies: dict[int, Reply] = {}
        self._tells = 0
        self._peers = listener.peers
        self._peers.add(self)

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        if not self._trusted:
            return self._greet(op, body)
        if op is Op.ASK:
            return self._take(stream, body)
        if op is Op.TELL:
            return self._take_tell(body)
        if op is Op.OPEN:
            return self._open(stream, body)
        if op is Op.CANCEL:
            return self._cancel(stream)
        if op is Op.CREDIT and (work := self._work.get(stream)):
            work.grant(int.from_bytes(body, "big"))
        return None

    def _greet(self, op: Op, body: bytes) -> None:
        self._trusted = op is Op.HELLO and hmac.compare_digest(body, self._token.encode())
        self.body_bytes_max = LIMITS.link_frame_bytes_max
        if not self._trusted:
            self.abort()

    # -- asks and tells

    def _take(self, stream: int, body: bytes) -> None:
        if stream in self._replies or stream in self._work:
            return self.abort()  # a number is used once
        reply = self._replies[stream] = Reply(self, stream)
        self._mind_reading()
        if self._asked is not None:
            return self._hand_over(self._asked, body, reply)
        return self._hand_over(self._ask_handler, body, reply)

    def _take_tell(self, body: bytes) -> None:
        if self._asked is not None:
            return self._hand_over(self._asked, body, None)
        # A handler's work counts as unanswered until it is done: by numbers that no peer can use.
        self._tells -= 1
        return self._take(self._tells, body)

    def _hand_over(self, asked: Asked, body: bytes, reply: Reply | None) -> None:
        method, _, payload = body.partition(b"\0")
        try:
            asked(_text(method), payload, reply)
        except Exception as error:
            self._failed(method, error, reply)

    def _failed(self, method: bytes, error: Exception, reply: Reply | None) -> None:
        """A refusal is for whoever asked. Anything else is a bug here, of which the asker learns no words;
        so is the refusal of a tell, which nobody else would see."""
        if reply is not None:
            reply.refuse(error if isinstance(error, FlotillaError) else _bug(error, method))
        if reply is None or not isinstance(error, FlotillaError):
            self._report(f"{method!r} failed.", error)

    def _ask_handler(self, method: str, body: bytes, reply: Reply | None) -> None:
        """For a handler of streams the first item is the answer."""
        assert reply is not None
        reply.on_cancel = self._loop.create_task(self._first(method, body, reply)).cancel

    async def _first(self, method: str, body: bytes, reply: Reply) -> None:
        try:
            async with contextlib.aclosing(self._handler(method, body)) as items:
                async for item in items:
                    return reply.answer(item)
            reply.refuse(Unavailable(f"{method!r} ended without an answer.", retry_after_s=1.0))
        except Exception as error:
            self._failed(method.encode(), error, reply)

    def settle(self, stream: int, op: Op, body: bytes) -> None:
        """Sends what `stream` waits for, if it still does."""
        if self._replies.pop(stream, None) is None:
            return None
        self._mind_reading()
        if stream < 0:
            return self._settle_tell(op, body)
        self.send(op, stream, body)
        if self._full and self.unsent > LIMITS.link_out_bytes_max:
            self._report(f"{self.unsent} bytes of answers wait for a peer that does not read; hung up.")
            self.abort()
        return None

    def _settle_tell(self, op: Op, body: bytes) -> None:
        if op is Op.ERROR:
            self._report(f"A tell was refused: {body.decode()}")

    # -- streams

    def _open(self, stream: int, body: bytes) -> None:
        if stream in self._replies or stream in self._work:
            return self.abort()
        method, _, payload = body.partition(b"\0")
        if feed := self._feeds.get(method):
            return self._feed(stream, feed, method, payload)
        work = self._work[stream] = _Work()
        self._mind_reading()
        work.task = self._loop.create_task(self._run(stream, work, body))
        return None

    def _feed(self, stream: int, feed: Feed, method: bytes, payload: bytes) -> None:
        outlet = self._work[stream] = Outlet(self, stream)
        self._mind_reading()
        try:
            feed(payload, outlet)
        except FlotillaError as error:
            outlet.end(error)
        except Exception as error:
            outlet.end(_bug(error, method))
            self._report(f"{method!r} failed.", error)

    def close(self, outlet: Outlet) -> bool:
        """False if it was closed before."""
        if self._work.get(outlet.stream) is not outlet:
            return False
        del self._work[outlet.stream]
        self.held.discard(outlet)
        self._mind_reading()
        return True

    def end(self, stream: int, error: FlotillaError | None) -> None:
        if error is None:
            self.send(Op.END, stream)
        else:
            self.send(Op.ERROR, stream, problem(error))

    async def _run(self, stream: int, work: _Work, body: bytes) -> None:
        method, _, payload = body.partition(b"\0")
        try:
            async with contextlib.aclosing(self._handler(_text(method), payload)) as items:
                async for item in items:
                    check_size(item)
                    if work.credit == 0:
                        await work.granted()
                    work.credit -= 1
                    if self._full:
                        await self.writable()
                    self.send_item(stream, item)
            self.send(Op.END, stream)
        except FlotillaError as error:
            self.send(Op.ERROR, stream, problem(error))
        except Exception as error:
            self.send(Op.ERROR, stream, problem(_bug(error, method)))
            self._report(f"{method!r} failed.", error)
        finally:
            self._work.pop(stream, None)
            self._mind_reading()

    # -- bounds

    def _mind_reading(self) -> None:
        if self._full or len(self._replies) + len(self._work) > LIMITS.link_calls_max:
            self.hold_reading()
        elif not self._reading:
            self.go_on_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._mind_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._mind_reading()
        held, self.held = self.held, set()
        for outlet in held:
            outlet.grant(0)

    # -- when nobody waits any more

    def _cancel(self, stream: int) -> None:
        if reply := self._replies.pop(stream, None):
            self._leave(reply)
        elif work := self._work.get(stream):
            self._stop(work)

    def _stop(self, work: _Work | Outlet) -> None:
        if isinstance(work, Outlet):
            self.close(work)
        work.stop()

    def _leave(self, reply: Reply) -> None:
        reply.gone = True
        if reply.on_cancel is None:
            return
        try:
            reply.on_cancel()
        except Exception as error:
            self._report("What was to happen on a cancelled ask failed.", error)

    def on_lost(self) -> None:
        self._peers.discard(self)
        for work in list(self._work.values()):
            self._stop(work)
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            self._leave(reply)

    def _report(self, message: str, error: Exception | None = None) -> None:
        context = {"message": message, "protocol": self, "transport": self._transport}
        self._loop.call_exception_handler(context | ({"exception": error} if error else {}))


def _text(method: bytes) -> str:
    try:
        return method.decode()
    except UnicodeDecodeError:
        raise Refused(f"{method!r} is no method's name.") from None


def _bug(error: Exception, method: bytes) -> FlotillaError:
    return FlotillaError(f"{type(error).__name__} in {method!r}.")


class Listener:
    """Answers links: streams of `feeds` with what feeds them, others with `handler`; asks and tells with
    `asked` or, without it, with `handler` too."""

    def __init__(
        self,
        handler: Handler,
        token: str,
        *,
        asked: Asked | None = None,
        feeds: Mapping[str, Feed] | None = None,
    ) -> None:
        self.handler = handler
        self.asked = asked
        self.feeds = {method.encode(): feed for method, feed in (feeds or {}).items()}
        self.token = token
        self.peers: set[_Answering] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listens; returns HOST:PORT."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answering(self), host, port)
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.abort()
