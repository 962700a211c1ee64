"""One link carries many conversations: bounded, ordered, and none in the way of another."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest
import uvloop

from actors.link import Link, Links, Listener, connect
from actors.wire import Op
from flotilla.core.errors import FlotillaError, LimitReached, NotFound, Unavailable
from flotilla.core.limits import LIMITS
from tests.timing import PATIENCE_S, until

TOKEN = "secret"
WINDOW = LIMITS.link_window_items
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Ray's async actors run on uvloop; tests and tools on asyncio's own."""
    return request.param()


class Server:
    """A handler that shows what it does."""

    def __init__(self) -> None:
        self.sent = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.opened = 0

    async def answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        self.opened += 1
        match method:
            case "echo":
                yield body
            case "count":
                for n in range(int(body)):
                    yield b"%d" % n
            case "steps":
                for size in SIZES:
                    yield body + b"x" * size
                    await asyncio.sleep(0)  # the others make theirs
            case "flood":
                while True:
                    self.sent += 1
                    yield b"x"
            case "hang":
                self.started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case "refuse":
                yield b"one"
                raise LimitReached("Too much.", field="text", next="Less.", retry_after_s=2.5)
            case "break":
                raise ValueError("secret inside")
            case "nothing":
                return
            case _:
                raise NotFound(f"No method {method!r}.")


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def address(server: Server) -> AsyncIterator[str]:
    listener = Listener(server.answer, TOKEN)
    yield await listener.start()
    await listener.aclose()


@pytest.fixture
async def link(address: str) -> AsyncIterator[Link]:
    opened = await connect(address, TOKEN)
    yield opened
    await opened.aclose()


async def test_many_calls_at_once_each_get_their_own_answer(link: Link) -> None:
    bodies = [b"%d" % n * 50 for n in range(2000)]
    assert await asyncio.gather(*(link.ask("echo", body) for body in bodies)) == bodies
    assert "0 calls" in repr(link)


async def test_a_stream_is_whole_and_in_order_past_its_window(link: Link) -> None:
    got = [item async for item in link.call("count", b"2000")]
    assert got == [b"%d" % n for n in range(2000)]


SIZES = (0, 1, 4096, 4097, 70_000)


async def test_what_streams_send_together_shares_frames_and_keeps_its_order(
    monkeypatch: pytest.MonkeyPatch, link: Link
) -> None:
    ops: Counter[Op] = Counter()
    hand_on = Link.on_frame

    def counted(self: Link, op: Op, stream: int, body: bytes) -> None:
        ops[op] += 1
        hand_on(self, op, stream, body)

    monkeypatch.setattr(Link, "on_frame", counted)

    async def read(number: int) -> list[bytes]:
        return [item async for item in link.call("steps", b"%d" % number)]

    got = await asyncio.gather(*map(read, range(600)))
    for number, items in enumerate(got):
        assert items == [b"%d" % number + b"x" * size for size in SIZES]
    assert 0 < ops[Op.ITEMS] < 100 and ops[Op.END] == 600
    assert ops[Op.ITEM] >= 1200  # the large ones, each in a frame of its own


@pytest.mark.parametrize(
    ("count", "body"),
    [
        (2, struct.pack(">2Q2I", 1, 1, 1, 1) + b"x"),
        (2, struct.pack(">2Q2I", 1, 1, 1, 1) + b"xyz"),
        (3, b"x"),
        (257, bytes(12 * 257)),
        (2**60, b""),
    ],
)
async def test_items_that_do_not_fit_their_frame_are_hung_up_on(count: int, body: bytes) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(struct.pack(">IBQ", len(body), Op.ITEMS, count) + body)
        await reader.read()
        writer.close()

    peer = await asyncio.start_server(accept, "127.0.0.1", 0)
    link = await connect(f"127.0.0.1:{peer.sockets[0].getsockname()[1]}", TOKEN)
    with pytest.raises(Unavailable, match="broke"):
        await anext(link.call("echo", b""))
    peer.close()


async def test_any_bytes_travel(link: Link) -> None:
    for body in (b"", b"\0", bytes(range(256)) * 5000):
        assert await link.ask("echo", body) == body


async def test_a_reader_that_does_not_read_stops_its_own_sender_and_no_other(
    link: Link, server: Server
) -> None:
    async with aclosing(link.call("flood", b"")) as slow:
        await anext(slow)
        await until(lambda: server.sent > WINDOW)
        got = [item async for item in link.call("count", b"1000")]
        assert len(got) == 1000
        assert server.sent <= WINDOW + 1  # one more waits to be sent
        for _ in range(WINDOW):
            await anext(slow)
        await until(lambda: server.sent > WINDOW + 1)


async def test_closing_a_stream_cancels_the_work_at_the_other_end(link: Link, server: Server) -> None:
    task = asyncio.create_task(link.ask("hang", b""))
    await server.started.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await server.cancelled.wait()
    assert await link.ask("echo", b"still") == b"still"


async def test_time_is_up_is_unavailable_and_cancels_the_work(link: Link, server: Server) -> None:
    with pytest.raises(Unavailable):
        await link.ask("hang", b"", timeout_s=0.01)
    async with asyncio.timeout(5):
        await server.cancelled.wait()


