"""What could mix, lose or leak a reply on its way: concurrent requests of a conversation, boards that lose what
hangs there, callers that leave at a bad moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from actors.serving.attempts import Attempt
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Finished, Generated, Prompt
from flotilla.core.versions import FLEET
from tests.serving_runtime.replica_rig import FAST, Rig, ask, made_by, plan, text_of, version
from tests.timing import until


async def broken_off(rig: Rig, prompt: Prompt, seen: list[Generated]) -> None:
    with pytest.raises(Unavailable):
        async for part in rig.models.generate(prompt):
            seen.append(part)


# -- replies of one conversation at the same time


async def test_two_broken_replies_of_a_conversation_go_on_each_at_its_own_model(rig: Rig) -> None:
    """A client names its conversations (`user`), and asks two models at once."""
    await rig.publish(plan("m@1"), plan("n@1"))
    (of_m,), (of_n,) = await rig.start("m@1"), await rig.start("n@1")
    seen: dict[str, list[Generated]] = {"m": [], "n": []}
    for running in (of_m, of_n):
        running.hold_after = 3
    reading = [asyncio.create_task(broken_off(rig, ask(model=model), seen[model])) for model in ("m", "n")]
    await until(lambda: all(len(parts) == 3 for parts in seen.values()))
    await rig.start("m@1")
    await rig.start("n@1")
    await rig.kill(of_m)
    await rig.kill(of_n)
    await asyncio.gather(*reading)
    for model, parts in seen.items():
        rest = await rig.ask(ask(model=model, said=text_of(parts)))
        assert made_by(rest) == f"{model}@1"


async def test_a_new_request_of_a_conversation_does_not_move_a_broken_reply(rig: Rig) -> None:
    await rig.publish(plan("m@1", fallbacks=("spare",)), plan("spare@1"))
    one, two = await rig.start("spare@1", 2)
    for running in (one, two):
        running.hold_after = 3
    seen: list[Generated] = []
    reading = asyncio.create_task(broken_off(rig, ask(model="m@1", seed=1), seen))
    await until(lambda: len(seen) == 3)
    await rig.start("m@1")  # it is back
    one.hold_after = two.hold_after = None
    await rig.kill(one if one.asked else two)
    await reading
    assert made_by(await rig.ask(ask("Something else", model="m@1", seed=2))) == "m@1"
    rest = await rig.ask(ask(model="m@1", seed=1, said=text_of(seen)))
    assert made_by(rest) == "spare@1"


# -- boards


async def test_the_last_plans_hold_when_the_board_has_lost_them(rig: Rig) -> None:
    """A Valkey that came back empty: the models' actors hang their plans up again, one by one."""
    await rig.publish(plan("m@1"), plan("n@1"))
    await rig.start("m@1")
    await rig.ask("Hello")
    for model in ("m", "n"):
        await rig.plans.remove(model)
    await rig.look()
    assert made_by(await rig.ask(ask(model="m"))) == "m@1"
    assert rig.tally("m@1").replies == 2  # sums that began anew would be less than they were
    await rig.publish(plan("n@2", revision=2))
    assert made_by(await rig.ask(ask(model="m"))) == "m@1"
    assert rig.models.choose(ask().origin, "n") == "n@2"


# -- callers that leave


async def test_a_caller_that_leaves_while_the_slower_of_two_is_ended_leaves_nothing_behind(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.publish(plan("m@1"))
    one, two = await rig.start("m@1", 2)
    for n in range(60):
        await rig.ask(ask(conversation=f"c{n}"))
    await rig.ask(ask(conversation="c"))
    home = rig.replicas[rig.where("c")]
    other = two if home is one else one
    home.hold_after, other.hold_after = 0, 1
    ending, whole = asyncio.Event(), Attempt.aclose

    async def slowly(attempt: Attempt) -> None:
        try:
            if not attempt.first.done():
                ending.set()
                await asyncio.Event().wait()
        finally:
            await whole(attempt)

    monkeypatch.setattr(Attempt, "aclose", slowly)
    reply = asyncio.create_task(rig.ask(ask("Slow", conversation="c")))
    await ending.wait()
    reply.cancel()
    await asyncio.wait([reply])
    for running in (one, two):
        await until(lambda at=running: all(not peer._work for peer in at.listener.peers))
    assert all(replica.own == 0 for replica in rig.models.balance._replicas.values())
    assert rig.tally("m@1").running == 0


# -- adapters that fail


@pytest.mark.parametrize("route", [{"shadow": 1.0}, {}])
async def test_an_adapter_that_breaks_costs_its_base_no_replica(rig: Rig, route: dict[str, Any]) -> None:
    """Neither as a shadow, which no customer is to notice, nor for those who ask for it."""
    tuned = version("m@tuned", base="m@1", adapter="/tmp")
    await rig.publish(plan("m@1", tuned, candidate="m@tuned", **route))
    (only,) = await rig.start("m@1")
    whole = only.engine.generate

    async def broken(prompt: Prompt) -> AsyncGenerator[Generated]:
        if prompt.adapter:
            raise Unavailable("It has no answer.")
        async for part in whole(prompt):
            yield part

    only.engine.generate = broken  # type: ignore[method-assign]
    for n in range(12):
        model = "" if route else "m@tuned"
        assert made_by(await rig.ask(ask(conversation=f"c{n}", model=model))) == "m@1"
        await until(lambda: not rig.models.shadow._tasks)
    assert rig.models.balance.serving(version("m@1")) and rig.tally("m@1").errors == 0
    assert rig.tally("shadow:m@tuned" if route else "m@tuned").errors >= 5


# -- what is counted


async def test_a_reply_that_nobody_could_begin_is_one_error(rig: Rig) -> None:
    """`errors_min` means replies: one unlucky prompt must not roll a candidate back."""
    await rig.publish(plan("m@1"))
    for running in await rig.start("m@1", 3):
        running.broken = Unavailable("It broke.", retry_after_s=0.1)
    with pytest.raises(Unavailable):
        await rig.ask(ask())
    assert rig.tally("m@1").errors == 1


# -- a version that is gone


async def test_a_tool_loop_outlives_its_version(rig: Rig) -> None:
    """An agent that paused for days: with nobody left who began, whoever answers now goes on."""
    await rig.publish(plan("m@2"))
    await rig.start("m@2")
    assert made_by(await rig.ask(ask(model="m@1", pinned=True))) == "m@2"
    with pytest.raises(NotFound):
        await rig.ask(ask(model="m@1", pinned=True, tenant=FLEET))


# -- what others have asked


async def test_cached_prefixes_are_a_tenants_own(rig: Rig) -> None:
    """Neither `usage` nor the time of the first token tells what another tenant has asked."""
    await rig.publish(plan("m@1"))
    await rig.start("m@1", settings=msgspec.structs.replace(FAST, prefill_tokens_per_s=1e9))

    async def cached(tenant: str) -> int:
        end = (await rig.ask(ask("One two three four five", tenant=tenant)))[-1]
        assert isinstance(end, Finished)
        return end.usage.cached_tokens

    assert await cached("a") == 0
    assert await cached("a") > 0
    assert await cached("b") == 0
