"""The bytes of a link: frames cut out of a stream, and gathered into writes."""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import cast

from flotilla.core.errors import TooLarge
from flotilla.core.limits import LIMITS

_HEADER = struct.Struct(">IBI")  # length of what follows the header, op, stream
# A peer that has not shown its token has no reason to send more than one.
HELLO_BYTES_MAX = 1024


class Op(IntEnum):
    HELLO = 0
    OPEN = 1
    ITEM = 2
    END = 3
    ERROR = 4
    CANCEL = 5
    CREDIT = 6


_OPS = frozenset(Op)


def check_size(body: bytes) -> None:
    """Raises `TooLarge` for what no frame can carry, before it costs the link and all its calls."""
    if len(body) > LIMITS.link_frame_bytes_max:
        raise TooLarge(f"{len(body)} bytes don't fit a link's frame of {LIMITS.link_frame_bytes_max}.")


class Frames(asyncio.Protocol):
    """Cuts the byte stream into frames, and gathers frames into writes."""

    body_bytes_max = LIMITS.link_frame_bytes_max

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of another class with the same methods.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if not self.closed.done():
            self.closed.set_result(None)
        self.on_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def writable(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at, end = 0, len(self._buffer)
        while end - at >= _HEADER.size and not self.closing:
            length, op, stream = _HEADER.unpack_from(self._buffer, at)
            if length > self.body_bytes_max or op not in _OPS:
                return self.abort()
            if end - at < _HEADER.size + length:
                break
            body = bytes(self._buffer[at + _HEADER.size : at + _HEADER.size + length])
            at += _HEADER.size + length
            self.on_frame(Op(op), stream, body)
        del self._buffer[:at]
        return None

    def send(self, op: Op, stream: int, body: bytes = b"") -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(_HEADER.pack(len(body), op, stream) + body)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.closing:
            self._transport.write(b"".join(out))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        raise NotImplementedError

    def on_lost(self) -> None:
        raise NotImplementedError
