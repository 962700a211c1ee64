"""What a customer of the load fleet notices of a stream: gaps, doubles, wrong text, and when it all came."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import decode
from benchmarks.load.notes import COMPLETED, ERROR, INTERRUPTED, SHED, UNFINISHED, Notes, Turn
from benchmarks.load.sockets import SocketDoor
from benchmarks.load.watch import Watch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


class Line:
    """A way in that notes what was posted."""

    def __init__(self) -> None:
        self.open = True
        self.posted: list[str] = []

    def post(self, turn: Turn) -> None:
        self.posted.append(turn.id)

    def cut(self) -> bool:
        return True

    async def connect(self) -> None: ...

    async def close(self) -> None: ...


class World:
    def __init__(self) -> None:
        self.notes = Notes(100.0, Clock())
        self.watch = Watch(0.25)
        self.conversation = Conversation(0, self.notes, self.watch, checks=True)
        self.line = Line()
        self.conversation.door = self.line
        self.seq = 0

    def ask(self, id: str) -> Turn:
        turn = Turn(id, 0, 100.0, 0, 0)
        self.conversation.ask(turn)
        return turn

    def hear(self, type: str, seq: int | None = None, **data: Any) -> None:
        """The next durable event unless it is given a number."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        event = {"seq": seq, "type": type, "data": data}
        self.conversation.take(decode(msgspec.json.encode(event)))

    def begin(self, id: str) -> None:
        self.hear("message.accepted", id=id, text="-")
        self.hear("reply.started")

    def reply(self, id: str, *parts: str) -> None:
        self.begin(id)
        for n, part in enumerate(parts):
            self.hear("reply.delta", seq=self.seq - 1, offset=len("".join(parts[:n])), text=part)
        self.hear("reply.completed", text="".join(parts), timing={"total": 9.0})

    def column(self, name: str) -> list[Any]:
        return self.notes.turns()[name].tolist()


@pytest.fixture
def world() -> World:
    return World()


def test_a_whole_reply_has_no_faults(world: World) -> None:
    world.ask("m-1")
    world.reply("m-1", "naïve", " 日本語", " 👍")
    assert not world.notes.errors
    assert world.column("outcome") == [COMPLETED]
    assert world.column("characters") == [len("naïve 日本語 👍")]
    assert world.column("deltas") == [3]
    assert world.column("total") == [9.0]
    times = [
        world.column(name)[0] for name in ("intended_s", "sent_s", "accepted_s", "first_s", "last_s", "end_s")
    ]
    assert times == sorted(times)
    assert len(world.notes.gaps()["gap_ms"]) == 2


