"""What is said on the links of a fleet: the bodies of calls and of items."""

from __future__ import annotations

import msgspec

from flotilla.core import signals
from flotilla.core.ids import ActorId


class AskFrame(msgspec.Struct, frozen=True, array_like=True):
    actor: ActorId
    ask: signals.Ask


class FollowFrame(msgspec.Struct, frozen=True, array_like=True):
    """Everything of `actor` with `seq > after`; of the reply to message `turn` (a seq), if it is still
    under way, the text from `offset` on."""

    actor: ActorId
    after: int
    turn: int = 0
    offset: int = 0


Answer = signals.Accepted | signals.Interrupted | signals.SessionView

encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(AskFrame).decode
decode_follow = msgspec.msgpack.Decoder(FollowFrame).decode
