"""What every board does: plans that only a newer one replaces, pages that are gone when nobody renews them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from flotilla.core.errors import Unavailable
from flotilla.core.limits import LIMITS
from flotilla.core.ports import FailureBoard, PlanBoard, TallyBoard
from flotilla.core.tallies import Tally
from flotilla.core.versions import Canary, Placed, Plan, Route, Version
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory_boards import MemoryFailureBoard, MemoryPlanBoard, MemoryTallyBoard
from flotilla.stores.valkey_boards import ValkeyFailureBoard, ValkeyPlanBoard, ValkeyTallyBoard
from tests.actors.membership import Hands

KEYS = ("flotilla:{plans}", "flotilla:{plans}:mark", "flotilla:tallies", "flotilla:failures")

Age = Callable[[float], Awaitable[None]]
"""Makes all that hangs there older by so many seconds."""


class Boards:
    def __init__(self, plans: PlanBoard, tallies: TallyBoard, failures: FailureBoard, age: Age) -> None:
        self.plans, self.tallies, self.failures, self.age = plans, tallies, failures, age


@pytest.fixture(params=["memory", "valkey"])
async def boards(request: pytest.FixtureRequest) -> AsyncIterator[Boards]:
    if request.param == "memory":
        hands = Hands()
        made = MemoryPlanBoard(), MemoryTallyBoard(hands), MemoryFailureBoard(hands)
        yield Boards(*made, hands.sleep)
        return
    client = valkey.connect(request.getfixturevalue("valkey_server").url)
    await client.delete(*KEYS)
    yield Boards(*all_of(client), lambda seconds: older(client, seconds))
    await client.aclose()


def all_of(client: valkey.Client) -> tuple[ValkeyPlanBoard, ValkeyTallyBoard, ValkeyFailureBoard]:
    return ValkeyPlanBoard(client), ValkeyTallyBoard(client), ValkeyFailureBoard(client)


async def older(client: valkey.Client, seconds: float) -> None:
    for key in ("flotilla:tallies", "flotilla:failures"):
        found: Any = await client.hgetall(key)  # pyright: ignore
        for name, value in found.items():
            time, _, page = value.partition(b":")
            await client.hset(key, name, f"{float(time) - seconds:.6f}:".encode() + page)  # pyright: ignore


def plan(model: str = "m", revision: int = 1, note: str = "日本語 : 1:2") -> Plan:
    version = Version(model=model, name="1", engine="scripted", settings={"n": [1, None]}, note=note)
    route = Route(stable=version.id, canary=Canary(percent=12.5, tenants=("t",)))
    placed = (Placed(version=version, least=1, most=3, gpus=0.5),)
    return Plan(model=model, revision=revision, route=route, versions={version.id: version}, placed=placed)


# -- plans


async def test_a_plan_is_read_as_it_was_published(boards: Boards) -> None:
    assert await boards.plans.plans() == {}
    await boards.plans.publish(plan("b"))
    await boards.plans.publish(plan("a"))
    assert await boards.plans.plans() == {"a": plan("a"), "b": plan("b")}


@pytest.mark.parametrize("revision", [9, 10, 11, 100])
async def test_only_a_newer_plan_or_the_same_again_replaces_one(boards: Boards, revision: int) -> None:
    """9 comes before 10, though not in the alphabet."""
    await boards.plans.publish(plan(revision=10, note="old"))
    offered = plan(revision=revision, note="new")
    await boards.plans.publish(offered)
    assert await boards.plans.plans() == {"m": offered if revision >= 10 else plan(revision=10, note="old")}


async def test_what_was_removed_is_gone_and_may_begin_again(boards: Boards) -> None:
    await boards.plans.publish(plan("a", revision=7))
    await boards.plans.publish(plan("b"))
    for _ in range(2):
        await boards.plans.remove("a")
        assert await boards.plans.plans() == {"b": plan("b")}
    await boards.plans.publish(plan("a", revision=1))
    assert set(await boards.plans.plans()) == {"a", "b"}


async def test_plans_that_have_not_changed_are_the_same_object(boards: Boards) -> None:
    await boards.plans.publish(plan())
    known = await boards.plans.plans()
    assert await boards.plans.plans() is known
    await boards.plans.publish(plan(revision=2))
    changed = await boards.plans.plans()
    assert changed is not known and known == {"m": plan()}


# -- tallies


async def test_a_page_takes_the_place_of_the_one_before(boards: Boards) -> None:
    tally = Tally(running=2)
    await boards.tallies.post("h-1", {"m@1": tally})
    tally.reply(12.5, tokens=7, seconds=0.5)
    tally.score(0.75)
    await boards.tallies.post("h-2", {"m@1": tally, "shadow:m@2": Tally(errors=1)})
    assert await boards.tallies.pages() == {
        "h-1": {"m@1": Tally(running=2)},
        "h-2": {"m@1": tally, "shadow:m@2": Tally(errors=1)},
    }
    await boards.tallies.post("h-1", {})
    assert (await boards.tallies.pages())["h-1"] == {}


async def test_the_page_of_a_silent_process_is_gone(boards: Boards) -> None:
    await boards.tallies.post("silent", {"m@1": Tally(replies=1)})
    await boards.age(LIMITS.tallies_kept_s - 1)
    assert set(await boards.tallies.pages()) == {"silent"}
    await boards.age(2)
    await boards.tallies.post("alive", {})
    assert set(await boards.tallies.pages()) == {"alive"}


# -- failures


async def test_a_failure_is_known_until_it_is_cleared(boards: Boards) -> None:
    await boards.failures.note("m@1", "No weights: nowhere.\n日本語")
    await boards.failures.note("m@2", "first")
    await boards.failures.note("m@2", "second")
    assert await boards.failures.failures() == {"m@1": "No weights: nowhere.\n日本語", "m@2": "second"}
    for _ in range(2):
        await boards.failures.clear("m@1")
        assert await boards.failures.failures() == {"m@2": "second"}


async def test_a_failure_is_forgotten_after_ten_minutes_and_never_longer_than_a_page(boards: Boards) -> None:
    await boards.failures.note("m@1", "x" * 100_000)
    await boards.age(590)
    assert [len(reason) for reason in (await boards.failures.failures()).values()] == [2000]
    await boards.age(11)
    assert await boards.failures.failures() == {}


# -- Valkey's own


async def test_what_is_too_old_is_taken_off_the_board(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    await client.delete(*KEYS)
    _, tallies, _ = all_of(client)
    await tallies.post("silent", {})
    await older(client, LIMITS.tallies_kept_s + 1)
    await client.hset("flotilla:tallies", "odd", "no time")  # pyright: ignore
    assert await tallies.pages() == {}
    assert await client.hlen("flotilla:tallies") == 0  # pyright: ignore
    await client.aclose()


async def test_another_process_sees_a_plan_at_its_next_look_and_the_loss_of_all(
    valkey_server: Valkey,
) -> None:
    one, other = valkey.connect(valkey_server.url), valkey.connect(valkey_server.url)
    await one.delete(*KEYS)
    mine, theirs = ValkeyPlanBoard(one), ValkeyPlanBoard(other)
    for revision in (1, 2):
        await mine.publish(plan(revision=revision))
        assert (await theirs.plans())["m"].revision == revision
    await one.delete(*KEYS)  # as when the server has lost its data
    assert await theirs.plans() == {}
    await mine.publish(plan(revision=1))
    assert (await theirs.plans())["m"].revision == 1
    for client in (one, other):
        await client.aclose()


async def test_a_plan_that_cannot_be_read_does_not_hide_the_others(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    await client.delete(*KEYS)
    await client.hset(KEYS[0], "newer", b"3:\x81\xa8revision\xc0")  # pyright: ignore
    board = ValkeyPlanBoard(client)
    await board.publish(plan())
    assert await board.plans() == {"m": plan()}
    await client.aclose()


async def test_while_valkey_is_down_boards_are_unavailable_and_what_hung_there_stays(
    valkey_server: Valkey,
) -> None:
    client = valkey.connect(valkey_server.url)
    await client.delete(*KEYS)
    plans, tallies, failures = all_of(client)
    await plans.publish(plan())
    valkey_server.stop()
    try:
        calls = (
            plans.publish(plan("b")),
            plans.plans(),
            plans.remove("m"),
            tallies.post("h", {}),
            tallies.pages(),
            failures.note("m@1", "x"),
            failures.failures(),
            failures.clear("m@1"),
        )
        for call in calls:
            with pytest.raises(Unavailable):
                await call
    finally:
        valkey_server.start()
    assert await plans.plans() == {"m": plan()}
    await client.aclose()
