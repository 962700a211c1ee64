"""A server that speaks the fleet's wire and does nothing: what a load generator is measured against.

    python -m benchmarks.load.echo --port 9000 [--tokens 20] [--token-s 0.02]

WebSocket, SSE and HTTP, sessions from memory, replies of the same words at an even pace. One process,
written for little processor time, not for all that HTTP allows.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import resource
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from benchmarks.load.echo_sessions import Echo, Pace, Session
from benchmarks.load.worker import many_files

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SOCKETS_MAX = 50_000
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
PING, PONG = 9, 0x8A


class Said(msgspec.Struct):
    type: str = "message"
    id: str = ""
    text: str = ""


_said = msgspec.json.Decoder(Said).decode
_encode = msgspec.json.encode


class Connection(asyncio.Protocol):
    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._buffer = b""
        self._session: Session | None = None
        self._socket = False
        self._after = 0  # where what this connection was told begins
        self._listener: Callable[[bytes, int], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._session is not None and self._listener is not None:
            self._session.listeners.remove(self._listener)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and (self._frame() if self._socket else self._request()):
            pass

    # -- HTTP

    def _request(self) -> bool:
        """Whether there was one, whole."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        lines = head.split(b"\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines[1:])}
        length = int(headers.get(b"content-length", 0))
        if len(rest) < length:
            return False
        body, self._buffer = rest[:length], rest[length:]
        path, _, query = lines[0].split(b" ")[1].decode().partition("?")
        if path == "/readyz":
            self._json(200, {"ready": True})
            return True
        self._answer(path.split("/")[3:], query, headers, body)
        return True

    def _answer(self, path: list[str], query: str, headers: dict[bytes, bytes], body: bytes) -> None:
        """`/v1/sessions[/ID/ws|stream|messages|notes]`"""
        if not path:
            return self._json(201, {"id": self._echo.open(), "seq": 1})
        session = self._echo.sessions.get(path[0])
        if session is None:
            return self._json(
                404, {"type": "not-found", "status": 404, "detail": "There is no such session."}
            )
        self._session = session
        asked = query.partition("after=")[2].partition("&")[0]
        after = asked or headers.get(b"last-event-id", b"0").decode()
        match path[1:]:
            case ["ws"]:
                key = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
                head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                self._transport.write(b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (head, key))
                self._socket = True
                self._follow(after, lambda event, _: self._transport.write(framed(event)))
            case ["stream"]:
                self._transport.write(STREAM)
                self._follow(after, self._stream)
            case ["notes"]:
                said = _said(body)
                session.record("note.added", "", {"id": said.id, "text": said.text})
                self._json(202, {"seq": len(session.events)})
            case _ if headers.get(b"accept") == b"text/event-stream":
                self._send(session, body)
            case _:
                self._post(session, body, wait="wait=true" in query)
        return None

    def _stream(self, event: bytes, seq: int) -> None:
        self._transport.write(b"id: %d\ndata: %b\n\n" % (seq, event))

    def _follow(self, place: str, listener: Callable[[bytes, int], None]) -> None:
        """What was missed since `SEQ[:OFFSET]`, then what happens."""
        assert self._session is not None
        after, _, offset = place.partition(":")
        self._after = int(after)
        missed = self._session.events[int(after) :]
        for seq, event in enumerate(missed, int(after) + 1):
            listener(event, seq)
        seen = 0 if missed else int(offset or 0)
        if self._session.saying[0] and (unseen := self._session.shown[seen:]):
            listener(self._session.delta(seen, unseen), 0)
        self._listener = listener
        self._session.listeners.append(listener)

    def _post(self, session: Session, body: bytes, *, wait: bool) -> None:
        said = _said(body)
        if wait:
            self._listener = self._wait
            session.listeners.append(self._wait)
        session.say(said.id, said.text)
        if not wait:
            self._json(202, {"seq": len(session.events)})

    def _send(self, session: Session, body: bytes) -> None:
        """The events of the message's turn, and no further."""
        said = _said(body)
        self._transport.write(STREAM)
        self._follow(str(session.say(said.id, said.text) - 1), self._stream_turn)

    def _stream_turn(self, event: bytes, seq: int) -> None:
        self._stream(event, seq)
        if b'"reply.completed"' in event:
            self._transport.close()

    def _wait(self, event: bytes, _: int) -> None:
        if b'"reply.completed"' not in event:
            return
        assert self._session is not None
        self._session.listeners.remove(self._wait)
        self._listener = None
        self._bytes(200, event)

    def _json(self, status: int, content: object) -> None:
        self._bytes(status, _encode(content))

    def _bytes(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    # -- WebSocket

    def _frame(self) -> bool:
        """One short masked frame of a client; whether there was one, whole."""
        data = self._buffer
        if len(data) < 6:
            return False
        length, at = data[1] & 127, 2
        if length == 126:
            length, at = int.from_bytes(data[2:4]), 4
        if len(data) < at + 4 + length:
            return False
        mask, body = data[at : at + 4], data[at + 4 : at + 4 + length]
        self._buffer = data[at + 4 + length :]
        self._take(data[0] & 15, unmasked(body, mask))
        return True

    def _take(self, opcode: int, payload: bytes) -> None:
        assert self._session is not None
        if opcode == 8:
            self._transport.write(bytes((0x88, len(payload))) + payload)
            self._transport.close()
        elif opcode == PING:
            self._transport.write(bytes((PONG, len(payload))) + payload)
        elif opcode == 1:
            said = _said(payload)
            if said.type == "ping":
                self._transport.write(framed(b'{"type":"pong"}'))
            elif said.type == "message":
                again = said.id in self._session.known
                if (seq := self._session.say(said.id, said.text)) <= self._after and again:
                    self._transport.write(framed(self._session.events[seq - 1]))


def unmasked(body: bytes, mask: bytes) -> bytes:
    long = int.from_bytes((mask * (len(body) // 4 + 1))[: len(body)]) ^ int.from_bytes(body)
    return long.to_bytes(len(body))


def framed(payload: bytes) -> bytes:
    length = len(payload)
    head = bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2)
    return head + payload


async def serve(port: int, pace: Pace) -> asyncio.Server:
    """Port 0 takes a free one."""
    echo = Echo(pace)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(echo), "127.0.0.1", port, backlog=4096)


async def _run(port: int, pace: Pace) -> None:
    server = await serve(port, pace)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.echo", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="printed when it listens")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--token-s", type=float, default=0.02)
    options = parser.parse_args()
    many_files(min(SOCKETS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 300))
    uvloop.run(_run(options.port, Pace(options.tokens, options.token_s)))


if __name__ == "__main__":
    main()
