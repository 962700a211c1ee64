"""One connection: bytes in and out, and RFC 6455 between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol

from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS
from serve import auth
from serve.sockets import codes
from serve.sockets.conversation import Conversation
from serve.sockets.open import Sockets

_PATH = re.compile(r"^/v1/sessions/([^/]+)/ws$")
_quiet = logging.getLogger("flotilla.sockets")
_quiet.setLevel(logging.CRITICAL)


class SocketProtocol(asyncio.Protocol):
    """What uvicorn makes for each upgrade. `heard_at` and `stuck_at` are for whoever looks for dead ones."""

    __slots__ = (
        "_conversation",
        "_held",
        "_parts",
        "_sockets",
        "_transport",
        "_uvicorns",
        "_wire",
        "heard_at",
        "stuck_at",
    )

    def __init__(self, sockets: Sockets, server_state: Any) -> None:
        self._sockets = sockets
        self._uvicorns: set[Any] = server_state.connections  # those that it waits for when it ends
        self._transport: asyncio.Transport | None = None
        self._wire: Protocol = ServerProtocol(select_subprotocol=_subprotocol, logger=_quiet)
        self._conversation: Conversation | None = None
        self._held: list[str | None] | None = []  # what is heard before the conversation has begun
        self._parts: list[Frame] | None = None  # of a message in fragments
        self.heard_at = sockets.now()
        self.stuck_at: float | None = None  # since when the reader has not read

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of another class with the same methods.
        self._transport = cast(asyncio.Transport, transport)
        self._sockets.add(self)
        self._uvicorns.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets.discard(self)
        self._uvicorns.discard(self)
        if self._conversation is not None:
            self._conversation.over()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._sockets.now()
        self._wire.receive_data(data)
        for event in self._wire.events_received():
            if isinstance(event, Request):
                self._greet(event)
            elif isinstance(event, Frame):
                self._on_frame(event)
        self._flush()

    def eof_received(self) -> None:
        self._wire.receive_eof()
        self._flush()

    def pause_writing(self) -> None:
        self.stuck_at = self._sockets.now()

    def resume_writing(self) -> None:
        self.stuck_at = None
        if self._conversation is not None:
            self._conversation.caught_up()

    def shutdown(self) -> None:
        """uvicorn's word that the process is to end."""
        self.close(codes.SERVICE_RESTART, "This gateway is going. Come back.")

    # -- the handshake

    def _greet(self, request: Request) -> None:
        wire = cast(ServerProtocol, self._wire)
        target = urlsplit(request.path)
        found = _PATH.match(target.path)
        if found is None:
            return wire.send_response(wire.reject(404, "There is no WebSocket here.\n"))
        if refusal := self._sockets.refusal():
            response = wire.reject(503, refusal + "\n")
            response.headers["Retry-After"] = "1"
            return wire.send_response(response)
        response = wire.accept(request)
        wire.send_response(response)
        if response.status_code == 101:
            subprotocol = response.headers.get("Sec-WebSocket-Protocol")
            # The handshake's half is large and has done its work.
            self._wire = Protocol(SERVER, state=OPEN, max_size=2 * LIMITS.body_bytes_max, logger=_quiet)
            self._write(wire.data_to_send())
            credential = _credential(request.headers, subprotocol)
            after = parse_qs(target.query, keep_blank_values=True).get("after", [None])[-1]
            self._sockets.spawn(self._begin(credential, unquote(found[1]), after))
        return None

    async def _begin(self, credential: str | None, session: str, after: str | None) -> None:
        """The browser can't see the status of a refused handshake, so the reason comes as a frame."""
        doors = self._sockets.doors
        try:
            who = await auth.who_is(doors, credential)
            auth.check_scope(who, "conversations:write")
            conversation = Conversation(doors, who, who.actor(session), self)
            await conversation.begin(after)
        except FlotillaError as error:
            self.send(codes.error_frame(error))
            return self.close(codes.of(error), error.title)
        held, self._held, self._conversation = self._held, None, conversation
        if self._transport is None or self._transport.is_closing():
            return conversation.over()
        for text in held or ():
            conversation.hear(text)
        return None

    # -- frames

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if not frame.fin or self._parts is not None:
                self._parts = [*(self._parts or ()), frame]
            if frame.fin:
                self._on_message(self._parts or [frame])
                self._parts = None

    def _on_message(self, parts: list[Frame]) -> None:
        if parts[0].opcode is not Opcode.TEXT:
            return self._hear(None)
        try:
            text = b"".join(part.data for part in parts).decode()
        except UnicodeDecodeError:
            return self._wire.fail(codes.BAD_TEXT, "This text is no UTF-8.")
        return self._hear(text)

    def _hear(self, text: str | None) -> None:
        if self._conversation is not None:
            self._conversation.hear(text)
        elif self._held is not None:
            self._held.append(text)
            if len(self._held) > LIMITS.socket_inbox_max:
                self.close(codes.POLICY, "Wait for the first event before you say so much.")

    # -- the conversation's side

    def send(self, json: bytes) -> bool:
        try:
            self._wire.send_text(json)
        except InvalidState:  # closed, or closing
            return True
        self._flush()
        return self.stuck_at is None

    def close(self, code: int, reason: str = "") -> None:
        with contextlib.suppress(InvalidState):
            self._wire.send_close(code, reason[:100])
        self._flush()
        self._sockets.closing(self)

    def ping(self) -> None:
        """So that one whose other end has vanished is noticed."""
        if self._wire.state is OPEN:
            self._wire.send_ping(b"")
            self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _flush(self) -> None:
        self._write(self._wire.data_to_send())

    def _write(self, pieces: list[bytes]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for piece in pieces:
            if piece:
                transport.write(piece)
            else:
                transport.close()  # behind what is written


def _subprotocol(_: object, offered: Any) -> Any:
    return next((name for name in offered if name.startswith(auth.SUBPROTOCOL)), None)


def _credential(headers: Headers, subprotocol: str | None) -> str | None:
    scheme, _, value = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return subprotocol.removeprefix(auth.SUBPROTOCOL) if subprotocol else None
