"""The bytes of a link: frames cut out of a stream, and gathered into writes."""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import cast

from flotilla.core.errors import TooLarge
from flotilla.core.limits import LIMITS

# Length of what follows the header, op, stream. A stream's number is never used twice on a link: 32 bits
# would be used up in a day at 50,000 asks a second.
_HEADER = struct.Struct(">IBQ")
_HEADER_BYTES = _HEADER.size
# A peer that has not shown its token has no reason to send more than one.
HELLO_BYTES_MAX = 1024
# More than that leaves at once, and does not wait for the turn of the loop to end.
_GATHERED_BYTES_MAX = 256 * 1024
# Small items that are sent in one turn of the loop share a frame: a step of an engine makes one for each of
# its streams, and cutting and handing on a frame costs more than most of them (docs/decisions/0020).
_ITEMS_MAX = 256
_SHARED_BYTES_MAX = 4096


class Op(IntEnum):
    HELLO = 0
    OPEN = 1  # a stream, with what is asked
    ITEM = 2
    END = 3
    ERROR = 4  # instead of an answer, or as the end of a stream
    CANCEL = 5
    CREDIT = 6
    ASK = 7  # one frame there, one ANSWER or ERROR back
    ANSWER = 8
    TELL = 9  # nothing comes back
    ITEMS = 10  # several in one frame; how many is in the place of the stream


# In front of the items of a frame: the streams of all, then the lengths of all.
_INDEXES = [struct.Struct(f">{count}Q{count}I") for count in range(_ITEMS_MAX + 1)]
_OPS = tuple(Op)  # looked up by number: `Op(number)` takes as long as the rest of cutting a frame


def check_size(body: bytes) -> None:
    """Raises `TooLarge` for what no frame can carry, before it costs the link and all its calls."""
    if len(body) > LIMITS.link_frame_bytes_max:
        raise TooLarge(f"{len(body)} bytes don't fit a link's frame of {LIMITS.link_frame_bytes_max}.")


def items_of(count: int, body: bytes) -> list[tuple[int, bytes]]:
    """The streams and the items of an `ITEMS` frame. Raises `ValueError` if it is none."""
    if count > _ITEMS_MAX or len(body) < _INDEXES[count].size:
        raise ValueError(f"{len(body)} bytes can't be {count} items.")
    index, at = _INDEXES[count].unpack_from(body), _INDEXES[count].size
    found: list[tuple[int, bytes]] = []
    for stream, length in zip(index[:count], index[count:], strict=True):
        found.append((stream, body[at : at + length]))
        at += length
    if at != len(body):
        raise ValueError(f"{count} items of {at} bytes are not {len(body)}.")
    return found


class Frames(asyncio.Protocol):
    """Cuts the byte stream into frames, and gathers frames into writes."""

    body_bytes_max = LIMITS.link_frame_bytes_max

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []  # read, and not yet cut
        self._held_bytes = 0
        self._needed = _HEADER_BYTES  # with fewer there is nothing to cut
        self._reading = True
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._streams: list[int] = []  # of the items that are to share the next frame
        self._items: list[bytes] = []
        self._full = False  # the transport holds more than its high-water mark
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of another class with the same methods.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        if not self.closed.done():
            self.closed.set_result(None)
        self.on_lost()

    def abort(self) -> None:
        """Breaks the link now; `on_lost` is called in a later turn of the loop."""
        self._lose()
        if self._transport is not None:
            self._transport.abort()

    def _lose(self) -> None:
        self.lost, self._reading = True, False
        self._held, self._held_bytes = [], 0
        self._writable.set()

    # -- reading

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= self._needed:
            self._cut()

    def _cut(self) -> None:
        """Hands on every whole frame, for as long as nobody holds the reading."""
        data = b"".join(self._held)  # no copy if there is one piece
        at, end, needed = 0, len(data), _HEADER_BYTES
        while self._reading and end - at >= _HEADER_BYTES:
            length, op, stream = _HEADER.unpack_from(data, at)
            if length > self.body_bytes_max or op >= len(_OPS):
                return self.abort()
            body_at = at + _HEADER_BYTES
            if body_at + length > end:
                needed += length
                break
            at = body_at + length
            self.on_frame(_OPS[op], stream, data[body_at:at])
        if not self.lost:
            self._held, self._held_bytes, self._needed = [data[at:]], end - at, needed
        return None

    def hold_reading(self) -> None:
        """No frame is handed on until `go_on_reading`; the peer's frames wait in its own memory."""
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def go_on_reading(self) -> None:
        if not self._reading and not self.lost and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
            self._loop.call_soon(self._cut)  # what had been read when the reading was held

    # -- writing

    def pause_writing(self) -> None:
        self._full = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self._full = False
        self._writable.set()

    @property
    def full(self) -> bool:
        """The transport holds more than it should: whoever can wait does."""
        return self._full

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read. Up to the transport's high-water mark they count as sent."""
        held = self._transport.get_write_buffer_size() if self._full and self._transport is not None else 0
        return self._out_bytes + held

    async def writable(self) -> None:
        """Returns when the peer has read most of what was sent, or is gone."""
        while self._full and not self.lost:  # again, for those who waited before us have sent
            await self._writable.wait()

    def send(self, op: Op, stream: int, body: bytes = b"") -> None:
        if self._items:
            self._share()  # before it, as they were sent before it
        elif not self._out:
            self._loop.call_soon(self._flush)
        self._out += (_HEADER.pack(len(body), op, stream), body)
        self._out_bytes += _HEADER_BYTES + len(body)
        if self._out_bytes > _GATHERED_BYTES_MAX:
            self._flush()

    def send_item(self, stream: int, body: bytes) -> None:
        """In a frame with the items that are sent right after it."""
        if len(body) > _SHARED_BYTES_MAX:
            return self.send(Op.ITEM, stream, body)
        if not self._out and not self._items:
            self._loop.call_soon(self._flush)
        self._streams.append(stream)
        self._items.append(body)
        self._out_bytes += _HEADER_BYTES + len(body)
        if self._out_bytes > _GATHERED_BYTES_MAX:
            self._flush()
        elif len(self._items) == _ITEMS_MAX:
            self._share()
        return None

    def _share(self) -> None:
        """Closes the frame that items are gathered for."""
        streams, self._streams = self._streams, []
        items, self._items = self._items, []
        if len(items) == 1:
            self._out += (_HEADER.pack(len(items[0]), Op.ITEM, streams[0]), items[0])
            return
        index = _INDEXES[len(items)].pack(*streams, *map(len, items))
        length = len(index) + sum(map(len, items))
        self._out += (_HEADER.pack(length, Op.ITEMS, len(items)), index, *items)

    def _flush(self) -> None:
        if self._items:
            self._share()
        out, self._out, self._out_bytes = self._out, [], 0
        if out and self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    # -- what the two ends make of it

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        raise NotImplementedError

    def on_lost(self) -> None:
        raise NotImplementedError