def test_a_delta_left_out_is_a_gap(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    world.hear("reply.delta", seq=1, offset=8, text="three")
    assert world.notes.errors == {"gap": 1}


def test_a_delta_said_twice_is_doubled(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    for _ in range(2):
        world.hear("reply.delta", seq=1, offset=0, text="one")
    assert world.notes.errors == {"doubled": 1}


def test_text_that_came_with_the_end_alone_is_a_tail(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    world.hear("reply.completed", text="one two")
    assert world.notes.errors == {"tail": 1}


def test_words_that_came_with_the_end_are_the_first_all_the_same(world: World) -> None:
    turn = world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.completed", text="one two")
    assert turn.accepted < turn.first <= turn.end
    assert world.notes.errors == {"tail": 1}


def test_a_stream_of_one_turn_may_begin_behind_its_reply(world: World) -> None:
    turn = world.ask("m-1")
    world.conversation.begins(world.conversation.seq + 1)
    world.begin("m-1")
    world.hear("reply.completed", text="one two")
    assert turn.accepted < turn.first <= turn.end
    assert not world.notes.errors and world.notes.counts["came whole"] == 1


def test_a_reply_that_ended_while_its_customer_was_away_is_shown_with_its_end(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    world.conversation.connected()
    world.hear("reply.completed", text="one two")
    assert not world.notes.errors


async def test_also_if_its_end_comes_with_the_handshake_of_the_next_connection(world: World) -> None:
    class Eager:
        async def connect(self, door: SocketDoor) -> object:
            door.take(b'{"type":"reply.completed","seq":3,"data":{"text":"one two"}}')
            return object()

    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    way: Any = Eager()
    await SocketDoor(way, world.conversation, lambda _conversation, _code: None).connect()
    assert world.column("outcome") == [COMPLETED]
    assert not world.notes.errors


def test_another_text_of_the_same_length_is_noticed_where_it_is_checked(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    world.hear("reply.completed", text="two")
    assert world.notes.errors == {"text": 1}


def test_a_rewound_reply_is_no_fault(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one two")
    world.hear("reply.rewound", seq=1, offset=3)
    world.hear("reply.delta", seq=1, offset=3, text=" three")
    world.hear("reply.completed", text="one three")
    assert not world.notes.errors
    assert world.notes.counts["rewound"] == 1


def test_events_left_out_and_events_twice(world: World) -> None:
    world.hear("note.added")
    world.hear("note.added", seq=3)
    world.hear("note.added", seq=3)
    assert world.notes.errors == {"gap": 1, "doubled": 1}


def test_a_turn_that_comes_too_early_is_held_and_counted_from_when_it_was_due(world: World) -> None:
    first, second = world.ask("m-1"), world.ask("m-2")
    assert world.line.posted == ["m-1"]
    world.reply("m-1", "yes")
    assert world.line.posted == ["m-1", "m-2"]
    assert (first.held, second.held) == (False, True)
    world.reply("m-2", "no")
    assert world.column("outcome") == [COMPLETED, COMPLETED]
    assert world.column("intended_s") == [0.0, 0.0]
    assert world.column("sent_s")[1] > world.column("end_s")[0]


def test_what_was_not_acknowledged_is_said_again_with_the_next_connection(world: World) -> None:
    world.ask("m-1")
    world.conversation.connected()
    assert world.line.posted == ["m-1", "m-1"]
    world.hear("message.accepted", id="m-1")
    world.conversation.connected()
    assert world.line.posted == ["m-1", "m-1"]
    world.hear("message.accepted", seq=1, id="m-1")  # the echo of the second
    assert not world.notes.errors


def test_the_place_is_behind_what_was_read(world: World) -> None:
    world.ask("m-1")
    world.begin("m-1")
    world.hear("reply.delta", seq=1, offset=0, text="one")
    assert world.conversation.place == "2:3"
    world.hear("reply.completed", text="one")
    assert world.conversation.place == "3"


@pytest.mark.parametrize(
    ("status", "retry", "outcome", "errors"),
    [
        (503, 1.0, SHED, {}),
        (429, 1.0, SHED, {}),
        (429, None, SHED, {"no Retry-After": 1}),
        (422, None, ERROR, {"status 422": 1}),
    ],
)
def test_a_refusal(
    world: World, status: int, retry: float | None, outcome: int, errors: dict[str, int]
) -> None:
    world.ask("m-1")
    problem = {"status": status, "detail": "-", **({"retry_after_s": retry} if retry else {})}
    frame = {"type": "error", "id": "m-1", "problem": problem}
    world.conversation.take(decode(msgspec.json.encode(frame)))
    assert world.column("outcome") == [outcome]
    assert world.notes.errors == errors
    assert np.isnan(world.column("first_s")[0])


def test_other_ends(world: World) -> None:
    for n, type in enumerate(("reply.interrupted", "reply.failed")):
        world.ask(f"m-{n}")
        world.begin(f"m-{n}")
        world.hear(type, text="")
    world.ask("m-2")
    world.ask("m-3")
    world.conversation.give_up()
    assert world.column("outcome") == [INTERRUPTED, ERROR, UNFINISHED, UNFINISHED]
    assert np.isnan(world.column("sent_s")[3])


def test_good_turns_are_those_in_time_since_the_phase_began(world: World) -> None:
    world.watch.begin(99.0)
    world.ask("m-1")
    world.reply("m-1", "yes")
    assert (world.watch.good, world.watch.failed) == (1, 0)
    world.watch.begin(200.0)
    world.ask("m-2")
    world.reply("m-2", "yes")
    assert (world.watch.good, world.watch.failed) == (0, 0)
    assert world.watch.taken()["completed"] == 2
