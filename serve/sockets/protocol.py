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
from websockets.http11 import Response as HttpAnswer
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.typing import BytesLike

from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS
from serve import auth
from serve.request_ids import HEADER, id_of
from serve.sockets import codes
from serve.sockets.conversation import Conversation
from serve.sockets.open import Sockets

_PATH = re.compile(r"^/v1/sessions/([^/]+)/ws$")
_quiet = logging.getLogger("flotilla.sockets")
_quiet.setLevel(logging.CRITICAL)


class SocketProtocol(asyncio.Protocol):
    """What uvicorn makes for each upgrade. `heard_at` and `stuck_at` are for whoever looks for dead ones;
    `request_id` is in its answer and in every error frame."""

    __slots__ = (
        "_binary",
        "_conversation",
        "_deaf",
        "_full",
        "_held",
        "_part",
        "_sockets",
        "_transport",
        "_uvicorns",
        "_wire",
        "heard_at",
        "request_id",
        "stuck_at",
    )

    def __init__(self, sockets: Sockets, server_state: Any) -> None:
        self._sockets = sockets
        self._uvicorns: set[Any] = server_state.connections  # those that it waits for when it ends
        self._transport: asyncio.Transport | None = None
        self._wire: Protocol = ServerProtocol(select_subprotocol=_subprotocol, logger=_quiet)
        self._conversation: Conversation | None = None
        self._held: list[str | None] | None = []  # what is heard before the conversation has begun
        self._part: bytearray | None = None  # of a message in fragments, as far as it has come
        self._binary = False  # what those fragments are
        self._full = False  # enough was heard for now
        self._deaf = False  # we have closed: what still comes is not heard
        self.heard_at = sockets.now()
        self.request_id = ""
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
        self._pace()

    def resume_writing(self) -> None:
        self.stuck_at = None
        self._pace()
        if self._conversation is not None:
            self._conversation.caught_up()

    def shutdown(self) -> None:
        """uvicorn's word that the process is to end."""
        self.close(codes.SERVICE_RESTART, "This gateway is going. Come back.")

    # -- the handshake

    def _greet(self, request: Request) -> None:
        self.request_id = id_of(next(iter(request.headers.get_all(HEADER)), ""))
        wire = cast(ServerProtocol, self._wire)
        path, query = _target(request.path)
        found = _PATH.match(path)
        if found is None:
            return self._answer(wire.reject(404, "There is no WebSocket here.\n"))
        if refusal := self._sockets.refusal():
            response = wire.reject(503, refusal + "\n")
            response.headers["Retry-After"] = "1"
            return self._answer(response)
        response = wire.accept(request)
        self._answer(response)
        if response.status_code == 101:
            subprotocol = response.headers.get("Sec-WebSocket-Protocol")
            # The handshake's half is large and has done its work.
            self._wire = Protocol(SERVER, state=OPEN, max_size=2 * LIMITS.body_bytes_max, logger=_quiet)
            self._write(wire.data_to_send())
            credential = _credential(request.headers, subprotocol)
            after = parse_qs(query, keep_blank_values=True).get("after", [None])[-1]
            self._sockets.spawn(self._begin(credential, unquote(found[1]), after))
        return None

    def _answer(self, response: HttpAnswer) -> None:
        response.headers[HEADER] = self.request_id
        cast(ServerProtocol, self._wire).send_response(response)

    async def _begin(self, credential: str | None, session: str, after: str | None) -> None:
        """The browser can't see the status of a refused handshake, so the reason comes as a frame."""
        doors = self._sockets.doors
        try:
            who = await auth.who_is(doors, credential)
            auth.check_scope(who, "conversations:write")
            conversation = Conversation(doors, who, who.actor(session), self)
            await conversation.begin(after)
        except FlotillaError as error:
            self.send(codes.error_frame(error, self.request_id))
            return self.close(codes.of(error), error.title)
        except Exception as error:  # nobody is left on a socket that nobody listens to
            doors.log.error("socket.not_begun", session=session, exc_info=error)
            return self.close(codes.BROKEN, "The conversation could not begin.")
        held, self._held, self._conversation = self._held, None, conversation
        if self._deaf or self._transport is None or self._transport.is_closing():
            return conversation.over()
        self.go_on()
        for text in held or ():
            conversation.hear(text)
        return None

    # -- frames

    def _on_frame(self, frame: Frame) -> None:
        if self._deaf or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        data = frame.data
        if not frame.fin or self._part is not None:
            # In one piece: empty fragments cost nothing to send, and must cost nothing to keep.
            data = self._part = bytearray() if self._part is None else self._part
            data += frame.data
        if frame.fin:
            self._part = None
            self._on_message(data)

    def _on_message(self, data: BytesLike) -> None:
        if self._binary:
            return self._hear(None)
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError:
            self._deaf = True
            return self._wire.fail(codes.BAD_TEXT, "This text is no UTF-8.")
        return self._hear(text)

    def _hear(self, text: str | None) -> None:
        if self._conversation is not None:
            self._conversation.hear(text)
        elif self._held is not None:
            self._held.append(text)
            self.hold()  # who has not shown a key yet is not read on
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
        self._deaf, self._full = True, False
        self._pace()
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
        self._full = True
        self._pace()

    def go_on(self) -> None:
        self._full = False
        self._pace()

    def _pace(self) -> None:
        """Who doesn't read is not read either: each ping would add a pong to what waits for it."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._full or self.stuck_at is not None:
            self._transport.pause_reading()
        else:
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


def _target(given: str) -> tuple[str, str]:
    """The path and the query; none of what is no URL."""
    try:
        target = urlsplit(given)
    except ValueError:
        return "", ""
    return target.path, target.query


def _subprotocol(_: object, offered: Any) -> Any:
    return next((name for name in offered if name.startswith(auth.SUBPROTOCOL)), None)


def _credential(headers: Headers, subprotocol: str | None) -> str | None:
    scheme, _, value = next(iter(headers.get_all("Authorization")), "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return subprotocol.removeprefix(auth.SUBPROTOCOL) if subprotocol else None
