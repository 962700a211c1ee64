"""The answering end of a replica: what it serves, what it refuses, and how its weights are swapped in place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from actors.link import Link, Listener, connect
from actors.serving.door import Door, within
from actors.serving.meters import ReplicaSaid
from actors.serving.replica import RELOAD_MAX_S, Replica
from actors.serving.watching import watch
from actors.serving.weights import IN_PLACE_WAIT_S
from flotilla.core.errors import (
    AdapterMissing,
    Conflict,
    FlotillaError,
    Misconfigured,
    NotFound,
    OtherVersion,
    Overloaded,
    Refused,
    Unavailable,
)
from flotilla.core.generation import ChatMessage, EngineLoad, Finished, Generated, Piece, Prompt
from flotilla.core.versions import Version
from tests.actors.engines import Puppet
from tests.actors.membership import LOG, TOKEN, Hands

pytestmark = pytest.mark.timeout(10)

OLD = Version(model="m", name="1", engine="scripted", source="old", checksum="c1")
NEW = Version(model="m", name="2", engine="scripted", source="new", checksum="c2")
ADAPTER = Version(model="m", name="bank", base="m@1", adapter="bank", checksum="c3")


class Turned(Hands):
    """A clock whose sleepers wait until the test turns its hands."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.at + seconds, event))
        await event.wait()

    async def turn(self, seconds: float) -> None:
        self.at += seconds
        for due, event in self._sleepers:
            if due <= self.at:
                event.set()
        await settle()


