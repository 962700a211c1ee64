"""Which version answers, at which replica, and what becomes of a reply when its replica is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter

import msgspec
import pytest

from actors.serving import counting, router
from actors.serving.balance import key_of
from actors.serving.fallbacks import CONTINUE_PATIENCE_S
from flotilla.core.errors import NotFound, OtherVersion, Refused, Unavailable
from flotilla.core.generation import ChatMessage, EngineLoad, Finished, Generated, Origin, Piece, Prompt
from flotilla.core.policy.affinity import Affinity
from flotilla.core.versions import FLEET, Canary, Plan
from tests.serving_runtime.replica_rig import FAST, Rig, ask, made_by, plan, text_of, version
from tests.timing import until, within

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'


# -- which version


async def test_a_reply_names_the_version_that_made_it(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1")
    parts = await rig.ask("Hello")
    assert text_of(parts) and made_by(parts) == "m@1" == rig.models.name
    assert rig.tally("m@1").replies == 1 and rig.tally("m@1").running == 0
    assert rig.tally("m@1").tokens == sum(part.tokens for part in parts if isinstance(part, Piece))
    await rig.models.ping()


async def test_nothing_known_is_unavailable_and_an_unknown_name_is_not_found(rig: Rig) -> None:
    for wanted in ("", "m", "m@1"):  # a reply may have been begun by a host that knew more
        with pytest.raises(Unavailable) as unknown:
            rig.models.choose(Origin(tenant="t"), wanted)
        assert unknown.value.retry_after_s
    with pytest.raises(Unavailable):
        await rig.models.ping()
    await rig.publish(plan("m@1"), Plan(model="new", revision=1))
    for wanted in ("other", "m@9"):
        with pytest.raises(NotFound) as missing:
            rig.models.choose(Origin(tenant="t"), wanted)
        assert missing.value.field == "model" and "m" in (missing.value.next or "")
    with pytest.raises(Unavailable):
        rig.models.choose(Origin(tenant="t"), "new")
    assert rig.models.choose(Origin(tenant="t"), "m") == rig.models.choose(Origin(tenant="t")) == "m@1"


async def test_a_version_for_some_tenants_is_not_found_by_others(rig: Rig) -> None:
    await rig.publish(plan("m@1", version("m@2", tenants=("a",))))
    assert rig.models.choose(Origin(tenant="a"), "m@2") == "m@2"
    assert rig.models.choose(Origin(tenant=FLEET), "m@2") == "m@2"
    with pytest.raises(NotFound):
        rig.models.choose(Origin(tenant="b"), "m@2")
    with pytest.raises(NotFound):
        await rig.ask(ask(tenant="b", model="m@2"))
    assert [v.id for v in rig.models.versions("a")] == ["m@1", "m@2"]
    assert [v.id for v in rig.models.versions("b")] == ["m@1"]


async def test_a_canary_answers_its_share_of_conversations_and_keeps_them(rig: Rig) -> None:
    route = {"candidate": "m@2", "salt": "s"}
    await rig.publish(plan("m@1", "m@2", canary=Canary(percent=30), **route))
    await rig.start("m@1")
    await rig.start("m@2")
    names = [f"c{n}" for n in range(200)]
    chosen = {name: rig.models.choose(Origin(tenant="t", conversation=name)) for name in names}
    for name in names[:40]:
        assert made_by(await rig.ask(ask(conversation=name))) == chosen[name]
    share = sum(id == "m@2" for id in chosen.values()) / len(names)
    assert 0.2 < share < 0.4
    await rig.publish(plan("m@1", "m@2", revision=2, canary=Canary(percent=60), **route))
    wider = {name: rig.models.choose(Origin(tenant="t", conversation=name)) for name in names}
    assert all(wider[name] == "m@2" for name in names if chosen[name] == "m@2")


async def test_a_lone_request_keeps_its_version_as_it_grows(rig: Rig) -> None:
    await rig.publish(plan("m@1", "m@2", candidate="m@2", canary=Canary(percent=50)))
    await rig.start("m@1")
    await rig.start("m@2")
    found: set[str] = set()
    for n in range(30):
        first = ask(f"Question {n}", conversation="")
        grown = msgspec.structs.replace(
            first, messages=(*first.messages, ChatMessage(role="assistant", text="Yes."), *first.messages)
        )
        assert key_of(first) == key_of(grown)
        made = made_by(await rig.ask(first))
        assert made_by(await rig.ask(grown)) == made
        found.add(made)
    assert found == {"m@1", "m@2"}


async def test_the_last_plans_hold_while_the_board_is_down(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1")

    async def down(*_: object) -> None:
        raise Unavailable("The boards are down.")

    for board, name in ((rig.plans, "plans"), (rig.tallies, "post")):
        monkeypatch.setattr(board, name, down)
    await rig.models.refresh()
    assert made_by(await rig.ask("Hello")) == "m@1"


async def test_what_is_counted_hangs_at_the_board_under_a_name_of_this_life(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1")
    await rig.ask("Hello")
    rig.models.score("m@1", 0.5)
    rig.models.score("m@9", 0.5)
    await rig.models.refresh()
    ((_, page),) = (await rig.tallies.pages()).items()
    assert page["m@1"].replies == page["m@1"].judged == 1 and "m@9" not in page
    assert repr(rig.models)


async def test_plans_are_read_again_and_again(rig: Rig) -> None:
    running = asyncio.create_task(rig.models.run())
    await rig.plans.publish(plan("m@1"))
    await until(lambda: rig.models.name == "m@1")
    await rig.plans.publish(plan("m@2", revision=2))
    await until(lambda: rig.models.name == "m@2")
    running.cancel()


async def test_figures_of_a_version_that_is_in_no_plan_are_forgotten(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1")
    await rig.ask("Hello")
    await rig.publish(plan("m@2", revision=2))
    assert "m@1" not in rig.models.counts.tallies


# -- which replica


async def test_a_conversation_stays_at_its_replica(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1", 4)
    for turn in range(5):
        for n in range(12):
            await rig.ask(ask(f"Turn {turn}", conversation=f"c{n}"))
    homes = {rig.where(f"c{n}") for n in range(12)}  # `where` fails for one that was at two
    assert len(homes) > 1


async def test_a_conversation_leaves_a_replica_that_is_too_busy(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    await rig.start("m@1", 3)
    await rig.ask(ask(conversation="c"))
    home = rig.replicas[rig.where("c")]
    home.extra, home.asked[:] = {"queued_tokens": 50_000.0}, []
    await rig.look()
    await rig.ask(ask(conversation="c"))
    assert rig.where("c") not in ("", home.name)


async def test_nothing_new_goes_to_a_draining_replica_and_what_it_makes_is_finished(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    await rig.ask(ask(conversation="c"))
    home, other = (one, two) if one.asked else (two, one)
    home.hold_after = 1
    reply = asyncio.create_task(rig.ask(ask(conversation="c")))
    await home.holds.wait()
    home.replica.drain()
    await rig.look()
    assert made_by(await rig.ask(ask(conversation="c"))) == "m@1" and len(other.asked) == 1
    home.go_on.set()
    assert made_by(await reply) == "m@1"


async def test_a_replica_that_was_reloaded_meanwhile_is_passed_over(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    for running in (one, two):
        running.replica.weights.version = version("m@2") if running is one else running.replica.version
    for n in range(10):
        assert made_by(await rig.ask(ask(conversation=f"c{n}"))) == "m@1"
    assert one.asked and rig.tally("m@1").errors == 0


async def test_while_replicas_are_reloaded_in_place_either_version_answers_what_is_new(rig: Rig) -> None:
    both = msgspec.structs.replace(plan("m@1"), reloading=("m@1", "m@2"))
    await rig.publish(both)
    await rig.start("m@2")
    assert made_by(await rig.ask(ask(conversation="new"))) == "m@2"
    for going_on in (ask(said="Once", model="m@1"), ask(pinned=True, model="m@1")):
        with pytest.raises(Unavailable):
            await rig.ask(going_on)


async def test_what_was_begun_while_replicas_are_reloaded_goes_on_with_whoever_began_it(rig: Rig) -> None:
    """Asked for was m@1; the one that is there by now began. When that dies m@1 is there again."""
    both = msgspec.structs.replace(plan("m@1"), reloading=("m@1", "m@2"))
    await rig.publish(both)
    (began,) = await rig.start("m@2")
    began.hold_after = 2
    parts: list[Generated] = []
    with pytest.raises(Unavailable):
        async with aclosing(rig.models.generate(ask(conversation="c", model="m"))) as reply:
            async for part in reply:
                parts.append(part)
                if len(parts) == 2:
                    await rig.kill(began)
    assert isinstance(parts[0], Piece) and parts[0].model == "m@2"
    await rig.start("m@1")
    for wanted in ("m", parts[0].model):  # here it is remembered, elsewhere it is in the record
        with pytest.raises(Unavailable):
            await rig.ask(ask(conversation="c", said=text_of(parts), model=wanted))
    (again,) = await rig.start("m@2")
    assert made_by(await rig.ask(ask(conversation="c", said=text_of(parts), model="m"))) == "m@2"
    assert again.asked


@pytest.mark.parametrize("breaks_off", [False, True])
async def test_a_replica_that_is_reloaded_before_the_first_word_says_who_makes_it(
    rig: Rig, breaks_off: bool
) -> None:
    await rig.publish(msgspec.structs.replace(plan("m@1"), reloading=("m@1", "m@2")))
    settings = msgspec.structs.replace(FAST, fail_share=float(breaks_off))
    (only,) = await rig.start("m@1", settings=settings)
    only.replica._door.closed_at = 0.0
    only.replica._door._opened.clear()
    reading = asyncio.create_task(rig.ask(ask()))
    await until(lambda: only.replica._door.waiting)
    only.replica.weights.version = version("m@2")
    only.replica._door.open()
    if breaks_off:
        with pytest.raises(Unavailable):
            await reading
    else:
        parts = await reading
        assert isinstance(parts[0], Piece) and parts[0].model == made_by(parts) == "m@2"
    assert (rig.tally("m@1").errors, rig.tally("m@2").errors) == (0, int(breaks_off))


async def test_a_replica_itself_says_what_it_serves_by_now(rig: Rig) -> None:
    """Its beats take a second. Nobody is sent to a fallback meanwhile, and no version has failed."""
    both = msgspec.structs.replace(plan("m@1"), reloading=("m@1", "m@2"))
    await rig.publish(both)
    (only,) = await rig.start("m@1")
    only.replica.weights.version = version("m@2")
    for n in range(10):
        assert made_by(await rig.ask(ask(conversation=f"c{n}"))) == "m@2"
    assert rig.tally("m@1").errors == rig.tally("m@2").errors == 0
    assert rig.models.fallbacks.breakers()["m@1"] == "closed"
    await rig.publish(plan("m@2", revision=2))  # and the roster still says otherwise
    assert made_by(await rig.ask(ask())) == "m@2"


async def test_a_version_that_nobody_was_seen_to_serve_has_not_failed(rig: Rig) -> None:
    await rig.publish(plan("m@1", "m@2"))
    (only,) = await rig.start("m@1")
    assert made_by(await rig.ask(ask(model="m@2"))) == "m@1"  # the stable one
    await rig.gone(only)
    with pytest.raises(Unavailable):
        await rig.ask(ask())
    assert (rig.tally("m@2").errors, rig.tally("m@1").errors) == (0, 1)


# -- when a replica is lost


async def test_a_replica_that_is_lost_before_a_word_is_followed_by_another_at_once(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    await rig.ask(ask(conversation="c"))
    home, other = (one, two) if one.asked else (two, one)
    home.hold_after = 0
    reply = asyncio.create_task(rig.ask(ask("Again", conversation="c")))
    await home.holds.wait()
    await rig.kill(home)
    parts = await reply
    assert text_of(parts) and made_by(parts) == "m@1" and len(other.asked) == 1
    assert rig.roster.suspects(home.member()) and rig.tally("m@1").errors == 1
    await rig.ask(ask("Once more", conversation="c"))
    assert len(other.asked) == 2 and rig.tally("m@1").errors == 1  # the dead one was not tried again


async def test_a_reply_that_breaks_off_goes_on_without_a_gap_at_another(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    whole = text_of(await rig.ask(ask(conversation="c")))
    home, other = (one, two) if one.asked else (two, one)
    home.hold_after = 5
    seen: list[Generated] = []

    async def read() -> None:
        async for part in rig.models.generate(ask(conversation="c")):
            seen.append(part)

    reading = asyncio.create_task(read())
    await until(lambda: len(seen) == 5)
    await rig.kill(home)
    with pytest.raises(Unavailable):
        await reading
    assert rig.tally("m@1").running == 1  # its caller will be back
    said = text_of(seen)
    rest = await rig.ask(ask(conversation="c", said=said, model="m@1"))
    assert said + text_of(rest) == whole and made_by(rest) == "m@1" and other.asked


async def test_who_never_comes_back_is_not_waited_for_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "BROKEN_OFF_S", 0.01)
    await rig.publish(plan("m@1"))
    (only,) = await rig.start("m@1")
    only.hold_after = 2
    reading = asyncio.create_task(rig.ask(ask()))
    await only.holds.wait()
    await rig.kill(only)
    with pytest.raises(Unavailable):
        await reading
    await until(lambda: rig.tally("m@1").running == 0)


async def test_a_structured_reply_is_made_again_and_nobody_sees_the_broken_one(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    expected = text_of(await rig.ask(ask(conversation="c", schema=SCHEMA)))
    home, other = (one, two) if one.asked else (two, one)
    home.hold_after = 1
    seen: list[Generated] = []

    async def read() -> None:
        async for part in rig.models.generate(ask(conversation="c", schema=SCHEMA)):
            seen.append(part)

    reading = asyncio.create_task(read())
    await home.holds.wait()
    assert not seen
    await rig.kill(home)
    await reading
    assert text_of(seen) == expected and made_by(seen) == "m@1" and other.asked
    assert msgspec.json.decode(expected)


async def test_cancelling_reaches_the_replica(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    (only,) = await rig.start("m@1", settings=msgspec.structs.replace(FAST, token_s=0.05, tokens_median=200))

    async def cancel() -> float:
        async with aclosing(rig.models.generate(ask())) as parts:
            assert isinstance(await anext(parts), Piece)
            assert only.engine.unfinished == rig.tally("m@1").running == 1
        closed_at = perf_counter()
        await until(lambda: not only.engine.unfinished)
        return perf_counter() - closed_at

    await within(0.05, cancel)
    assert rig.tally("m@1").running == 0 and rig.tally("m@1").errors == 0


async def test_cancelling_before_the_first_word_reaches_the_replica(rig: Rig) -> None:
    await rig.publish(plan("m@1"))
    (only,) = await rig.start("m@1", settings=msgspec.structs.replace(FAST, first_token_s=60.0))
    reading = asyncio.create_task(rig.ask(ask()))
    await until(lambda: only.engine.unfinished)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: not only.engine.unfinished)
    assert rig.tally("m@1").running == 0 and rig.models.balance._replicas["l-m@1.0"].own == 0


async def test_a_refusal_is_the_callers_and_nobody_else_is_asked(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("spare",)), plan("spare@1"))
    both = await rig.start("m@1", 2)
    (spare,) = await rig.start("spare@1")
    with pytest.raises(Refused) as refused:
        await rig.ask(ask("word " * 20_000))
    assert refused.value.field == "messages"
    assert sum(len(running.asked) for running in both) == 1 and not spare.asked
    assert rig.tally("m@1").errors == 0


# -- what was begun goes on at its version


async def test_a_version_that_is_in_no_plan_any_more_is_followed_by_the_stable_one(rig: Rig) -> None:
    await rig.publish(plan("m@2"))
    await rig.start("m@2")
    assert made_by(await rig.ask(ask(said="Once", model="m@1"))) == "m@2"
    with pytest.raises(NotFound):
        await rig.ask(ask(model="m@1", pinned=True, tenant=FLEET))


async def test_a_reply_waits_for_its_version_before_another_one_goes_on_with_it(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("spare",)), plan("spare@1"))
    await rig.start("spare@1")
    going_on = ask(said="Once upon", model="m@1")
    for shift_s in (0.0, CONTINUE_PATIENCE_S - 5.0):
        rig.clock.shift_s = shift_s
        await rig.look()
        with pytest.raises(Unavailable) as waits:
            await rig.ask(going_on)
        assert waits.value.retry_after_s
    rig.clock.shift_s = CONTINUE_PATIENCE_S + 5.0
    assert made_by(await rig.ask(going_on)) == "spare@1"
    assert rig.tally("m@1").errors == 0  # it was counted when the reply broke off


async def test_a_reply_that_a_fallback_began_is_not_finished_by_another(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("spare",)), plan("spare@1"))
    one, two = await rig.start("spare@1", 2)
    whole = text_of(await rig.ask(ask(model="m@1")))
    home = one if one.asked else two
    home.hold_after = 3
    seen: list[Generated] = []

    async def read() -> None:
        async for part in rig.models.generate(ask(model="m@1")):
            seen.append(part)

    reading = asyncio.create_task(read())
    await until(lambda: len(seen) == 3)
    await rig.start("m@1")  # it is back
    await rig.kill(home)
    with pytest.raises(Unavailable):
        await reading
    rest = await rig.ask(ask(model="m@1", said=text_of(seen)))
    assert made_by(rest) == "spare@1" and text_of(seen) + text_of(rest) == whole
    assert made_by(await rig.ask(ask("Next", model="m@1"))) == "m@1"


async def test_a_version_is_not_retired_under_a_reply_that_waits_for_a_replica(rig: Rig) -> None:
    """Its caller asks again every two seconds; if the version looked unused in between, the swap would be over,
    and another version would go on with the reply."""
    await rig.publish(plan("m@1"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await rig.ask(ask(said="Once upon", model="m@1"))
        assert rig.tally("m@1").running > 0
    with pytest.raises(Unavailable):
        await rig.ask(ask(model="m@1"))
    assert rig.tally("m@1").running == 2  # of what nobody has seen a word of, any version may make all


# -- bounds


async def test_what_is_remembered_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "BROKEN_OFF_KEPT", 4)
    rig.models.balance.affinity = Affinity(kept=5)
    await rig.publish(plan("m@1"))
    (only,) = await rig.start("m@1")
    for n in range(20):
        await rig.ask(ask(conversation=f"c{n}"))
    assert len(rig.models.balance.affinity) == 5
    only.replica._engine = Breaking()  # type: ignore[assignment]
    for n in range(8):
        with pytest.raises(Unavailable):
            await rig.ask(ask(conversation=f"c{n}"))
    assert len(rig.models._elsewhere) == 4
    await rig.gone(only)
    assert not rig.models.balance._replicas and not rig.models.fallbacks._breakers.keys() - {"m@1"}


class Breaking:
    """An engine that says one word of each reply."""

    name = "m@1"

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece | Finished]:
        yield Piece(text="word")
        raise OtherVersion("It has gone.")

    def load(self) -> EngineLoad:
        return EngineLoad()
