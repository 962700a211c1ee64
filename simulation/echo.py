"""A proxy that says requests again: later, out of order, on connections of its own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from weakref import WeakKeyDictionary

from actors import frames
from actors.link import connect
from actors.wire import Frames, Op
from flotilla.core.errors import FlotillaError
from simulation.network import SimTransport
from simulation.nodes import CODECS, TOKEN
from simulation.world import World

AGAIN = 0.3  # of the requests
LATE_S = (0.01, 0.3, 3.0)


class _Cutter(Frames):
    """Cuts what passes by into frames."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        super().__init__()
        self._heard = heard

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        if op is Op.ASK:
            self._heard(body)

    def on_lost(self) -> None:
        return None


class Echo:
    """`hear` is a `simulation.network.Tap`. Only what may be sent again is."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._process = world.loop.process("proxy")
        self._cutters: WeakKeyDictionary[SimTransport, _Cutter] = WeakKeyDictionary()

    def hear(self, transport: SimTransport, piece: bytes) -> None:
        if not transport.port or transport.process is self._process:
            return
        cutter = self._cutters.get(transport)
        if cutter is None:
            cutter = self._cutters[transport] = _Cutter(lambda body: self._heard(transport.port, body))
        cutter.data_received(piece)

    def _heard(self, port: int, body: bytes) -> None:
        method, _, payload = body.partition(b"\0")
        if method != b"ask" or self._chance.random() > AGAIN:
            return
        frame = frames.decode_ask(payload)
        if CODECS[frame.actor.kind].message(frame.message).idempotent:
            late_s = self._chance.choice(LATE_S) * self._chance.random()
            later = self._world.loop.time() + late_s
            context = self._process.context
            self._world.loop.call_at(later, self._say_soon, port, payload, context=context)

    def _say_soon(self, port: int, payload: bytes) -> None:
        self._world.loop.spawn(self._process, self._say(port, payload))

    async def _say(self, port: int, payload: bytes) -> None:
        self._world.say("proxy", f"says a request again, to {port}")
        with contextlib.suppress(FlotillaError):
            link = await connect(f"127.0.0.1:{port}", TOKEN)
            await link.ask("ask", payload, timeout_s=6.0)
