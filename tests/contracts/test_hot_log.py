"""What every hot log does: text that grows behind what is there, and nowhere else."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.errors import Conflict, Unavailable
from flotilla.core.generation import Shown
from flotilla.core.ids import ActorId, new_id
from flotilla.core.ports import HotLog
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory import MemoryHotLog

ODD = ["naïve ", "日本語", "👩‍👩‍👧", "\0\r\n", "e\u0301", "", "$-1 *3"]


def actor(tenant: str = "t1") -> ActorId:
    return ActorId(tenant, "session", new_id("s"))


async def write(log: HotLog, id: ActorId, pieces: list[str], turn: str = "t_1") -> None:
    said = ""
    for piece in pieces:
        await log.append(id, turn, len(said.encode()), piece)
        said += piece


async def test_text_of_any_letters_joins_in_order(hot_log: HotLog) -> None:
    id = actor()
    await write(hot_log, id, ODD)
    assert (await hot_log.read(id, "t_1")).text == "".join(ODD)


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6))
async def test_any_text_joins_in_memory(pieces: list[str]) -> None:
    log, id = MemoryHotLog(), actor()
    await write(log, id, pieces)
    assert (await log.read(id, "t_1")).text == "".join(pieces)


async def test_nothing_said_reads_as_empty(hot_log: HotLog) -> None:
    assert (await hot_log.read(actor(), "t_1")).text == ""


@pytest.mark.parametrize("said", [0, 3, 6, 8, 100], ids=lambda said: f"{said} bytes")
async def test_a_writer_that_believes_in_another_length_conflicts(hot_log: HotLog, said: int) -> None:
    id = actor()
    await write(hot_log, id, ["日本", "!"])  # 7 bytes, 3 characters
    with pytest.raises(Conflict):
        await hot_log.append(id, "t_1", said, "x")
    assert (await hot_log.read(id, "t_1")).text == "日本!"


async def test_of_two_writers_at_one_place_one_wins(hot_log: HotLog) -> None:
    for _ in range(5):
        id = actor()
        done = await asyncio.gather(
            *(hot_log.append(id, "t_1", 0, text) for text in "abc"), return_exceptions=True
        )
        assert done.count(None) == 1 and sum(isinstance(outcome, Conflict) for outcome in done) == 2
        assert (await hot_log.read(id, "t_1")).text == "abc"[done.index(None)]


async def test_a_conflict_fails_only_its_own_reply(hot_log: HotLog) -> None:
    stale, others = actor(), [actor() for _ in range(50)]
    done = await asyncio.gather(
        *(hot_log.append(id, "t_1", 0, "ok") for id in others),
        hot_log.append(stale, "t_1", 9, "x"),
        return_exceptions=True,
    )
    assert isinstance(done.pop(), Conflict) and done == [None] * 50
    assert [(await hot_log.read(id, "t_1")).text for id in others] == ["ok"] * 50


async def test_many_replies_at_once_are_read_and_sealed(hot_log: HotLog) -> None:
    ids = [actor() for _ in range(100)]
    await asyncio.gather(*(hot_log.append(id, "t_1", 0, "x") for id in ids))
    assert await asyncio.gather(*(hot_log.read(id, "t_1") for id in ids)) == [Shown("x")] * 100
    await asyncio.gather(*(hot_log.seal(id, "t_1") for id in ids))


async def test_turns_and_tenants_are_apart(hot_log: HotLog) -> None:
    mine = actor("t1")
    theirs = ActorId("t2", mine.kind, mine.name)
    await hot_log.append(mine, "t_1", 0, "mine")
    assert await hot_log.read(theirs, "t_1") == Shown() and await hot_log.read(mine, "t_2") == Shown()


@pytest.mark.parametrize("text", ["", "a", "日本"])
@pytest.mark.parametrize("forget", [False, True])
async def test_a_sealed_log_takes_no_text_from_anybody(hot_log: HotLog, text: str, forget: bool) -> None:
    id = actor()
    await hot_log.append(id, "t_1", 0, text)
    for _ in range(2):
        await hot_log.seal(id, "t_1", forget=forget)
        assert await hot_log.read(id, "t_1") == Shown("" if forget else text, sealed=True)
        for said in (0, 1, len(text.encode()), 4):
            with pytest.raises(Conflict):
                await hot_log.append(id, "t_1", said, "b")
    await hot_log.append(id, "t_2", 0, "the next turn")


async def test_a_log_that_nobody_wrote_to_can_be_sealed(hot_log: HotLog) -> None:
    id = actor()
    await hot_log.seal(id, "t_1")
    with pytest.raises(Conflict):
        await hot_log.append(id, "t_1", 0, "late")


async def test_a_seal_in_valkey_expires_long_after_a_dead_host_could_write(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    log, id = valkey.ValkeyHotLog(client), actor()
    await write(log, id, ["a"])
    await log.seal(id, "t_1")
    (key,) = await client.keys(f"*{id.name}*")
    assert valkey.HOT_LOG_SEALED_S - 10 < await client.ttl(key) <= valkey.HOT_LOG_SEALED_S
    await log.close()


async def test_a_reply_in_valkey_expires(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    log, id = valkey.ValkeyHotLog(client), actor()
    await write(log, id, ["a", "b"])
    (key,) = await client.keys(f"*{id.name}*")
    assert 0 < await client.ttl(key) <= valkey.HOT_LOG_KEPT_S
    await log.close()


async def test_a_reply_that_begins_with_an_empty_piece_expires_too(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    log, id = valkey.ValkeyHotLog(client), actor()
    await write(log, id, ["", "a"])
    (key,) = await client.keys(f"*{id.name}*")
    assert await client.ttl(key) > 0
    await log.close()


async def test_while_valkey_is_down_calls_are_unavailable_and_then_work_again(valkey_server: Valkey) -> None:
    log, id = valkey.ValkeyHotLog(valkey.connect(valkey_server.url)), actor()
    await log.append(id, "t_1", 0, "before ")
    valkey_server.stop()
    try:
        for call in (
            log.append(id, "t_1", 7, "x"),
            log.read(id, "t_1"),
            log.seal(id, "t_1"),
            log.ping(),
        ):
            with pytest.raises(Unavailable):
                await call
    finally:
        valkey_server.start()
    await log.ping()
    await log.append(id, "t_1", 7, "after")
    assert (await log.read(id, "t_1")).text == "before after"
    await log.close()