async def test_an_error_comes_after_the_items_before_it_with_all_it_says(link: Link) -> None:
    got = []
    with pytest.raises(LimitReached) as caught:
        async for item in link.call("refuse", b""):
            got.append(item)
    error = caught.value
    assert got == [b"one"]
    assert (error.detail, error.field, error.next, error.retry_after_s) == ("Too much.", "text", "Less.", 2.5)


async def test_an_unknown_method_is_not_found(link: Link) -> None:
    with pytest.raises(NotFound):
        await link.ask("no-such", b"")


@pytest.mark.filterwarnings("ignore")
async def test_a_bug_at_the_other_end_is_an_internal_error_without_its_words(link: Link) -> None:
    with pytest.raises(FlotillaError) as caught:
        await link.ask("break", b"")
    assert type(caught.value) is FlotillaError and "secret" not in str(caught.value)
    assert await link.ask("echo", b"still") == b"still"


async def test_an_end_without_an_answer_is_unavailable(link: Link) -> None:
    with pytest.raises(Unavailable):
        await link.ask("nothing", b"")


async def test_a_wrong_token_is_hung_up_on_and_nothing_runs(address: str, server: Server) -> None:
    for token in ("", "wrong", TOKEN + "x"):
        link = await connect(address, token)
        with pytest.raises(Unavailable):
            await link.ask("echo", b"x")
        assert link.lost
    assert server.opened == 0


async def test_a_lost_link_fails_every_open_call_and_later_ones(server: Server) -> None:
    listener = Listener(server.answer, TOKEN)
    link = await connect(await listener.start(), TOKEN)
    calls = [asyncio.create_task(link.ask("hang", b"")) for _ in range(50)]
    await server.started.wait()
    await listener.aclose()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in done)
    with pytest.raises(Unavailable):
        await link.ask("echo", b"")
    with pytest.raises(Unavailable):
        await connect(link.address, TOKEN)


async def test_a_caller_that_dies_cancels_its_work(address: str, server: Server) -> None:
    link = await connect(address, TOKEN)
    task = asyncio.create_task(link.ask("hang", b""))
    await server.started.wait()
    link.abort()
    with pytest.raises(Unavailable):
        await task
    async with asyncio.timeout(5):
        await server.cancelled.wait()


async def test_links_are_shared_and_made_again_when_lost(address: str) -> None:
    links = Links(TOKEN)
    first, same = await asyncio.gather(links.to(address), links.to(address))
    assert first is same
    await first.aclose()
    again = await links.to(address)
    assert again is not first and await again.ask("echo", b"x") == b"x"
    await links.aclose()


async def speak(address: str, *frames: bytes) -> bytes | None:
    """What the listener sends; nothing if it hangs up, None if it keeps silent."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join(frames))
    try:
        return await asyncio.wait_for(reader.read(100), PATIENCE_S)
    except ConnectionError:
        return b""
    except TimeoutError:
        return None
    finally:
        writer.close()


def frame(op: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IBQ", len(body) if length is None else length, op, stream) + body


HELLO = frame(0, 0, TOKEN.encode())
JUNK = {
    "another protocol": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    "zeros": [bytes(64)],
    "a call before the hello": [frame(1, 1, b"echo\0x")],
    "a frame over the limit": [HELLO, frame(1, 1, b"", LIMITS.link_frame_bytes_max + 1)],
    "an unknown op": [HELLO, frame(99, 1, b"x")],
    "a wrong token, then the right one": [frame(0, 0, b"wrong"), HELLO, frame(1, 1, b"echo\0x")],
}


@pytest.mark.parametrize("frames", JUNK.values(), ids=JUNK)
async def test_junk_is_hung_up_on_and_the_listener_lives(
    address: str, link: Link, server: Server, frames: list[bytes]
) -> None:
    assert await speak(address, *frames) == b""
    assert server.opened == 0
    assert await link.ask("echo", b"still") == b"still"


async def test_an_unauthenticated_peer_may_not_make_the_listener_keep_megabytes(address: str) -> None:
    """Until the token has come, a frame has no reason to be longer than a token."""
    assert await speak(address, frame(0, 0, b"", LIMITS.link_frame_bytes_max)) == b""


@pytest.mark.filterwarnings("ignore")
async def test_a_method_that_is_no_text_fails_its_own_call_only(address: str, link: Link) -> None:
    assert await speak(address, HELLO, frame(1, 7, b"\xff\xfe\0x")), "the caller is told"
    assert await link.ask("echo", b"still") == b"still"


async def test_an_item_over_the_limit_fails_its_own_call_only(link: Link) -> None:
    with pytest.raises(FlotillaError):
        await link.ask("echo", bytes(LIMITS.link_frame_bytes_max))
    assert await link.ask("echo", b"still") == b"still"


async def test_ten_thousand_asks_take_well_under_a_millisecond_each(link: Link) -> None:
    begun = time.process_time()
    for _ in range(100):
        await asyncio.gather(*(link.ask("echo", b"x" * 200) for _ in range(100)))
    assert time.process_time() - begun < 5.0
