"""Readers and ways that break: nobody waits in silence, nobody takes others along, nothing turns in circles."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.follower import Remote
from actors.incoming import Tap
from actors.link import Link
from actors.outlet import Outlet
from actors.place import Place
from actors.watch import Watch
from actors.wire import Op
from flotilla.core.errors import FlotillaError, LimitReached, Moved, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.views import events
from flotilla.views.events import Frame
from tests.actors.sinks import Got
from tests.actors.test_follower import Socket
from tests.timing import until

ACTOR = ActorId("t", "session", "s")
OPENED = b'1\n{"seq":1,"type":"session.opened","data":{}}'
LATE = events.delta_frame(1, "t_1", 40, "more")  # the first forty characters never came


class Viewer:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.errors: list[FlotillaError] = []
        self.broken = False

    def frame(self, frame: Frame) -> None:
        if self.broken:
            raise KeyError("a bug")
        self.frames.append(frame)

    def failed(self, error: FlotillaError) -> None:
        self.errors.append(error)


class Road:
    """Ways to one host, whose link says what the test has it say. No time passes."""

    def __init__(self) -> None:
        self.lost = False
        self.found: list[Exception] = []  # what the next searches raise
        self.sinks: list[Any] = []
        self.closed = 0
        self.pauses: list[float] = []
        self.clock = self
        self.roster = self

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def find(self, actor: ActorId, sent_to: str) -> Any:
        if self.found:
            raise self.found.pop(0)
        return SimpleNamespace(name="a", address="")

    def is_here(self, owner: Any) -> bool:
        return False

    async def link_to(self, owner: Any) -> Any:
        return self

    def tap(self, method: str, body: bytes, sink: Any) -> Any:
        self.sinks.append(sink)
        return Tap(self, len(self.sinks), sink)

    def grant(self, stream: int, items: int) -> None:
        pass

    def untap(self, stream: int) -> None:
        self.closed += 1

    def suspect(self, member: Any) -> None:
        pass


async def watching(road: Road) -> tuple[Watch, Viewer]:
    viewer = Viewer()
    ways: Any = road
    watch = Watch(ways, ACTOR, Place(0, 0), viewer)
    watch.start()
    await until(lambda: road.sinks or viewer.errors)
    return watch, viewer


@pytest.fixture(autouse=True)
async def reported() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_bug_on_the_way_is_told_and_not_silence(reported: list[dict[str, Any]]) -> None:
    road = Road()
    road.found = [KeyError("a bug")]
    _, viewer = await watching(road)
    assert len(viewer.errors) == 1 and "KeyError" in str(viewer.errors[0])
    assert reported and isinstance(reported[0]["exception"], KeyError)


async def test_a_viewer_that_breaks_hears_so_once_and_then_nothing(reported: list[dict[str, Any]]) -> None:
    road = Road()
    watch, viewer = await watching(road)
    viewer.broken = True
    watch.item(OPENED)
    assert len(viewer.errors) == 1 and road.closed == 1 and reported
    watch.take()
    watch.close()
    assert len(viewer.errors) == 1


async def test_what_no_one_can_read_ends_the_watch(reported: list[dict[str, Any]]) -> None:
    road = Road()
    watch, viewer = await watching(road)
    watch.item(b"no frame at all")
    assert len(viewer.errors) == 1 and road.closed == 1 and reported


async def test_a_host_that_goes_on_leaving_gaps_is_asked_less_and_less(
    reported: list[dict[str, Any]],
) -> None:
    road = Road()
    watch, viewer = await watching(road)
    for n in range(1, 8):
        watch.item(LATE)
        await until(lambda n=n: len(road.sinks) == n + 1)
    assert road.pauses == sorted(road.pauses) and len(road.pauses) >= 6 and road.pauses[-1] >= 0.5
    watch.item(OPENED)
    watch.item(LATE)
    await until(lambda: len(road.sinks) == 9)
    assert road.pauses[-1] < 0.1  # something came in between
    assert not viewer.errors and not reported


async def test_a_stream_that_ends_without_a_word_is_opened_again_with_a_pause() -> None:
    road = Road()
    watch, _ = await watching(road)
    for n in range(1, 6):
        watch.ended(None)
        await until(lambda n=n: len(road.sinks) == n + 1)
    assert len(road.pauses) == 5 and road.pauses[-1] > road.pauses[0] > 0


async def test_hosts_that_send_to_each_other_are_not_asked_without_a_pause() -> None:
    road = Road()
    road.found = [Moved("There.", field=name) for name in ("b", "a") * 4]
    await watching(road)
    assert len(road.pauses) == 4


async def test_one_closed_while_it_searches_hears_nothing() -> None:
    road = Road()
    viewer = Viewer()
    ways: Any = road
    watch = Watch(ways, ACTOR, Place(0, 0), viewer)
    watch.start()
    await asyncio.sleep(0)
    watch.close()
    watch.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert road.closed == len(road.sinks) and not viewer.errors


# -- one link, many sinks


class Broken(Got):
    def ended(self, error: FlotillaError | None) -> None:
        raise KeyError("a bug")


async def test_a_sink_that_breaks_at_its_end_costs_the_others_nothing(reported: list[dict[str, Any]]) -> None:
    link = Link("127.0.0.1:1")
    sinks = [Broken(), Got(), Broken(), Got()]
    for sink in sinks:
        link.tap("follow", b"", sink)
    link.on_frame(Op.END, 1, b"")
    link.on_lost()
    assert [type(sink.error) for sink in sinks[1::2]] == [Unavailable, Unavailable]
    assert len(reported) == 2


# -- a reader that gives no credit


def test_a_reader_that_takes_nothing_is_told_at_once_that_it_is_let_go_and_nothing_is_kept_for_it() -> None:
    socket = Socket()
    outlet = Outlet(socket, 1)
    follower = Remote(0, 0, outlet)
    gone: list[bool] = []
    outlet.on_gone = lambda: gone.append(True)
    for n in range(LIMITS.link_window_items + LIMITS.follower_events_max + 2):
        follower.put(b"%d" % n)
    assert socket.sent == [b"%d" % n for n in range(LIMITS.link_window_items)]
    assert [type(end) for end in socket.ends] == [LimitReached] and gone == [True]
    assert follower.ended and not follower._frames  # type: ignore[reportPrivateUsage]
    follower.put(b"later")
    assert len(socket.sent) == LIMITS.link_window_items and len(socket.ends) == 1
