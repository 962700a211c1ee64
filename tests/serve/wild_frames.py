"""Bytes for a WebSocket that no client of ours would send: frames of RFC 6455 with anything wrong, handshakes
with anything wrong, and JSON that is nearly a frame of the wire."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

KEY = base64.b64encode(b"sixteen bytes !!").decode()
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """One frame as a client sends it, and without a mask if `mask` is empty."""
    return head(opcode, len(payload), fin=fin, rsv=rsv, masked=bool(mask)) + mask + masked(payload, mask)


def head(
    opcode: int, length: int, *, fin: bool = True, rsv: int = 0, masked: bool = True, wide: int = 0
) -> bytes:
    """Of a frame of that length, which may be a lie; `wide` (1 or 2) says it in more bytes than it needs."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    bit = 0x80 if masked else 0
    if length > 0xFFFF or wide == 2:
        return struct.pack("!BBQ", first, bit | 127, length)
    if length > 125 or wide == 1:
        return struct.pack("!BBH", first, bit | 126, length)
    return struct.pack("!BB", first, bit | length)


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else payload


def text(value: Any) -> bytes:
    """A text frame with this as JSON; lone surrogates go as their escapes."""
    return frame(TEXT, json.dumps(value).encode())


def fragments(payload: bytes, cuts: Sequence[int], between: bytes = b"") -> bytes:
    """A text in pieces, with other frames between them."""
    places = [0, *sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    pieces = [payload[a:b] for a, b in pairwise(places)]
    sent = [
        frame(TEXT if not at else CONT, piece, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)
    ]
    return between.join(sent)


# -- handshakes


def handshake(
    path: str,
    *,
    method: str = "GET",
    protocol: str = "HTTP/1.1",
    host: str = "fleet",
    credential: str = "dev",
    headers: Sequence[tuple[str, str]] = (),
    without: str = "",
) -> bytes:
    """A request for a WebSocket, with further headers, without the one of that name."""
    own = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
    own += [("Authorization", f"Bearer {credential}")] if credential else []
    lines = [f"{name}: {value}" for name, value in [*own, *headers] if name != without]
    return "\r\n".join([f"{method} {path} {protocol}", *lines, "", ""]).encode("latin-1", "replace")


latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
header_names = st.sampled_from(
    [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Authorization",
        "Origin",
        "Cookie",
        "Content-Length",
        "X-Request-Id",
        "traceparent",
    ]
)
header_values = st.one_of(
    latin,
    st.sampled_from(
        [
            "",
            "websocket",
            "Upgrade, keep-alive",
            "keep-alive",
            "13",
            "8",
            "13, 8",
            KEY,
            KEY + "=",
            "c2hvcnQ=",
            "bearer.dev",
            "bearer.dev, bearer.dev",
            "bearer.",
            "a" * 3000,
            "permessage-deflate; client_max_window_bits=99",
            ",;=",
            '"',
            "Bearer wrong",
            "Bearer a.b.c",
            "Bearer \xff\xfe",
            "Basic ZGV2",
            "dev\r\nX-Evil: 1",
            "dev\nX-Evil: 1",
        ]
    ),
)
places = st.one_of(
    st.sampled_from(
        [
            "",
            "?after=0",
            "?after=99",
            "?after=x",
            "?after=",
            "?after=1&after=2",
            "?after=-1",
            "?after=0:9",
            "?x",
            f"?after=1:{'9' * 29}",
            f"?after={'9' * 32}",
            "?after=١",
            "?after=%ff",
            "?after=%00",
            "?" + "&" * 500,
        ]
    ),
    st.text(st.sampled_from("0123456789:;&=%after?#"), max_size=12).map("?".__add__),
)


def paths(session: str) -> st.SearchStrategy[str]:
    right = f"/v1/sessions/{session}/ws"
    wrong = [
        "/v1/sessions/../sessions/x/ws",
        "/v1/sessions/%2e%2e%2f/ws",
        f"/v1/sessions/{session}%00/ws",
        "/v1/sessions/%ff/ws",
        "/v1/sessions/a%20b/ws",
        f"//{session}/ws",
        "//[/v1/sessions/x/ws",
        "/v1/sessions/x/ws#a",
        f"http://fleet/v1/sessions/{session}/ws",
        "http://[::1/v1/sessions/x/ws",
        "/v1/sessions/none/ws",
        "/v1/sessions/" + "x" * 5000 + "/ws",
        "*",
        "/",
        "/" + "a" * 9000,
    ]
    return st.one_of(places.map(right.__add__), st.sampled_from(wrong), st.just(right))


def handshakes(session: str) -> st.SearchStrategy[bytes]:
    mutated = st.builds(
        handshake,
        paths(session),
        method=st.sampled_from(["GET"] * 6 + ["get", "POST", "G\x00T", ""]),
        protocol=st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/2", "http/1.1", ""]),
        host=st.sampled_from(["fleet", "", "[", "a b", "\xff", "fleet:99999"]),
        credential=st.sampled_from(["dev", "dev", "dev", "", "wrong", "\xff", "a.b.c", "dev dev"]),
        headers=st.lists(st.tuples(header_names, header_values), max_size=3)
        | st.just([("X-A", "a")] * 200)
        | st.just([("X-A", "a" * 9000)]),
        without=st.sampled_from(
            ["", "", "", "Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]
        ),
    )
    return st.one_of(mutated, st.builds(changed, mutated, st.integers(0, 400), st.binary(max_size=3)))


def changed(data: bytes, at: int, more: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + more + data[at + 1 :]


# -- frames

odd_texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "\x00", "\ud83d", "\udc00x", "c-1", " ", "x" * 300])
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | odd_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=6,
)
nearly_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["message"] * 3 + ["interrupt", "typing", "ping", "nonsense", ""]) | anything},
    optional={
        "id": st.sampled_from(["c-1", "c-2", "c-3", "bad id", "x" * 300]) | odd_texts | anything,
        "text": st.sampled_from(["Hello", "Grüße 👋"]) | odd_texts | anything,
        "while_talking": st.sampled_from(["wait", "replace", "reject", "x"]) | anything,
        "seq": st.integers(),
        "extra": anything,
    },
)
DEEP = b"[" * 20_000
json_texts = st.one_of(
    st.one_of(nearly_messages, anything).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [DEEP, b'{"a":' * 5_000, b'{"type":"ping","type":"message"}', b'{"type":"ping"}x', b"NaN", b""]
    )
    | st.sampled_from(
        [b'{"type": "message", "id": "a", "text": "\xff"}', b"\xed\xa0\x80", b"\xef\xbb\xbf{}"]
    ),
    st.binary(max_size=60),
)
closes = st.one_of(
    st.sampled_from([b"", b"\x03", struct.pack("!H", 1000) + b"\xff", struct.pack("!H", 1000) + b"x" * 123]),
    st.integers(0, 65535).map(lambda code: struct.pack("!H", code)),
)
controls = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=126), fin=st.booleans())
good_frames = json_texts.map(lambda payload: frame(TEXT, payload))
wild_frames = st.one_of(
    st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=130),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
        mask=st.sampled_from([MASK, MASK, b"\0\0\0\0", b""]),
    ),
    st.builds(
        head,
        st.integers(0, 15),
        st.sampled_from([0, 125, 126, 65535, 65536, 2**19, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]),
        fin=st.booleans(),
        masked=st.booleans(),
        wide=st.integers(0, 2),
    ),
    st.binary(max_size=40),
)
streams = st.lists(
    st.one_of(
        good_frames,
        good_frames,
        good_frames,
        controls,
        st.builds(fragments, json_texts, st.lists(st.integers(0, 200), max_size=5), controls),
        closes.map(lambda payload: frame(CLOSE, payload)),
        st.builds(changed, good_frames, st.integers(0, 60), st.binary(max_size=3)),
        wild_frames,
    ),
    max_size=8,
).map(b"".join)
