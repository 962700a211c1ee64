"""Sockets in memory: late, cut into pieces, stalled by partitions, and broken with what was under way.

The bytes of one direction of one connection arrive in order, as TCP promises; nothing else is
promised. A partition holds bytes back until it heals. A process that is killed loses its sockets:
what its kernel had taken may still arrive, or be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from simulation.loop import SimLoop
from simulation.process import Process
from simulation.weather import Weather

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
FIRST_PORT = 40_000


Protocols = Callable[[], asyncio.BaseProtocol]
Tap = Callable[["SimTransport", bytes], None]
"""Sees what is written, as it is written."""


class Network:
    def __init__(self, loop: SimLoop, weather: Weather) -> None:
        self.loop = loop
        self.weather = weather
        self.taps: list[Tap] = []
        self._servers: dict[int, SimServer] = {}
        self._transports: dict[SimTransport, None] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._ports = FIRST_PORT

    # -- what a loop offers

    def listen(self, protocols: Protocols, port: int) -> SimServer:
        if not port:
            self._ports += 1
            port = self._ports
        if port in self._servers:
            raise OSError(98, "Address already in use")
        process = self.loop.current
        server = self._servers[port] = SimServer(self, process, protocols, port)
        process.endings[server.close] = None
        return server

    def closed(self, server: SimServer) -> None:
        if self._servers.get(server.port) is server:
            del self._servers[server.port]

    async def connect(
        self, protocols: Protocols, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Raises `ConnectionRefusedError`; across a partition it takes until that heals."""
        here = self.loop.current
        await asyncio.sleep(self.latency())
        server = self._servers.get(port)
        while server is not None and self.is_cut(here, server.process):
            await asyncio.sleep(0.1)
            server = self._servers.get(port)
        if server is None:
            raise ConnectionRefusedError(111, f"Connect call failed: nothing listens at {port}")
        near, far = SimTransport(self, here, port), SimTransport(self, server.process)
        near.peer, far.peer = far, near
        near.protocol = protocols()
        self.loop.call_in(server.process, far.begin, server.protocols)
        near.protocol.connection_made(near)
        return near, near.protocol

    # -- faults

    def latency(self) -> float:
        chance, (low, high) = self.loop.chance, self.weather.latency_s
        late = self.weather.late_s if chance.random() < self.weather.late else 0.0
        return low + (high - low) * chance.random() + late

    def cut(self, one: str, other: str) -> None:
        """No byte passes between the processes of these names until it is healed."""
        self._cuts.add((one, other))

    def heal(self, one: str, other: str) -> None:
        self._cuts.discard((one, other))
        for transport in list(self._transports):
            transport.pump()
            transport.peer.pump()  # it may be closed already, with its end still under way

    def heal_all(self) -> None:
        for one, other in sorted(self._cuts):
            self.heal(one, other)

    def is_cut(self, one: Process, other: Process) -> bool:
        cuts = self._cuts
        return bool(cuts) and ((one.name, other.name) in cuts or (other.name, one.name) in cuts)

    def opened(self, transport: SimTransport) -> None:
        self._transports[transport] = None
        transport.process.endings[transport.die] = None

    def gone(self, transport: SimTransport) -> None:
        self._transports.pop(transport, None)
        transport.process.endings.pop(transport.die, None)

    def break_one(self, number: int) -> None:
        """Breaks one of the connections that are open, with what is under way on it."""
        if self._transports:
            list(self._transports)[number % len(self._transports)].reset()


class _Socket:
    def __init__(self, port: int) -> None:
        self._port = port

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


class SimServer:
    """What `asyncio.Server` is to its users."""

    def __init__(self, network: Network, process: Process, protocols: Protocols, port: int) -> None:
        self.process = process
        self.protocols = protocols
        self.port = port
        self.sockets = [_Socket(port)]
        self._network = network

    def close(self) -> None:
        self._network.closed(self)

    async def wait_closed(self) -> None:
        return None


class SimTransport(asyncio.Transport):
    """One end of a connection. What it writes waits in its pipe until it arrives at the other end."""

    peer: SimTransport

    def __init__(self, network: Network, process: Process, port: int = 0) -> None:
        super().__init__()
        self.process = process
        self.port = port  # that of the server, at the end that has connected to it; else 0
        self.protocol: Any = None
        self._network = network
        self._loop = network.loop
        self._pipe: deque[tuple[float, bytes | None]] = deque()  # when it is due; None for the end
        self._waiting_bytes = 0
        self._paused_protocol = False
        self._pumping = False
        self._reading = True
        self._closing = False
        self._lost = False
        self._due = 0.0
        network.opened(self)

    def begin(self, protocols: Protocols) -> None:
        """Runs in the server's process: the connection is accepted."""
        if self._lost:
            return
        self.protocol = protocols()
        self.protocol.connection_made(self)
        self.peer.pump()

    # -- what a protocol may ask of it

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._lost or not data:
            return
        piece = bytes(data)
        for tap in self._network.taps:
            tap(self, piece)
        chance = self._loop.chance
        if len(piece) > 1 and chance.random() < self._network.weather.split:
            at = 1 + int(chance.random() * (len(piece) - 1))
            self._put(piece[:at])
            piece = piece[at:]
        self._put(piece)
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._paused_protocol:
            self._paused_protocol = True
            self.protocol.pause_writing()

    def close(self) -> None:
        """What is under way still gets there."""
        if not self._closing:
            self._end()

    def abort(self) -> None:
        self.reset()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer.pump()

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    # -- the pipe

    @property
    def takes(self) -> bool:
        """Whether anything may arrive at this end now."""
        return self._reading and self.protocol is not None

    def _put(self, piece: bytes | None) -> None:
        self._due = max(self._due, self._loop.time() + self._network.latency())
        self._pipe.append((self._due, piece))
        self._waiting_bytes += len(piece or b"")
        self.pump()

    def pump(self) -> None:
        """Sees to it that the first piece of the pipe arrives in its time."""
        if self._pumping or not self._pipe or not self.peer.takes:
            return
        if self._network.is_cut(self.process, self.peer.process):
            return
        self._pumping = True
        self._loop.call_at(self._pipe[0][0], self._arrive, context=self.peer.process.context)

    def _arrive(self) -> None:
        """Runs in the other end's process."""
        self._pumping = False
        if not self._pipe or not self.peer.takes or self._network.is_cut(self.process, self.peer.process):
            return None
        _, piece = self._pipe.popleft()
        if piece is None:
            return self.peer.hang_up()
        self._waiting_bytes -= len(piece)
        if self._paused_protocol and self._waiting_bytes <= LOW_WATER_BYTES:
            self._paused_protocol = False
            self._loop.call_in(self.process, self.protocol.resume_writing)
        if not self.peer.is_closing():
            self.peer.protocol.data_received(piece)
        return self.pump()

    # -- its end

    def reset(self) -> None:
        """Breaks the connection: what was under way from here is lost, both ends hear of it."""
        if not self._lost:
            self._drop()
            self._end()

    def _end(self) -> None:
        self._closing = True
        self._put(None)
        self._loop.call_in(self.process, self._lose)

    def die(self) -> None:
        """Its process was killed. What the kernel has taken may still get there."""
        self._network.gone(self)
        if not self._lost:
            self._lost = True
            if self._loop.chance.random() < self._network.weather.lost_with_death:
                self._drop()
            self._put(None)

    def hang_up(self) -> None:
        """The other end is gone."""
        self._drop()
        self._lose()

    def _drop(self) -> None:
        self._pipe.clear()
        self._waiting_bytes = 0

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._network.gone(self)
        if self.protocol is not None:
            self.protocol.connection_lost(None)
