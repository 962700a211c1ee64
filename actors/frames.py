"""What is said on the links of a fleet: the bodies of calls and of items."""

from __future__ import annotations

import msgspec

from flotilla.core import signals
from flotilla.core.ids import ActorId


class AskFrame(msgspec.Struct, frozen=True, array_like=True):
    actor: ActorId
    ask: signals.Ask


class FollowFrame(msgspec.Struct, frozen=True, array_like=True):
    """Everything of `actor` with `seq > after`; of the reply that was under way at `after`, the text from
    character `offset` on."""

    actor: ActorId
    after: int
    offset: int = 0


Answer = signals.Accepted | signals.Interrupted | signals.SessionView

encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(AskFrame).decode
decode_follow = msgspec.msgpack.Decoder(FollowFrame).decode
