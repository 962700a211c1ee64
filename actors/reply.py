"""What whoever is asked over a link answers with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from actors.wire import Op, check_size
from flotilla.core.errors import FlotillaError, TooLarge


class Settles(Protocol):
    """The link that a question came over."""

    def settle(self, stream: int, op: Op, body: bytes) -> None: ...


class Reply:
    """To whoever asked. The first `answer` or `refuse` counts, and none once the asker is `gone`: it
    has cancelled, or its link is lost. `on_cancel` is called when that happens before an answer."""

    __slots__ = ("_peer", "_stream", "gone", "on_cancel")

    def __init__(self, peer: Settles, stream: int) -> None:
        self._peer = peer
        self._stream = stream
        self.gone = False
        self.on_cancel: Callable[[], object] | None = None

    def answer(self, body: bytes) -> None:
        """An answer that no frame can carry becomes the refusal `TooLarge`."""
        try:
            check_size(body)
        except TooLarge as error:
            return self.refuse(error)
        return self._peer.settle(self._stream, Op.ANSWER, body)

    def refuse(self, error: FlotillaError) -> None:
        self._peer.settle(self._stream, Op.ERROR, problem(error))


Asked = Callable[[str, bytes, Reply | None], None]
"""Takes an ask, or a tell if nobody waits for a reply: the method's name and its body. It is called in
the order in which they were sent, and must not wait."""


def problem(error: FlotillaError) -> bytes:
    return msgspec.json.encode(error.problem())
