"""Who answers when a version can't or is slow: fallbacks, breakers, second tries."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter

import msgspec
import pytest

from actors.serving.counting import RECENT_MAX, HedgeBudget, Recent
from actors.serving.sight import Replicas
from actors.serving.single import OneModel
from flotilla.core.errors import (
    FlotillaError,
    Misconfigured,
    NotFound,
    Overloaded,
    Unavailable,
)
from flotilla.core.generation import Origin, Piece
from flotilla.core.versions import FLEET, Canary
from models.scripted import ScriptedModel
from tests.serving_runtime.replica_rig import FAST, FOLDER, Rig, ask, made_by, plan, text_of, version
from tests.timing import until

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}}}'
SPARES = (plan("big@1"), plan("small@1"))


# -- fallbacks


async def test_fallbacks_are_asked_in_their_order(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("big", "small@1")), *SPARES)
    await rig.gone((await rig.start("m@1"))[0])
    (small,) = await rig.start("small@1")
    assert made_by(await rig.ask(ask(model="m"))) == "small@1"
    (big,) = await rig.start("big@1")
    parts = await rig.ask(ask(model="m"))
    assert made_by(parts) == "big@1"
    # A reply that is cut short has no end: its first piece says who makes it.
    assert [part.model for part in parts if isinstance(part, Piece)][:2] == ["big@1", ""]
    assert rig.models.fallbacks.fell_back == 2 and len(small.asked) == 1
    await rig.start("m@1")
    assert made_by(await rig.ask(ask(model="m"))) == "m@1"
    assert len(big.asked) == 1 and rig.tally("m@1").errors == 2


async def test_a_candidate_that_breaks_is_covered_by_the_stable_version(rig: Rig) -> None:
    await rig.publish(plan("m@1", "m@2", candidate="m@2", canary=Canary(percent=100)))
    await rig.start("m@1")
    (new,) = await rig.start("m@2")
    new.broken = FlotillaError("A bug of the new engine.")
    assert rig.models.choose(Origin(tenant="t", conversation="c")) == "m@2"
    assert made_by(await rig.ask("Hello")) == "m@1"
    assert rig.tally("m@2").errors == 1 and rig.tally("m@2").running == 0


@pytest.mark.parametrize("prompt", [ask(tenant=FLEET, model="m@1"), ask(pinned=True, model="m@1")])
async def test_nobody_stands_in_for_what_the_fleet_tests_or_a_tool_loop_needs(
    rig: Rig, prompt: object
) -> None:
    await rig.publish(plan("m@1", fallbacks=("big",)), *SPARES)
    (big,) = await rig.start("big@1")
    with pytest.raises(Unavailable):
        await rig.ask(prompt)  # type: ignore[arg-type]
    assert not big.asked


async def test_a_tenant_is_not_answered_by_a_version_of_others(rig: Rig) -> None:
    private = plan(version("big@1", tenants=("a",)))
    await rig.publish(plan("m@1", fallbacks=("big@1", "small")), private, plan("small@1"))
    await rig.start("big@1")
    await rig.start("small@1")
    assert made_by(await rig.ask(ask(tenant="a", model="m"))) == "big@1"
    assert made_by(await rig.ask(ask(tenant="b", model="m"))) == "small@1"


async def test_a_fallback_that_can_not_is_passed_over_and_the_first_error_told(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("big",)), *SPARES)
    (big,) = await rig.start("big@1")
    big.broken = Misconfigured("It can't.", field="source")
    with pytest.raises(Unavailable) as told:
        await rig.ask(ask(model="m"))
    assert "m@1" in told.value.detail


async def test_a_first_word_that_does_not_come_in_time_comes_from_a_fallback(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("small",), first_token_timeout_s=0.05), *SPARES)
    (slow,) = await rig.start("m@1")
    await rig.start("small@1")
    slow.hold_after = 0
    assert made_by(await rig.ask(ask(model="m"))) == "small@1"
    assert rig.tally("m@1").errors == 1
    await until(lambda: not slow.listener.peers or all(not peer._work for peer in slow.listener.peers))


async def test_a_hanging_replica_is_left_for_another_of_its_version(rig: Rig) -> None:
    await rig.publish(plan("m@1", first_token_timeout_s=0.05))
    one, two = await rig.start("m@1", 2)
    await rig.ask(ask())
    home, other = (one, two) if one.asked else (two, one)
    home.hold_after = 0
    assert made_by(await rig.ask(ask())) == "m@1" and other.asked


async def test_who_queues_keeps_its_place_when_nobody_else_can_answer(rig: Rig) -> None:
    await rig.publish(plan("m@1", first_token_timeout_s=0.03))
    (busy,) = await rig.start("m@1")
    busy.hold_after, busy.extra = 0, {"waiting": 3.0}
    await rig.look()
    reply = asyncio.create_task(rig.ask(ask()))
    await busy.holds.wait()
    done, _ = await asyncio.wait([reply], timeout=0.15)
    assert not done and len(busy.asked) == 1
    busy.go_on.set()
    assert made_by(await reply) == "m@1" and rig.tally("m@1").errors == 0


# -- breakers


async def test_a_replica_that_keeps_failing_is_left_alone_and_tried_again_later(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    one.broken = FlotillaError("A bug.")
    for n in range(60):
        assert made_by(await rig.ask(ask(conversation=f"c{n}"))) == "m@1"
    assert 5 <= len(one.asked) < 8 and len(two.asked) == 60
    one.broken, rig.clock.shift_s = None, 6.0
    for n in range(20):
        await rig.ask(ask(conversation=f"d{n}"))
    assert len(one.asked) > 10


async def test_a_version_that_keeps_failing_is_not_asked_while_its_breaker_is_open(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("small",)), *SPARES)
    replicas = await rig.start("m@1", 3)
    await rig.start("small@1")
    for running in replicas:
        running.broken = FlotillaError("A bug.")
    for n in range(30):
        assert made_by(await rig.ask(ask(conversation=f"c{n}", model="m"))) == "small@1"
    asked = sum(len(running.asked) for running in replicas)
    assert asked <= 3 * 6
    for running in replicas:
        running.broken = None
    rig.clock.shift_s = 6.0
    assert made_by(await rig.ask(ask(model="m"))) == "m@1"


async def test_too_much_to_do_opens_no_breaker(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    (only,) = await rig.start("m@1")
    only.broken = Overloaded("Full.", retry_after_s=1.0)
    for _ in range(10):
        with pytest.raises(Overloaded):
            await rig.ask(ask())
    assert len(only.asked) == 10


# -- hedging


async def test_a_second_replica_is_asked_when_the_first_is_unusually_slow(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    for n in range(60):
        await rig.ask(ask(conversation=f"c{n}"))
    await rig.ask(ask(conversation="c"))
    home = rig.replicas[rig.where("c")]
    other = two if home is one else one
    home.hold_after, before = 0, len(other.asked)
    began = perf_counter()
    assert made_by(await rig.ask(ask("Slow", conversation="c"))) == "m@1"
    assert perf_counter() - began >= 0.1
    assert len(other.asked) == before + 1 and rig.models.replies.hedges.hedged == 1
    await until(lambda: all(not peer._work for peer in home.listener.peers))  # the loser was cancelled
    assert rig.tally("m@1").errors == 0
    assert rig.models.balance.affinity.held("t/c", other.name) > 0  # and the conversation is there now


async def test_a_structured_reply_is_not_asked_for_twice(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    for n in range(60):
        await rig.ask(ask(conversation=f"c{n}"))
    for running in (one, two):
        running.hold_after = 0
    reply = asyncio.create_task(rig.ask(ask(schema=SCHEMA)))
    await asyncio.wait(
        [asyncio.create_task(r.holds.wait()) for r in (one, two)], return_when="FIRST_COMPLETED"
    )
    await asyncio.wait([reply], timeout=0.25)
    assert one.holds.is_set() != two.holds.is_set() and rig.models.replies.hedges.hedged == 0
    for running in (one, two):
        running.go_on.set()
    await reply


def test_at_most_one_request_in_twenty_is_asked_twice() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.request()
        budget.take()
        assert budget.hedged <= 0.05 * budget.asked
    assert budget.hedged >= 0.049 * budget.asked
    patient = HedgeBudget()
    for _ in range(10_000):
        patient.request()
    assert sum(patient.take() for _ in range(100)) == 10


def test_the_slowest_twentieth_of_recent_replies() -> None:
    recent = Recent()
    for ms in range(19):
        recent.add(ms)
    assert recent.p95() is None
    recent.add(19.0)
    assert recent.p95() == 18.0
    for _ in range(RECENT_MAX):
        recent.add(500.0)
    assert recent.p95() == 500.0


# -- what swaps see, and a lone model


async def test_a_swap_sees_replicas_and_has_them_reload(rig: Rig) -> None:
    one, two = await rig.start("m@1", 2)
    two.replica.drain()
    await rig.look()
    replicas = Replicas(rig.links, rig.roster, {"m@2": "Too large."}.get)
    assert [(m.name, m.state) for m in replicas.of("m@1")] == [("m@1.0", "up"), ("m@1.1", "draining")]
    await replicas.reload(replicas.of("m@1")[0], version("m@2"), timeout_s=5.0)
    assert one.replica.version.id == "m@2"
    await rig.directory.beat(one.member())
    await replicas.refresh()
    (reloaded,) = replicas.of("m@2")
    await replicas.load_adapter(reloaded, version("m@tuned", base="m@2", adapter=FOLDER))
    assert one.engine.load().adapters == ("m@tuned",)
    assert replicas.failure("m@2") == "Too large." and replicas.failure("m@1") is None
    await rig.kill(one)
    with pytest.raises(Unavailable):
        await replicas.load_adapter(reloaded, version("m@tuned", base="m@2", adapter=FOLDER))
    assert rig.roster.suspects(reloaded)


async def test_a_lone_model_behind_the_door_of_many() -> None:
    door = OneModel(ScriptedModel(msgspec.structs.replace(FAST, name="m@1")))
    parts = [part async for part in door.generate(ask())]
    assert text_of(parts) and made_by(parts) == "m@1"
    assert door.choose(Origin()) == door.choose(Origin(), "m") == door.choose(Origin(), "m@1") == "m@1"
    with pytest.raises(NotFound):
        door.choose(Origin(), "other")
    door.score("m@1", 0.5)
    assert door.scores.quality == 0.5 and [v.id for v in door.versions("t")] == ["m@1"]
    await door.ping()
    await door.close()
    with pytest.raises(Unavailable):
        await door.ping()


async def test_replicas_die_at_random_and_no_reply_is_lost_or_doubled(rig: Rig) -> None:
    """As the callers do it: they ask again, with what they have."""
    await rig.publish(plan("m@1"))
    await rig.start("m@1", 3, msgspec.structs.replace(FAST, token_s=0.002, tokens_median=30))
    chance, texts = random.Random(5), [f"Question {n}" for n in range(24)]
    expected = {text: await whole(rig, text) for text in texts}

    async def one(text: str, number: int) -> str:
        said = ""
        while True:
            prompt = ask(text, conversation=f"c{number}", said=said, model="m@1")
            try:
                async for part in rig.models.generate(prompt):
                    said += getattr(part, "text", "")
                return said
            except Unavailable:
                await asyncio.sleep(0.005)

    replies = [asyncio.create_task(one(text, n)) for n, text in enumerate(texts)]
    for _ in range(4):
        await asyncio.sleep(0.015)
        await rig.gone(chance.choice(list(rig.replicas.values())))
        await rig.start("m@1", 1, msgspec.structs.replace(FAST, token_s=0.002, tokens_median=30))
    assert await asyncio.gather(*replies) == [expected[text] for text in texts]
    assert rig.tally("m@1").replies == len(texts)


async def whole(rig: Rig, text: str) -> str:
    engine = next(iter(rig.replicas.values())).engine
    return text_of([part async for part in engine.generate(ask(text))])
