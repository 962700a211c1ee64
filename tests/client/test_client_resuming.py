"""The client against a small fleet on a real socket that cuts, sheds, repeats and loses, from a seed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from flotilla.client import (
    Accepted,
    AsyncClient,
    ClientLimits,
    Closed,
    Completed,
    Delta,
    Denied,
    Event,
    Other,
    Patience,
    Rewound,
)
from flotilla.core.errors import Conflict, LimitReached, Refused, TooLarge, Unauthenticated, Unavailable
from tests.client.server import Mischief, SmallFleet, serving

QUICK = Patience(first_s=0.001, longest_s=0.01, most_s=20.0)
LIMITS = ClientLimits(again_s=0.01, overdue_s=0.5, connect_s=5.0)
SEEDS = range(12)


def client(url: str, **options: object) -> AsyncClient:
    return AsyncClient(url, **{"patience": QUICK, "limits": LIMITS, **options})  # type: ignore[arg-type]


def nasty(seed: int) -> Mischief:
    return Mischief(seed, shed=0.15, cut=0.12, again=0.2, lose=0.1)


def shown(events: list[Event], turn: str) -> str:
    """What is on the screen of a client that joins deltas blindly. Asserts that none leaves a gap."""
    text = ""
    for event in events:
        match event:
            case Rewound(turn=of) if of == turn:
                text = text[: event.offset]
            case Delta(turn=of) if of == turn:
                assert event.offset == len(text)
                text += event.text
            case _:
                pass
    return text


def durable(events: list[Event]) -> list[int]:
    return [event.seq for event in events if getattr(event, "at", "")]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_message_is_taken_once_and_its_reply_is_whole_whatever_breaks(seed: int) -> None:
    fleet = SmallFleet(nasty(seed))
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open("bank")
        events = [event async for event in session.send("How much?", id="m1")]
        end = events[-1]
        assert isinstance(end, Completed)
        assert shown(events, end.turn) == end.said.text == fleet.sessions[session.id].reply_to("m1")
        assert (await session.ask("And?", id="m2")).text == fleet.sessions[session.id].reply_to("m2")
        assert list(fleet.sessions) == [session.id]  # opening was tried again, and opened one
        assert fleet.sessions[session.id].messages == ["m1", "m2"]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_talk_comes_back_and_misses_nothing(seed: int) -> None:
    fleet = SmallFleet(nasty(seed))
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open("bank")
        said, events = [f"m{n}" for n in range(4)], list[Event]()
        async with session.connect() as talk:
            for id in said:
                await talk.say("?", id=id)
            async for event in talk:
                events.append(event)
                if sum(isinstance(one, Completed) for one in events) == len(said):
                    break
            assert talk.unaccepted == 0
        there = fleet.sessions[session.id]
        assert durable(events) == list(range(1, len(there.record) + 1))
        assert there.messages == said  # each once, in the order in which they were said
        for id in said:
            assert shown(events, f"t_{id}") == there.reply_to(id)


@pytest.mark.parametrize("seed", SEEDS)
async def test_who_follows_over_sse_misses_nothing(seed: int) -> None:
    fleet = SmallFleet(nasty(seed))
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open("bank")
        there = fleet.sessions[session.id]
        for n in range(3):
            there.post(f"m{n}", "?")
        events = list[Event]()
        async with aclosing(session.follow()) as following:
            async for event in following:
                events.append(event)
                if isinstance(event, Completed) and event.turn == "t_m2":
                    there.close()
        assert isinstance(events[-1], Closed)
        assert durable(events) == list(range(1, len(there.record) + 1))
        assert [shown(events, f"t_m{n}") for n in range(3)] == [there.reply_to(f"m{n}") for n in range(3)]


async def test_text_that_a_crash_took_back_is_rewound() -> None:
    fleet = SmallFleet(words=40, step_s=0.001)
    async with serving(fleet) as url, client(url) as mine:
        session, events = await mine.sessions.open(), list[Event]()
        async for event in session.send("?", id="m"):
            events.append(event)
            if (
                isinstance(event, Delta)
                and event.offset > 40
                and not any(isinstance(e, Rewound) for e in events)
            ):
                fleet.sessions[session.id].crash(10)
        end = events[-1]
        assert isinstance(end, Completed) and any(isinstance(event, Rewound) for event in events)
        assert shown(events, end.turn) == end.said.text


async def test_a_talk_goes_on_from_a_place() -> None:
    fleet = SmallFleet(words=30, step_s=0.001)
    async with serving(fleet) as url, client(url) as mine:
        session, events = await mine.sessions.open(), list[Event]()
        async with session.connect() as talk:
            await talk.say("?", id="m")
            async for event in talk:
                events.append(event)
                if isinstance(event, Delta) and event.offset > 30:
                    break
        assert ":" in talk.place
        async with session.connect(talk.place) as talk:  # another device, or this one started again
            async for event in talk:
                events.append(event)
                if isinstance(event, Completed):
                    break
        assert durable(events) == list(range(1, 5))
        assert shown(events, "t_m") == fleet.sessions[session.id].reply_to("m")


async def test_who_stops_waiting_for_an_event_loses_nothing_and_keeps_the_connection() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        async with session.connect(after=1) as talk:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(talk), 0.01)
            assert (await talk.ask("?", id="m")).text == fleet.sessions[session.id].reply_to("m")
        assert fleet.places == ["1"]


async def test_a_message_that_nobody_heard_is_said_again_on_a_connection_that_stays_up() -> None:
    fleet = SmallFleet()
    fleet.deaf = 1
    async with serving(fleet) as url, client(url, limits=ClientLimits(overdue_s=0.05)) as mine:
        session = await mine.sessions.open()
        async with session.connect() as talk:
            assert (await talk.ask("?", id="m")).text == fleet.sessions[session.id].reply_to("m")
        assert len(fleet.places) == 1 and fleet.sessions[session.id].posts == 1


async def test_a_message_that_is_refused_is_denied_and_the_talk_goes_on() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        async with session.connect() as talk:
            with pytest.raises(Conflict):
                await talk.ask("other text", id="refused")
            assert (await talk.ask("?", id="m")).text == fleet.sessions[session.id].reply_to("m")


async def test_messages_that_are_shed_too_often_are_denied() -> None:
    fleet = SmallFleet(Mischief(shed=0.0))
    async with (
        serving(fleet) as url,
        client(url, limits=ClientLimits(again_s=0.001, message_tries_max=3)) as mine,
    ):
        session = await mine.sessions.open()
        async with session.connect() as talk:
            assert (await anext(talk)).seq == 1
            fleet.mischief.shed = 1.0
            await talk.say("?", id="m")
            event = await anext(talk)
            assert isinstance(event, Denied) and event.id == "m" and event.problem.status == 503
            assert talk.unaccepted == 0


async def test_several_devices_see_the_same() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()

        async def device() -> list[Event]:
            seen = list[Event]()
            async with aclosing(session.follow()) as following:
                async for event in following:
                    seen.append(event)
                    if isinstance(event, Completed):
                        return seen
            raise AssertionError("it never ended")

        one, other = asyncio.create_task(device()), asyncio.create_task(device())
        async with session.connect() as talk:
            await talk.typing()
            reply = await talk.ask("?", id="m")
        assert durable(await one) == durable(await other)
        assert shown(one.result(), reply.turn) == shown(other.result(), reply.turn) == reply.text


async def test_closing_ends_the_talk() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        async with session.connect() as talk:
            fleet.sessions[session.id].close()
            assert isinstance([event async for event in talk][-1], Closed)


async def test_what_can_not_be_mended_is_raised_at_once() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url, key="wrong") as mine:
        session = mine.sessions.at(fleet.open())
        with pytest.raises(Unauthenticated):
            await session.ask("?")
        async with session.connect() as talk:
            with pytest.raises(Unauthenticated):
                await anext(talk)
        assert len(fleet.calls) == 1 and len(fleet.places) == 1


async def test_what_is_said_is_bounded_here_as_it_is_there() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url, limits=ClientLimits(outbox_messages_max=2)) as mine:
        talk = (await mine.sessions.open()).connect()  # nobody reads: nothing is accepted
        with pytest.raises(TooLarge):
            await talk.say("x" * 70_000)
        with pytest.raises(Refused):
            await talk.say("\ud800")
        await talk.say("1")
        await talk.say("2")
        with pytest.raises(LimitReached) as full:
            await talk.say("3")
        assert full.value.field == "outbox_messages_max"
        with pytest.raises(Unavailable):
            await talk.interrupt()
        await talk.aclose()


async def test_a_fleet_that_stays_away_is_given_up_on() -> None:
    async with serving(SmallFleet()) as url:
        pass
    patience = Patience(first_s=0.001, longest_s=0.001, tries_max=3)
    async with client(url, patience=patience) as mine:
        session = mine.sessions.at("s_1")
        with pytest.raises(Unavailable) as gone:
            await session.ask("?")
        assert url in gone.value.detail and gone.value.next
        async with session.connect() as talk:
            with pytest.raises(Unavailable) as gone:
                await anext(talk)
        assert url in gone.value.detail


async def test_unknown_events_are_passed_on_as_others() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        fleet.sessions[session.id].add("weather.changed", "", {"to": "rain"})
        async with aclosing(session.follow(1)) as following:
            event = await anext(following)
        assert isinstance(event, Other) and (event.type, event.data) == ("weather.changed", {"to": "rain"})
        assert [type(one).__name__ for one in await session.events()] == ["Opened", "Other"]


async def test_posting_waits_for_the_record_alone() -> None:
    fleet = SmallFleet(nasty(3))
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        assert await session.post("?", id="m") == 2
        assert isinstance((await session.events(after=1, limit=1))[0], Accepted)