async def settle() -> None:
    """Everybody who can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Stage:
    def __init__(self, version: Version = OLD) -> None:
        self.clock, self.engine = Turned(), Puppet(version.id)
        self.fetched: list[tuple[str, str]] = []
        self.missing: set[str] = set()
        self.fetching = asyncio.Event()
        self.fetching.set()
        self.replica = Replica(
            self.engine, version, self.fetch, self.clock, LOG, door=Door(self.clock, waiting_max=3)
        )
        self._tasks: list[asyncio.Task[Any]] = []

    async def fetch(self, uri: str, checksum: str) -> str:
        self.fetched.append((uri, checksum))
        await self.fetching.wait()
        if uri in self.missing:
            raise Misconfigured(f"{uri} is nowhere.", field="source")
        return f"/weights/{uri}"

    def begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    def ask(self, model: str = "", **more: Any) -> asyncio.Task[tuple[str, str]]:
        return self.begin(made(self.replica, prompt(model, **more)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    set_up = Stage()
    yield set_up
    await set_up.close()


def prompt(model: str = "", **more: Any) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text="Hi"),), model=model, **more)


async def made(replica: Replica, asked: Prompt) -> tuple[str, str]:
    """The text, and the version that says it made it."""
    text, by = "", ""
    async for part in replica.generate(asked):
        text += part.text if isinstance(part, Piece) else ""
        by = part.model if isinstance(part, Finished) else by
    return text, by


# -- over a link


async def linked(replica: Replica) -> tuple[Listener, Link]:
    listener = Listener(replica.handle, TOKEN)
    return listener, await connect(await listener.start(), TOKEN)


async def test_all_its_methods_over_a_link(stage: Stage) -> None:
    listener, link = await linked(stage.replica)
    body = msgspec.msgpack.encode(prompt("m@1"))
    async with aclosing(link.call("generate", body)) as items:
        parts: list[Generated] = [msgspec.msgpack.decode(item, type=Piece | Finished) async for item in items]
    assert [type(part) for part in parts] == [Piece, Piece, Finished]
    assert isinstance(parts[-1], Finished) and parts[-1].model == "m@1"
    assert await link.ask("ping", b"") == b""
    await link.ask("load_adapter", msgspec.msgpack.encode(ADAPTER))
    said = msgspec.msgpack.decode(await link.ask("metrics", b""), type=ReplicaSaid)
    assert (said.version, said.meter.generated_tokens, said.meter.ended) == ("m@1", 2, {"stop": 1})
    assert said.load.adapters == ("m@bank",) and said.load.queued_tokens == 7
    await link.ask("unload_adapter", msgspec.msgpack.encode("m@bank"))
    await link.ask("reload", msgspec.msgpack.encode(NEW))
    assert stage.replica.info() == {"version": "m@2", "name": "m@2"}
    assert msgspec.msgpack.decode(await link.ask("drain", b"")) == 0
    with pytest.raises(NotFound):
        await link.ask("dance", b"")
    for method in ("generate", "reload", "load_adapter", "unload_adapter"):
        with pytest.raises(Refused):
            await link.ask(method, b"\xc1")
    await link.aclose()
    await listener.aclose()


async def test_a_caller_that_leaves_ends_its_reply(stage: Stage) -> None:
    listener, link = await linked(stage.replica)
    stage.engine.go.clear()
    items = link.call("generate", msgspec.msgpack.encode(prompt()))
    await anext(items)
    assert stage.engine.running == 1 and stage.replica.load().running == 1
    await link.aclose()
    while stage.engine.running:
        await asyncio.sleep(0)
    await settle()
    assert stage.replica.load().running == 0
    await items.aclose()
    await listener.aclose()


# -- what it serves


@pytest.mark.parametrize("model", ["", "m", "m@1"])
async def test_it_makes_what_it_serves_and_says_by_which_version(stage: Stage, model: str) -> None:
    assert await made(stage.replica, prompt(model)) == ("m@1m@1", "m@1")


@pytest.mark.parametrize("model", ["m@2", "other", "m@10", "m@1.1"])
async def test_another_version_is_refused_before_the_engine_hears_of_it(stage: Stage, model: str) -> None:
    with pytest.raises(OtherVersion, match="m@1"):
        await made(stage.replica, prompt(model))
    assert not stage.engine.prompts


async def test_an_adapter_is_applied_where_it_is_loaded_and_missing_where_not(stage: Stage) -> None:
    asked = prompt("m@bank", adapter="m@bank")
    with pytest.raises(AdapterMissing):
        await made(stage.replica, asked)
    for _ in range(2):
        await stage.replica.weights.load_adapter(ADAPTER)
    assert stage.fetched == [("bank", "c3")]
    assert await made(stage.replica, asked) == ("m@1m@1", "m@bank")
    assert stage.replica.report()[1]["adapter:m@bank"] == 1.0
    for _ in range(2):
        await stage.replica.weights.unload_adapter("m@bank")
    with pytest.raises(AdapterMissing):
        await made(stage.replica, asked)


async def test_an_adapter_of_another_base_or_that_does_not_fit_changes_nothing(stage: Stage) -> None:
    with pytest.raises(OtherVersion):
        await stage.replica.weights.load_adapter(msgspec.structs.replace(ADAPTER, base="m@2"))
    with pytest.raises(Refused):
        await stage.replica.weights.load_adapter(NEW)
    assert not stage.fetched
    stage.engine.bad = {"/weights/bank"}
    with pytest.raises(Misconfigured) as refused:
        await stage.replica.weights.load_adapter(ADAPTER)
    assert refused.value.field == "adapter"
    assert await made(stage.replica, prompt()) == ("m@1m@1", "m@1")


async def test_it_reports_its_load_by_name(stage: Stage) -> None:
    await stage.replica.weights.load_adapter(ADAPTER)
    assert stage.replica.report() == (
        "up",
        {
            "running": 0,
            "waiting": 0,
            "queued_tokens": 7,
            "first_token_ms": 0.0,
            "cache_used": 0.5,
            "adapter:m@bank": 1.0,
        },
    )


# -- in place


async def test_a_reload_waits_for_those_that_run_and_those_that_come_wait_for_it(stage: Stage) -> None:
    stage.engine.go.clear()
    runs = stage.ask("m@1")
    await settle()
    reload = stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    waits = [stage.ask(model) for model in ("m@1", "m", "m@2")]
    await settle()
    state, load = stage.replica.report()
    assert (state, load["reloading"], load["waiting"], load["running"]) == ("up", 1.0, 3, 1)
    assert not stage.engine.reloads
    stage.engine.go.set()
    assert await runs == ("m@1m@1", "m@1"), "made by one version from end to end"
    await reload
    for waiting in waits:
        assert await waiting == ("m@2m@2", "m@2")
    assert stage.fetched == [("new", "c2")] and stage.engine.reloads == [("/weights/new", "m@2")]
    assert stage.replica.info()["version"] == "m@2" and "reloading" not in stage.replica.report()[1]


@pytest.mark.parametrize("more", [{"said": "Hel"}, {"pinned": True}])
async def test_what_was_begun_or_pinned_is_never_made_by_another_version(stage: Stage, more: Any) -> None:
    stage.engine.reload_may.clear()
    reload = stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    waits = stage.ask("m@1", **more)
    await settle()
    stage.engine.reload_may.set()
    await reload
    with pytest.raises(OtherVersion):
        await waits
    assert await made(stage.replica, prompt("m@2", **more)) == ("m@2m@2", "m@2")


async def test_before_the_door_is_closed_replies_go_on_while_weights_are_fetched(stage: Stage) -> None:
    stage.fetching.clear()
    reload = stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    assert await made(stage.replica, prompt("m@1")) == ("m@1m@1", "m@1")
    stage.fetching.set()
    await reload
    with pytest.raises(OtherVersion):
        await made(stage.replica, prompt("m@1"))


async def test_adapters_go_with_the_weights_they_were_made_for(stage: Stage) -> None:
    await stage.replica.weights.load_adapter(ADAPTER)
    await stage.replica.weights.reload(NEW)
    assert stage.replica.load().adapters == ()
    with pytest.raises(OtherVersion):
        await stage.replica.weights.load_adapter(ADAPTER)


async def test_too_many_do_not_wait_and_nobody_waits_for_ever(stage: Stage) -> None:
    stage.engine.reload_may.clear()
    stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    waits = [stage.ask() for _ in range(3)]
    await settle()
    with pytest.raises(Overloaded, match="3 prompts wait"):
        await made(stage.replica, prompt())
    await stage.clock.turn(30)
    for waiting in waits:
        with pytest.raises(Overloaded, match="30 s") as shed:
            await waiting
        assert shed.value.retry_after_s
    assert stage.replica.load().waiting == 0


async def test_a_reload_gives_up_where_replies_take_too_long_and_serves_on(stage: Stage) -> None:
    stage.engine.go.clear()
    runs = stage.ask("m@1")
    await settle()
    reload = stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    waits = stage.ask("m@1")
    await settle()
    await stage.clock.turn(IN_PLACE_WAIT_S)
    with pytest.raises(Unavailable, match="1 replies"):
        await reload
    stage.engine.go.set()
    assert await runs == await waits == ("m@1m@1", "m@1")
    assert not stage.engine.reloads


@pytest.mark.parametrize("fault", ["missing", "bad", "mute"])
async def test_weights_that_are_no_good_leave_the_old_ones_serving(stage: Stage, fault: str) -> None:
    stage.missing = {"new"} if fault == "missing" else set()
    stage.engine.bad = {"/weights/new"} if fault == "bad" else set()
    stage.engine.mute = {"m@2"} if fault == "mute" else set()
    with pytest.raises(Unavailable if fault == "mute" else Misconfigured):
        await stage.replica.weights.reload(NEW)
    assert await made(stage.replica, prompt("m@1")) == ("m@1m@1", "m@1")
    assert stage.replica.info()["version"] == "m@1"
    await stage.replica.ping()


async def test_one_that_finds_no_way_back_is_not_well(stage: Stage) -> None:
    stage.engine.mute = {"m@2"}
    stage.missing = {"old"}
    with pytest.raises(Misconfigured):
        await stage.replica.weights.reload(NEW)
    with pytest.raises(Unavailable, match="Neither"):
        await stage.replica.ping()


async def test_the_same_reload_is_done_once_and_another_one_is_refused_meanwhile(stage: Stage) -> None:
    stage.engine.reload_may.clear()
    first, second = (stage.begin(stage.replica.weights.reload(NEW)) for _ in range(2))
    await settle()
    with pytest.raises(Conflict, match="m@2"):
        await stage.replica.weights.reload(msgspec.structs.replace(NEW, name="3"))
    first.cancel()  # its caller has gone
    await settle()
    stage.engine.reload_may.set()
    await second
    await stage.replica.weights.reload(NEW)
    assert stage.engine.reloads == [("/weights/new", "m@2")]


@pytest.mark.parametrize(
    ("version", "error"),
    [
        (ADAPTER, Refused),
        (msgspec.structs.replace(NEW, model="other"), Misconfigured),
        (msgspec.structs.replace(NEW, engine="vllm"), Misconfigured),
    ],
)
async def test_what_can_never_take_its_place_is_refused_at_once(
    stage: Stage, version: Version, error: type[FlotillaError]
) -> None:
    with pytest.raises(error) as refused:
        await stage.replica.weights.reload(version)
    assert refused.value.field and refused.value.next and not stage.fetched


async def test_back_and_forth_many_times_no_reply_is_lost_or_mixed(stage: Stage) -> None:
    async def keep_asking(results: list[tuple[str, str]]) -> None:
        while not over.is_set():
            results.append(await made(stage.replica, prompt("m")))
            await asyncio.sleep(0)

    results, over = list[tuple[str, str]](), asyncio.Event()
    asking = [stage.begin(keep_asking(results)) for _ in range(3)]
    for version in (NEW, OLD) * 25:
        seen = len(results)
        while len(results) < seen + 4:
            await asyncio.sleep(0)
        await stage.replica.weights.reload(version)
    over.set()
    await asyncio.gather(*asking)
    assert {by for _, by in results} == {"m@1", "m@2"} and len(results) >= 200
    assert all(text == by * 2 for text, by in results)


# -- leaving


async def test_one_that_drains_finishes_what_runs_and_takes_nothing_new(stage: Stage) -> None:
    stage.engine.go.clear()
    runs = stage.ask()
    await settle()
    assert stage.replica.drain() == 1
    assert stage.replica.report()[0] == "draining"
    for more in ({}, {"said": "Hel"}):
        with pytest.raises(OtherVersion, match="leaving"):
            await made(stage.replica, prompt("m@1", **more))
    stage.engine.go.set()
    assert await runs == ("m@1m@1", "m@1")
    assert stage.replica.drain() == 0


# -- health


async def test_a_warm_replica_has_made_one_token(stage: Stage) -> None:
    await stage.replica.warm()
    (asked,) = stage.engine.prompts
    assert asked.tokens_max == 1
    stage.engine.mute = {"m@1"}
    with pytest.raises(Unavailable):
        await stage.replica.warm()


async def test_a_ping_is_an_answer_while_weights_are_reloaded_but_not_for_ever(stage: Stage) -> None:
    stage.engine.reload_may.clear()
    stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    await stage.replica.ping()
    stage.clock.at += RELOAD_MAX_S + 1
    with pytest.raises(Unavailable, match="did not load"):
        await stage.replica.ping()


async def test_a_reload_waits_for_a_ping(stage: Stage) -> None:
    """A ping generates, and nobody may while weights are swapped."""
    stage.engine.silent = True
    ping = stage.begin(stage.replica.ping())
    await settle()
    reload = stage.begin(stage.replica.weights.reload(NEW))
    await settle()
    assert not stage.engine.reloads and not reload.done()
    stage.engine.silent = False
    ping.cancel()
    await reload


class Patient:
    """What `watch` sees: an engine that answers, hangs, is busy or is dead."""

    def __init__(self) -> None:
        self.pings, self.running = 0, 0
        self.does: Callable[[], None] | None = None
        self.hangs = False

    def load(self) -> EngineLoad:
        return EngineLoad(running=self.running)

    async def ping(self) -> None:
        self.pings += 1
        if self.does:
            self.does()
        if self.hangs:
            await asyncio.get_running_loop().create_future()


async def watched(stage: Stage, patient: Patient) -> asyncio.Task[Any]:
    task = stage.begin(watch(patient, stage.clock, first_token_max_s=5, busy_token_max_s=50))
    await settle()
    return task


async def test_a_healthy_engine_is_asked_once_a_second(stage: Stage) -> None:
    patient = Patient()
    task = await watched(stage, patient)
    for n in range(1, 5):
        assert patient.pings == n
        await stage.clock.turn(1)
    assert not task.done()


async def test_a_dead_engine_ends_its_process_and_a_busy_one_does_not(stage: Stage) -> None:
    patient, errors = Patient(), iter([Overloaded("busy"), Unavailable("dead")])

    def fail() -> None:
        raise next(errors)

    patient.does = fail
    task = await watched(stage, patient)
    await stage.clock.turn(1)
    with pytest.raises(Unavailable, match="dead"):
        await task


async def test_an_idle_engine_whose_first_token_takes_too_long_is_not_well(stage: Stage) -> None:
    patient = Patient()
    patient.hangs = True
    task = await watched(stage, patient)
    await stage.clock.turn(4)
    assert not task.done()
    await stage.clock.turn(1)
    with pytest.raises(Unavailable, match="no token"):
        await task


async def test_a_busy_engine_is_given_more_time(stage: Stage) -> None:
    patient = Patient()
    patient.hangs, patient.running = True, 4
    task = await watched(stage, patient)
    await stage.clock.turn(5)
    await stage.clock.turn(49)
    assert not task.done()
    await stage.clock.turn(1)
    with pytest.raises(Unavailable):
        await task


async def test_who_waits_for_so_long_is_told_and_what_it_waited_for_is_cancelled() -> None:
    clock, ended = Turned(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(within(clock, 3.0, work()))
    await settle()
    await clock.turn(3)
    with pytest.raises(TimeoutError):
        await task
    assert ended.is_set()
