"""The seam to Ray: processes are listed, started once, started again when they die, and ended for good."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

from actors import cluster
from actors.cluster import RayHosts, Recipe
from actors.controller import Controller
from actors.link import Links
from flotilla.core.clock import SystemClock
from flotilla.core.policy.scaling import Bounds
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from tests.actors.membership import LOG, TOKEN

pytestmark = pytest.mark.timeout(180)
FOR_EVER_S = 3600.0


@pytest.fixture(scope="module", autouse=True)
def head() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=1,
        resources={"host": 8},
        namespace=cluster.NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80_000_000,
    )
    yield
    ray.shutdown()


def recipe(name: str, lives_s: float = FOR_EVER_S, resource: str = "host") -> Recipe:
    return Recipe(
        role="host",
        name=name,
        wire="tests.cluster.wires:lives",
        settings=lives_s,
        listen="127.0.0.1",
        resources={resource: 1},
    )


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def address(of: Recipe) -> str:
    return cluster.status(of).detail


def process(of: Recipe) -> psutil.Process:
    """Whoever listens at its address."""
    port = int(address(of).rpartition(":")[2])
    found = (c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid)
    return psutil.Process(next(found))


def test_a_process_that_is_killed_comes_back_and_one_that_is_stopped_does_not() -> None:
    mine = recipe("host-0")
    cluster.start(mine)
    cluster.wait_up(mine, 60)
    first = address(mine)
    cluster.start(mine)  # there already
    assert address(mine) == first and cluster.names("host") == ["host-0"]
    process(mine).kill()
    until(lambda: cluster.status(mine).state == "up" and address(mine) != first)
    assert cluster.names("host") == ["host-0"]
    body = process(mine)
    cluster.stop("host", "host-0")
    cluster.stop("host", "host-0")  # nothing there any more
    until(lambda: not body.is_running())
    assert cluster.names("host") == []


def test_a_process_that_has_ended_for_good_is_not_started_again_until_it_is_wanted() -> None:
    mine = recipe("host-1", lives_s=0.5)
    cluster.start(mine)
    until(lambda: cluster.names("host") == [])
    cluster.start(recipe("host-1"))
    cluster.wait_up(mine, 60)
    cluster.stop("host", "host-1")


async def test_one_that_finds_no_place_is_listed_and_can_be_given_up() -> None:
    hosts = RayHosts(lambda name: recipe(name, resource="nowhere"))
    await hosts.start("host-2")
    assert await hosts.names() == ["host-2"]
    await hosts.stop("host-2")
    assert await hosts.names() == []


# -- the controller, on real processes and a real directory


@pytest.fixture
def server() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))
    made = Valkey(folder, folder)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Control:
    """A controller that looks while a test waits."""

    def __init__(self, url: str) -> None:
        client = valkey.connect(url)
        self.directory, self.links = valkey.ValkeyDirectory(client), Links(TOKEN)
        self.controller = Controller(
            directory=self.directory,
            pins=valkey.ValkeyPins(client),
            processes=RayHosts(lambda name: self._recipe(name, url)),
            links=self.links,
            clock=SystemClock(),
            log=LOG,
            bounds=Bounds(least=2, most=3, activations_max=1000),
        )

    @staticmethod
    def _recipe(name: str, url: str) -> Recipe:
        return Recipe(
            role="host",
            name=name,
            wire="tests.cluster.wires:beats",
            settings=url,
            listen="127.0.0.1",
            resources={"host": 1},
        )

    async def until(self, *names: str) -> None:
        """Looks until just these are up."""
        async with asyncio.timeout(90):
            while [m.name for m in await self.directory.members("host")] != list(names):
                await self.controller.look()
                await asyncio.sleep(0.3)


@pytest.fixture
async def control(server: Valkey) -> AsyncIterator[Control]:
    made = Control(server.url)
    yield made
    await made.controller.aclose()
    for name in cluster.names("host"):
        cluster.stop("host", name)
    await made.links.aclose()
    await made.directory.close()


async def test_hosts_are_brought_up_drained_and_replaced(control: Control) -> None:
    await control.until("host-0", "host-1")
    cluster.stop("host", "host-0")  # as when its node is gone and Ray has given up
    await control.until("host-1", "host-2")
    await control.controller.drain("host-1")
    assert "host-1" not in cluster.names("host")
    await control.until("host-2", "host-3")
