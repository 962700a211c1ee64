"""One contract for an actor wherever it lives: in a host with others, or in a Ray actor of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest

from actors.dedicated import process_name
from actors.refs import ActorRef
from examples.counter import Add, Counter, Total
from examples.dedicated import Alone
from examples.ticket import Look, Open, Ticket
from flotilla.core.errors import Refused
from flotilla.core.ids import new_id
from flotilla.views import events
from serve.doors import Doors
from serve.settings import read_settings
from tests.fleet import KINDS, TestFleet

PATIENCE_S = 60.0


@pytest.fixture
async def doors(fleet: TestFleet) -> AsyncIterator[Doors]:
    settings = read_settings(
        {
            "FLOTILLA_HOME": str(fleet.home),
            "REDIS_URL": fleet.local.valkey.url,
            "DATABASE_URL": fleet.local.postgres.url,
            "FLOTILLA_TOKEN": fleet.local.secret("link"),
            "FLOTILLA_SECRET": fleet.local.secret("visitors"),
            "FLOTILLA_KINDS": KINDS,
        }
    )
    made = Doors(settings)
    refreshing = asyncio.create_task(made.roster.run())
    yield made
    refreshing.cancel()
    await made.aclose()


@pytest.fixture(params=[Counter, Alone], ids=["pooled", "dedicated"])
def ref(request: pytest.FixtureRequest, doors: Doors) -> ActorRef:
    return doors.fleet.ref(request.param, "demo", new_id("n"))


def process_of(fleet: TestFleet, doors: Doors, ref: ActorRef) -> psutil.Process:
    """The one that listens where the actor lives."""
    member = doors.roster.owner(ref.id)
    assert member is not None
    port = int(member.address.rpartition(":")[2])
    for process in fleet.local.processes():
        if any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections("tcp")):
            return process
    raise LookupError(f"Nobody listens on {member.address}.")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.2)


async def test_it_answers_and_remembers(ref: ActorRef) -> None:
    assert await ref.ask(Add(id="1", n=4)) == 4
    assert await asyncio.gather(*(ref.ask(Add(id=str(n))) for n in range(2, 12))) == list(range(5, 15))
    assert await ref.ask(Add(id="1", n=4)) == 4


async def test_it_refuses_with_the_field(ref: ActorRef) -> None:
    with pytest.raises(Refused) as caught:
        await ref.ask(Add(id="1", n=0))
    assert caught.value.field == "n"


async def test_it_hears_what_it_is_told_and_can_be_followed(ref: ActorRef) -> None:
    assert await ref.ask(Total()) == 0
    ref.tell(Add(id="1", n=3))
    async for frame in ref.follow():
        assert events.open_envelope(frame.json).type == "added" and frame.seq == 1
        break


async def test_it_outlives_its_process(fleet: TestFleet, doors: Doors, ref: ActorRef) -> None:
    assert await ref.ask(Add(id="1", n=7)) == 7
    process_of(fleet, doors, ref).kill()
    assert await ref.ask(Add(id="2", n=1), timeout_s=PATIENCE_S) == 8


async def test_a_dedicated_actor_has_a_process_to_itself_and_takes_it_along(
    fleet: TestFleet, doors: Doors
) -> None:
    ref = doors.fleet.ref(Alone, "demo", new_id("n"))
    assert await ref.ask(Add(id="1")) == 1
    member = doors.roster.owner(ref.id)
    assert member is not None and member.name == process_name(ref.id) and member.role == "dedicated"
    other = doors.fleet.ref(Alone, "demo", new_id("n"))
    assert await other.ask(Total()) == 0
    assert doors.roster.owner(other.id) != member
    await _put_to_sleep(doors, ref)

    async def gone() -> bool:
        return doors.roster.owner(ref.id) is None

    await until(gone)
    assert await ref.ask(Total()) == 1  # and its process is there again


async def test_a_reminder_comes_though_its_host_dies_in_between(fleet: TestFleet, doors: Doors) -> None:
    ref = doors.fleet.ref(Ticket, "demo", new_id("t"))
    assert await ref.ask(Open(answer_within_s=1.5)) == "open"
    process_of(fleet, doors, ref).kill()

    async def escalated() -> bool:
        return any(stored.entry.type == "escalated" for stored in await journal.read(ref.id))

    journal = await doors.journal()
    await until(escalated)
    assert await ref.ask(Look(), timeout_s=PATIENCE_S) == "escalated"
    assert [stored.entry.type for stored in await journal.read(ref.id)] == ["opened", "escalated"]
    assert await journal.reminders(ref.id) == []


async def _put_to_sleep(doors: Doors, ref: ActorRef) -> None:
    from actors import frames

    member = doors.roster.owner(ref.id)
    assert member is not None
    link = await doors.links.to(member.address)
    assert await link.ask("release", frames.encode(ref.id))
