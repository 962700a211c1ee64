"""Server-sent events, as bytes come in (the HTML standard's "event stream", of which `data` counts here)."""

from __future__ import annotations

from flotilla.core.errors import TooLarge


class Unpacker:
    """Bytes in, the `data` of whole events out. What is not whole when the bytes end was never sent."""

    def __init__(self, event_bytes_max: int) -> None:
        self._most = event_bytes_max
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises `TooLarge` for an event past the limit."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        out = [event for line in lines if (event := self._line(line.rstrip(b"\r"))) is not None]
        if len(self._rest) + sum(map(len, self._data)) > self._most:
            raise TooLarge(f"An event has more than {self._most} bytes.", field="event_bytes_max")
        return out

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event, self._data = b"\n".join(self._data), []
            return event or None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None
