"""What the client library yields, as the checks of a conversation have it."""

from __future__ import annotations

from benchmarks.load.frames import Data, Event, Problem, timed
from flotilla.client import Accepted, Completed, Delta, Denied, Other, Rewound
from flotilla.client.events import Event as ClientEvent


def frame(event: ClientEvent) -> Event:
    """The most frequent first."""
    match event:
        case Delta(seq=seq, turn=turn, piece=piece):
            return Event("reply.delta", seq, turn, data=Data(offset=piece.offset, text=piece.text))
        case Accepted(seq=seq, turn=turn, message=message):
            return Event("message.accepted", seq, turn, data=Data(id=message.id))
        case Completed(seq=seq, turn=turn, said=said):
            return Event("reply.completed", seq, turn, data=Data(text=said.text, timing=timed(said.timing)))
        case Rewound(seq=seq, turn=turn, piece=piece):
            return Event("reply.rewound", seq, turn, data=Data(offset=piece.offset))
        case Denied(id=id, problem=told):
            problem = Problem(told.type, told.status, told.detail, told.retry_after_s)
            return Event("error", id=id, problem=problem)
        case Other(type=type, at=at):  # without a time it is of the moment, and has no number of its own
            return Event(type, event.seq if at else 0, event.turn)
        case _:
            return Event(str(event.__struct_config__.tag), event.seq, event.turn)
