"""Asks and tells: one frame each way, in order, bounded, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import uvloop

from actors.link import Link, Listener, Reply, connect
from actors.wire import Frames, Op
from flotilla.core.errors import FlotillaError, MailboxFull, NotFound, Overloaded, TooLarge, Unavailable
from flotilla.core.limits import LIMITS
from tests.actors.test_link import HELLO, TOKEN, frame, speak, until

MB = 1024 * 1024
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return request.param()


class Server:
    """Keeps what it is asked, and answers some of it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.kept: list[Reply] = []
        self.cancelled = 0

    def asked(self, method: str, body: bytes, reply: Reply | None) -> None:
        self.heard.append((method, body))
        if method == "break":
            raise ValueError("secret inside")
        if reply is None:
            return None
        match method:
            case "echo":
                return reply.answer(body)
            case "large":
                return reply.answer(bytes(int(body)))
            case "refuse":
                raise MailboxFull("Too much.", field="text", next="Less.", retry_after_s=2.5)
            case "twice":
                reply.answer(b"first")
                reply.answer(b"second")
                return reply.refuse(NotFound("third"))
            case _:
                reply.on_cancel = self._count
                return self.kept.append(reply)

    async def handle(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        if method != "count":
            raise NotFound(f"No stream {method!r}.")
        for n in range(int(body)):
            yield b"%d" % n

    def _count(self) -> None:
        self.cancelled += 1


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def address(server: Server) -> AsyncIterator[str]:
    listener = Listener(server.handle, TOKEN, asked=server.asked)
    yield await listener.start()
    await listener.aclose()


@pytest.fixture
async def link(address: str) -> AsyncIterator[Link]:
    opened = await connect(address, TOKEN)
    yield opened
    await opened.aclose()


@pytest.fixture
async def reports() -> list[dict[str, Any]]:
    """What the loop's exception handler is told."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    return heard


async def settled(tasks: list[asyncio.Task[bytes]]) -> list[Any]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*tasks, return_exceptions=True)


# -- the way there and back


async def test_tells_asks_and_streams_are_heard_in_the_order_in_which_they_were_sent(
    link: Link, server: Server
) -> None:
    asks: list[asyncio.Task[bytes]] = []
    for n in range(3000):
        if n % 3:
            link.tell("note", b"%d" % n)
        else:
            asks.append(asyncio.create_task(link.ask("echo", b"%d" % n)))
            await asyncio.sleep(0)
    assert await settled(asks) == [b"%d" % n for n in range(0, 3000, 3)]
    assert await link.ask("echo", b"last") == b"last"
    assert [int(body) for _, body in server.heard[:-1]] == list(range(3000))
    assert [item async for item in link.call("count", b"500")] == [b"%d" % n for n in range(500)]


async def test_answers_may_come_in_another_order(link: Link, server: Server) -> None:
    asks = [asyncio.create_task(link.ask("keep", b"")) for _ in range(100)]
    await until(lambda: len(server.kept) == 100)
    for n, reply in reversed(list(enumerate(server.kept))):
        reply.answer(b"%d" % n)
    assert await settled(asks) == [b"%d" % n for n in range(100)]


async def test_a_refusal_says_all_that_it_said_there(link: Link) -> None:
    with pytest.raises(MailboxFull) as caught:
        await link.ask("refuse", b"")
    error = caught.value
    assert (error.detail, error.field, error.next, error.retry_after_s) == ("Too much.", "text", "Less.", 2.5)


async def test_the_first_answer_counts(link: Link) -> None:
    assert await link.ask("twice", b"") == b"first"
    assert await link.ask("echo", b"x") == b"x"


@pytest.mark.parametrize("send", [Link.ask, Link.tell])
async def test_a_bug_there_is_reported_there_and_its_words_stay_there(
    link: Link, server: Server, reports: list[dict[str, Any]], send: Callable[..., Any]
) -> None:
    if send is Link.ask:
        with pytest.raises(FlotillaError) as caught:
            await link.ask("break", b"")
        assert type(caught.value) is FlotillaError and "secret" not in str(caught.value)
    else:
        link.tell("break", b"")
    assert await link.ask("echo", b"still") == b"still"
    assert [str(report["exception"]) for report in reports] == ["secret inside"]


async def test_what_fits_no_frame_fails_alone(link: Link) -> None:
    with pytest.raises(TooLarge):
        await link.ask("echo", bytes(LIMITS.link_frame_bytes_max))
    with pytest.raises(TooLarge):
        link.tell("note", bytes(LIMITS.link_frame_bytes_max))
    with pytest.raises(TooLarge):
        await link.ask("large", b"%d" % (LIMITS.link_frame_bytes_max + 1))
    body = bytes(range(256)) * 40_000
    assert await link.ask("echo", body) == body
    assert "0 asks" in repr(link)


# -- nobody waits any more


async def test_cancelling_an_ask_reaches_whoever_was_asked(link: Link, server: Server) -> None:
    asks = [asyncio.create_task(link.ask("keep", b"")) for _ in range(3)]
    await until(lambda: len(server.kept) == 3)
    asks[1].cancel()
    await until(lambda: server.cancelled == 1)
    assert [reply.gone for reply in server.kept] == [False, True, False]
    for reply in server.kept:
        reply.answer(b"done")
    first, second, third = await settled(asks)
    assert (first, third) == (b"done", b"done") and isinstance(second, asyncio.CancelledError)


async def test_cancelled_before_it_was_sent_or_after_it_was_answered_is_no_trouble(
    link: Link, server: Server, reports: list[dict[str, Any]]
) -> None:
    never = asyncio.create_task(link.ask("keep", b""))
    never.cancel()
    refused = asyncio.create_task(link.ask("keep", b""))
    await until(lambda: server.kept)
    link.on_frame(Op.ERROR, 1, msgspec.json.encode(NotFound("gone").problem()))
    refused.cancel()  # the answer is here, and the task has not run since
    assert [type(outcome) for outcome in await settled([never, refused])] == [asyncio.CancelledError] * 2
    del refused
    gc.collect()  # reports what nobody looked at
    assert await link.ask("echo", b"x") == b"x"
    assert len(server.kept) == 1 and server.cancelled == 0 and reports == []


async def test_time_is_up_by_each_ask_s_own_clock(link: Link, server: Server) -> None:
    done: list[float] = []

    async def ask(timeout_s: float) -> None:
        with pytest.raises(Unavailable, match=f"'keep' in {timeout_s:g} s"):
            await link.ask("keep", b"", timeout_s=timeout_s)
        done.append(timeout_s)

    long = asyncio.create_task(link.ask("keep", b"", timeout_s=30.0))
    async with asyncio.timeout(10):
        await asyncio.gather(*(ask(timeout_s) for timeout_s in (0.3, 0.02, 0.15, 0.0)))
    assert done == [0.0, 0.02, 0.15, 0.3]
    await until(lambda: server.cancelled == 4)
    assert not long.done()
    server.kept[0].answer(b"in time")
    assert await long == b"in time"


async def test_no_ask_is_told_before_its_time_and_the_timer_ends_with_the_link(link: Link) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable):
        await link.ask("keep", b"", timeout_s=0.1)
    assert loop.time() - began >= 0.1 - 0.002  # the loop's own grain
    waiting = asyncio.create_task(link.ask("keep", b"", timeout_s=100.0))
    await asyncio.sleep(0)
    sweeper = link._sweeper
    assert sweeper is not None and not sweeper.cancelled()
    await link.aclose()
    assert sweeper.cancelled()
    assert isinstance((await settled([waiting]))[0], Unavailable)


async def test_a_lost_link_fails_every_ask_and_frees_those_who_work_on_them(server: Server) -> None:
    listener = Listener(server.handle, TOKEN, asked=server.asked)
    link = await connect(await listener.start(), TOKEN)
    asks = [asyncio.create_task(link.ask("keep", b"")) for _ in range(500)]
    await until(lambda: len(server.kept) == 500)
    await listener.aclose()
    assert all(isinstance(outcome, Unavailable) for outcome in await settled(asks))
    await until(lambda: server.cancelled == 500)
    assert all(reply.gone for reply in server.kept)
    server.kept[0].answer(b"nobody hears it")
    for send in (link.tell, link.ask):
        with pytest.raises(Unavailable):
            await (send("note", b"") or asyncio.sleep(0))


async def test_a_link_that_was_hung_up_on_takes_no_tell_even_before_the_socket_knows(link: Link) -> None:
    link.abort()
    with pytest.raises(Unavailable):
        link.tell("note", b"")
    await link.writable()


# -- bounds


async def deaf(hello: asyncio.Event, listen: asyncio.Event) -> tuple[asyncio.Server, str, list[int]]:
    """A server that reads nothing until it may, then everything; and how many bytes it has read."""
    read = [0]

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        hello.set()
        await listen.wait()
        writer.transport.resume_reading()
        while data := await reader.read(MB):
            read[0] += len(data)
        writer.close()

    started = await asyncio.start_server(accept, "127.0.0.1", 0)
    return started, f"127.0.0.1:{started.sockets[0].getsockname()[1]}", read


async def test_what_waits_for_a_deaf_peer_is_bounded_and_goes_out_when_it_listens() -> None:
    hello, listen = asyncio.Event(), asyncio.Event()
    peer, address, read = await deaf(hello, listen)
    link = await connect(address, TOKEN)
    await hello.wait()
    sent = 0
    with pytest.raises(Overloaded):
        while sent < 1000:
            link.tell("note", bytes(MB))
            sent += 1
            await asyncio.sleep(0)
    assert LIMITS.link_out_bytes_max - 2 * MB < link.unsent <= LIMITS.link_out_bytes_max
    with pytest.raises(Overloaded):
        await link.ask("echo", bytes(MB))
    with pytest.raises(Overloaded):
        await anext(link.call("count", bytes(MB)))
    room = asyncio.create_task(link.writable())
    await asyncio.sleep(0)
    assert not room.done()
    listen.set()
    async with asyncio.timeout(20):
        await room
        link.tell("note", b"again")
        await until(lambda: read[0] > sent * MB)
    await link.aclose()
    peer.close()


async def test_whoever_waits_for_room_sends_any_amount_with_little_in_memory(
    link: Link, server: Server
) -> None:
    most = 0

    async def pour() -> None:
        nonlocal most
        for _ in range(400):
            await link.writable()
            link.tell("note", bytes(MB // 4))
            most = max(most, link.unsent)

    await asyncio.gather(pour(), pour())  # 200 MB
    assert await link.ask("echo", b"end") == b"end"
    assert len(server.heard) == 801
    assert most < 4 * MB


async def test_a_peer_that_reads_no_answers_is_not_read_from_until_it_does(
    address: str, link: Link, server: Server
) -> None:
    """Answers come at once here, so what is unread is what bounds them."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    asks = [frame(Op.ASK, n, b"large\0%d" % MB) for n in range(1, 501)]
    writer.write(b"".join([HELLO, *asks]))
    await until(lambda: server.heard)
    for _ in range(20):
        assert await link.ask("echo", b"others") == b"others"
    answered = sum(method == "large" for method, _ in server.heard)
    assert answered < 100
    async with asyncio.timeout(20):
        for _ in asks:
            assert len(await reader.readexactly(13 + MB)) == 13 + MB
    assert sum(method == "large" for method, _ in server.heard) == 500
    writer.close()


async def test_a_peer_with_too_many_answers_unread_is_hung_up_on_and_that_is_reported(
    address: str, link: Link, server: Server, reports: list[dict[str, Any]]
) -> None:
    """Answers come later, all of them for a peer that has stopped reading."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(b"".join([HELLO, *(frame(Op.ASK, n, b"keep\0") for n in range(1, 201))]))
    await until(lambda: len(server.kept) == 200)
    answered = 0
    while not reports:
        server.kept[answered].answer(bytes(MB))
        answered += 1
        await asyncio.sleep(0)
    assert LIMITS.link_out_bytes_max / MB <= answered < 120
    assert "does not read" in reports[0]["message"]
    await until(lambda: server.cancelled == 200 - answered)
    assert all(reply.gone for reply in server.kept[answered:])
    assert await link.ask("echo", b"others") == b"others"
    writer.close()


async def test_a_peer_that_asks_faster_than_it_is_answered_is_made_to_wait(
    address: str, server: Server
) -> None:
    more = LIMITS.link_calls_max + 5000
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join([HELLO, *(frame(Op.ASK, n, b"keep\0%d" % n) for n in range(1, more + 1))]))
    await until(lambda: len(server.kept) > LIMITS.link_calls_max)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(server.kept) == LIMITS.link_calls_max + 1
    for n in range(5000):
        server.kept[n].answer(b"")
    await until(lambda: len(server.kept) == more)
    assert [int(body) for _, body in server.heard] == list(range(1, more + 1))
    writer.close()


async def test_at_its_own_limit_an_asker_is_refused_and_can_always_cancel(link: Link, server: Server) -> None:
    asks = [asyncio.create_task(link.ask("keep", b"", timeout_s=60)) for _ in range(LIMITS.link_calls_max)]
    await until(lambda: len(server.kept) == LIMITS.link_calls_max)
    with pytest.raises(Overloaded):
        await link.ask("echo", b"")
    for ask in asks:
        ask.cancel()
    await settled(asks)
    assert await link.ask("echo", b"room again") == b"room again"
    assert server.cancelled == LIMITS.link_calls_max


# -- what is no frame, or should not be one


class Collected(Frames):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[Op, int, bytes]] = []

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        self.got.append((op, stream, body))

    def on_lost(self) -> None:
        pass


@pytest.mark.parametrize("piece", [1, 2, 5, 12, 13, 14, 50, 1000, 10**6])
async def test_frames_are_cut_wherever_the_stream_is(piece: int) -> None:
    sent = [(op, n * 7**20, bytes(n)) for n, op in enumerate((*Op, *Op, *Op))]
    stream = b"".join(frame(op, number, body) for op, number, body in sent)
    frames = Collected()
    for at in range(0, len(stream), piece):
        frames.data_received(stream[at : at + piece])
    assert frames.got == sent


JUNK = {
    "a number asked twice": [HELLO, frame(Op.ASK, 1, b"keep\0"), frame(Op.ASK, 1, b"keep\0")],
    "an ask and a stream of one number": [HELLO, frame(Op.ASK, 1, b"keep\0"), frame(Op.OPEN, 1, b"x\0")],
    "a tell before the hello": [frame(Op.TELL, 0, b"note\0x")],
    "a tell over the limit": [HELLO, frame(Op.TELL, 0, b"", LIMITS.link_frame_bytes_max + 1)],
    "the first op that is none": [HELLO, frame(len(Op), 0, b"")],
}


@pytest.mark.parametrize("frames", JUNK.values(), ids=JUNK)
async def test_junk_is_hung_up_on(address: str, link: Link, server: Server, frames: list[bytes]) -> None:
    assert await speak(address, *frames) == b""
    assert ("note", b"x") not in server.heard
    assert await link.ask("echo", b"still") == b"still"


async def test_a_method_that_is_no_text_fails_alone(
    address: str, link: Link, reports: list[dict[str, Any]]
) -> None:
    answer = await speak(address, HELLO, frame(Op.TELL, 0, b"\xff\0x"), frame(Op.ASK, 7, b"\xff\0x"))
    assert answer is not None and answer[4] == Op.ERROR and b"problems/refused" in answer
    assert len(reports) == 1
    assert await link.ask("echo", b"still") == b"still"


async def test_frames_for_nobody_are_passed_over(address: str, link: Link) -> None:
    odd = [frame(op, 99, b"") for op in (Op.ANSWER, Op.ITEM, Op.END, Op.ERROR, Op.CREDIT, Op.CANCEL)]
    answer = await speak(address, HELLO, *odd, frame(Op.ASK, 1, b"echo\0x"))
    assert answer == frame(Op.ANSWER, 1, b"x")


ANSWERS = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error that is no problem": frame(Op.ERROR, 1, b"{"),
    "more than any frame holds": frame(Op.ANSWER, 1, b"", LIMITS.link_frame_bytes_max + 1),
    "the end": b"",
}


@pytest.mark.parametrize("junk", ANSWERS.values(), ids=ANSWERS)
async def test_a_peer_that_answers_junk_is_lost_and_its_asks_fail(junk: bytes) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO) + len(frame(Op.ASK, 1, b"echo\0x")))
        writer.write(junk)
        writer.close()

    peer = await asyncio.start_server(accept, "127.0.0.1", 0)
    link = await connect(f"127.0.0.1:{peer.sockets[0].getsockname()[1]}", TOKEN)
    with pytest.raises(Unavailable, match="broke"):
        await link.ask("echo", b"x", timeout_s=20)
    assert link.lost
    peer.close()


async def test_a_peer_that_sends_items_beyond_its_credit_is_hung_up_on() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO))
        writer.write(frame(Op.ITEM, 1, b"x") * (LIMITS.link_window_items + 2))
        await reader.read()
        writer.close()

    peer = await asyncio.start_server(accept, "127.0.0.1", 0)
    link = await connect(f"127.0.0.1:{peer.sockets[0].getsockname()[1]}", TOKEN)
    with pytest.raises(Unavailable):
        async for _ in link.call("flood", b""):
            await link.closed
    peer.close()


# -- a listener that only knows how to stream


async def test_without_asked_the_handler_hears_tells_and_its_refusals_are_reported(
    reports: list[dict[str, Any]],
) -> None:
    heard: list[bytes] = []

    async def handle(method: str, body: bytes) -> AsyncGenerator[bytes]:
        heard.append(body)
        if method != "note":
            raise NotFound(f"No method {method!r}.")
        yield b""

    listener = Listener(handle, TOKEN)
    link = await connect(await listener.start(), TOKEN)
    link.tell("note", b"1")
    link.tell("no-such", b"2")
    assert await link.ask("note", b"3") == b""
    assert heard == [b"1", b"2", b"3"]
    assert len(reports) == 1 and "No method" in reports[0]["message"] + str(reports[0].get("exception"))
    await link.aclose()
    await listener.aclose()
