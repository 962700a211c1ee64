"""Replicas as real processes: started by a plan, asked over a link, killed, swapped in place, ended."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import psutil
import pytest
import ray

from actors import cluster
from actors.cluster import RayReplicas
from actors.link import Links
from actors.serving.manning import Manning
from flotilla.core.clock import SystemClock
from flotilla.core.generation import ChatMessage, Finished, Piece, Prompt
from flotilla.core.members import Member
from flotilla.core.versions import Placed, Plan, Version
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.valkey_boards import ValkeyFailureBoard, ValkeyPlanBoard
from tests.actors.membership import LOG, TOKEN
from tests.cluster.replica_wires import recipe_at

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def head() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        namespace=cluster.NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80_000_000,
    )
    yield
    ray.shutdown()


@pytest.fixture
def server() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))
    made = Valkey(folder, folder)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Control:
    """The manning of a controller that looks while a test waits."""

    def __init__(self, url: str) -> None:
        client = valkey.connect(url)
        self.directory, self.links = valkey.ValkeyDirectory(client), Links(TOKEN)
        self.board, self.failures = ValkeyPlanBoard(client), ValkeyFailureBoard(client)
        self.manning = Manning(
            directory=self.directory,
            board=self.board,
            failures=self.failures,
            processes=RayReplicas(lambda name, placed: recipe_at(url, name, placed)),
            links=self.links,
            clock=SystemClock(),
            log=LOG,
        )
        self.revision = 0

    async def place(self, *versions: Version, count: int = 1) -> None:
        self.revision += 1
        placed = tuple(Placed(version=each, least=count, most=count) for each in versions)
        known = {each.id: each for each in versions}
        await self.board.publish(Plan(model="m", revision=self.revision, versions=known, placed=placed))

    async def until(self, condition: Callable[[list[Member]], bool]) -> list[Member]:
        """Looks until it is true of those that are there."""
        async with asyncio.timeout(60):
            while not condition(members := await self.directory.members("model")):
                await self.manning.look()
                await asyncio.sleep(0.2)
        return members

    async def names(self, *names: str) -> list[Member]:
        return await self.until(lambda members: [m.name for m in members] == list(names))

    async def ask(self, member: Member, model: str) -> Finished:
        link = await self.links.to(member.address)
        body = msgspec.msgpack.encode(Prompt(messages=(ChatMessage(role="user", text="Hi"),), model=model))
        async with aclosing(link.call("generate", body)) as items:
            parts = [msgspec.msgpack.decode(item, type=Piece | Finished) async for item in items]
        assert len(parts) > 1 and isinstance(parts[-1], Finished)
        return parts[-1]


@pytest.fixture
async def control(server: Valkey) -> AsyncIterator[Control]:
    made = Control(server.url)
    yield made
    for name in cluster.names("model"):
        cluster.stop("model", name)
    await made.links.aclose()
    await made.directory.close()


def version(name: str, source: str = "") -> Version:
    return Version(model="m", name=name, engine="scripted", source=source)


def process(member: Member) -> psutil.Process:
    """Whoever listens at its address."""
    port = int(member.address.rpartition(":")[2])
    found = (c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid)
    return psutil.Process(next(found))


async def test_one_becomes_two_one_is_killed_and_comes_back_and_all_are_drained(control: Control) -> None:
    await control.place(version("1"))
    (first,) = await control.names("m@1.1")
    assert first.info == {"version": "m@1", "name": "m@1"} and first.load["running"] == 0
    assert (await control.ask(first, "m")).model == "m@1"

    await control.place(version("1"), count=2)
    await control.names("m@1.1", "m@1.2")
    process(first).kill()
    back, _ = await control.until(
        lambda members: [m.name for m in members] == ["m@1.1", "m@1.2"] and members[0].life != first.life
    )
    assert (await control.ask(back, "m@1")).model == "m@1"
    assert cluster.names("model") == ["m@1.1", "m@1.2"], "the same process, started again by Ray"

    bodies = [process(member) for member in await control.directory.members("model")]
    await control.place()
    await control.until(lambda members: not members and not cluster.names("model"))
    _, alive = await asyncio.to_thread(psutil.wait_procs, bodies, 20)
    assert not alive and not await control.failures.failures()


async def test_a_version_that_cannot_start_is_a_failure_with_its_reason_and_no_loop(control: Control) -> None:
    await control.place(version("1"), version("2", source="nowhere"))
    failures: dict[str, str] = {}
    async with asyncio.timeout(60):
        while not failures:
            await control.manning.look()
            failures = await control.failures.failures()
            await asyncio.sleep(0.2)
    assert failures == {"m@2": "There are no weights at nowhere."}
    (first,) = await control.until(lambda members: bool(members) and cluster.names("model") == ["m@1.1"])
    for _ in range(20):
        await control.manning.look()
    assert cluster.names("model") == ["m@1.1"] and control.manning.history.highest["m@2"] == 1
    assert (await control.ask(first, "m@1")).model == "m@1"


async def test_a_replica_is_swapped_in_place_and_counts_for_what_it_serves(control: Control) -> None:
    await control.place(version("1"))
    (member,) = await control.names("m@1.1")
    link = await control.links.to(member.address)
    await link.ask("reload", msgspec.msgpack.encode(version("2")))
    assert (await control.ask(member, "m@2")).model == "m@2"
    (member,) = await _serving(control, "m@2")
    await control.place(version("2"))
    for _ in range(10):
        assert not (decided := await control.manning.look()).start and not decided.stop
    assert cluster.names("model") == ["m@1.1"]
    process(member).kill()  # Ray starts it with what it was made of
    (member,) = await control.names("m@2.1")
    assert (await control.ask(member, "m")).model == "m@2"


async def _serving(control: Control, id: str) -> list[Member]:
    """Waits for the next beat, and does not look meanwhile: no plan says so yet."""
    async with asyncio.timeout(10):
        while (members := await control.directory.members("model"))[0].info["version"] != id:
            await asyncio.sleep(0.1)
    return members
