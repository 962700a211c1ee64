"""What a candidate would have said is compared, and sent to nobody."""

from __future__ import annotations

import msgspec
import pytest

from actors.serving import shadow
from actors.serving.shadow import similarity
from flotilla.core.errors import (
    FlotillaError,
)
from flotilla.core.tallies import SHADOW
from flotilla.core.versions import FLEET
from tests.serving_runtime.replica_rig import FAST, Rig, Running, ask, made_by, plan, text_of, version
from tests.timing import until

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}}}'


async def shadowed(rig: Rig, share: float = 1.0) -> tuple[Running, Running]:
    await rig.publish(plan("m@1", "m@2", candidate="m@2", shadow=share))
    (old,) = await rig.start("m@1")
    (new,) = await rig.start("m@2", settings=msgspec.structs.replace(FAST, seed=7))
    return old, new


async def test_a_shadow_is_compared_and_never_sent(rig: Rig) -> None:
    old, new = await shadowed(rig)
    alone = text_of([part async for part in old.engine.generate(ask("Hello"))])
    other = text_of([part async for part in new.engine.generate(ask("Hello"))])
    assert alone != other
    parts = await rig.ask("Hello")
    assert text_of(parts) == alone and made_by(parts) == "m@1"
    await until(lambda: rig.tally(SHADOW + "m@2").judged == 1)
    seen = rig.tally(SHADOW + "m@2")
    assert seen.replies == 1 and seen.running == 0 and seen.tokens == 12
    assert seen.quality == pytest.approx(similarity(alone, other))
    assert rig.tally("m@2").replies == 0 and rig.tally("m@1").replies == 1


async def test_a_shadow_that_fails_is_counted_and_nobody_notices(rig: Rig) -> None:
    _, new = await shadowed(rig)
    new.broken = FlotillaError("A bug of the new engine.")
    assert made_by(await rig.ask("Hello")) == "m@1"
    await until(lambda: rig.tally(SHADOW + "m@2").errors == 1)
    assert rig.tally("m@2").errors == rig.tally("m@1").errors == 0
    await rig.gone(new)
    assert made_by(await rig.ask("Hello")) == "m@1"
    await until(lambda: rig.tally(SHADOW + "m@2").errors == 2)


async def test_shadows_are_few_at_once_and_delay_nobody(rig: Rig) -> None:
    _, new = await shadowed(rig)
    new.hold_after = 0
    for n in range(10):
        assert made_by(await rig.ask(ask(conversation=f"c{n}"))) == "m@1"
    await until(lambda: len(new.asked) == shadow.AT_ONCE_MAX)
    assert rig.models.shadow.dropped == 10 - shadow.AT_ONCE_MAX
    await rig.models.close()
    assert rig.tally(SHADOW + "m@2").running == 0


async def test_only_whole_plain_replies_of_customers_are_shadowed(rig: Rig) -> None:
    _, new = await shadowed(rig)
    for prompt in (ask(said="Once"), ask(schema=SCHEMA), ask(tenant=FLEET), ask(model="m@2")):
        await rig.ask(prompt)
    assert not rig.models.shadow._tasks and len(new.asked) == 1


async def test_the_share_of_shadows_is_drawn(rig: Rig) -> None:
    await shadowed(rig, share=0.3)
    route = rig.models.catalogue.route("m")
    drawn = [rig.models.shadow.draws(route, version("m@1"), ask()) for _ in range(1000)]
    assert 0.25 < sum(drawn) / 1000 < 0.35


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 1.0), ("a b", "", 0.0), ("A fee of $25.", "a FEE of 25", 1.0), ("a b c d", "a b", 2 / 3)],
)
def test_similar_texts_share_words(one: str, other: str, expected: float) -> None:
    assert similarity(one, other) == similarity(other, one) == pytest.approx(expected)
