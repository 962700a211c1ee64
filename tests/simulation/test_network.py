"""The sockets of the simulator, under the code of the links that runs everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from actors.link import Link, Listener, connect
from flotilla.core.errors import Unavailable
from simulation.loop import SimLoop
from simulation.network import Network
from simulation.process import Process
from simulation.weather import Weather
from tests.simulation.worlds import run

ROUGH = Weather(split=1.0, late=0.2)


async def _numbers(method: str, body: bytes) -> AsyncGenerator[bytes]:
    for number in range(int(body)):
        await asyncio.sleep(0.01)
        yield b"%d" % number


async def _serve(loop: SimLoop, name: str = "server") -> tuple[Process, str]:
    process, address = loop.process(name), loop.create_future()

    async def listen() -> None:
        address.set_result(await Listener(_numbers, "t").start())
        await loop.create_future()

    loop.spawn(process, listen())
    return process, await address


async def _read(link: Link, count: int, into: list[bytes]) -> list[bytes]:
    async for item in link.call("count", b"%d" % count):
        into.append(item)
    return into


@pytest.mark.parametrize("seed", range(10))
def test_bytes_that_come_in_pieces_and_late_come_whole_and_in_order(seed: int) -> None:
    async def main(loop: SimLoop, _: Network) -> list[bytes]:
        _, address = await _serve(loop)
        return await _read(await connect(address, "t"), 30, [])

    assert run(main, seed, ROUGH) == [b"%d" % number for number in range(30)]


def test_nobody_listens() -> None:
    async def main(_: SimLoop, __: Network) -> None:
        with pytest.raises(Unavailable):
            await connect("127.0.0.1:1", "t")

    run(main)


def test_the_sockets_of_a_killed_process_break() -> None:
    async def main(loop: SimLoop, _: Network) -> list[bytes]:
        server, address = await _serve(loop)
        link, got = await connect(address, "t"), []
        reading = asyncio.ensure_future(_read(link, 100, got))
        await asyncio.sleep(0.2)
        loop.kill(server)
        with pytest.raises(Unavailable):
            await reading
        assert link.lost
        with pytest.raises(Unavailable):
            await connect(address, "t")
        return got

    got = run(main)
    assert got == [b"%d" % number for number in range(len(got))]
    assert 10 < len(got) < 25


def test_a_partition_holds_bytes_back_until_it_heals() -> None:
    async def main(loop: SimLoop, network: Network) -> list[bytes]:
        _, address = await _serve(loop)
        link, got = await connect(address, "t"), []
        reading = asyncio.ensure_future(_read(link, 20, got))
        await asyncio.sleep(0.05)
        network.cut("world", "server")
        await asyncio.sleep(0.01)
        before = len(got)
        await asyncio.sleep(10)
        assert len(got) == before
        with pytest.raises(Unavailable):
            await connect(address, "t")
        network.heal("world", "server")
        return await reading

    assert len(run(main)) == 20


def test_a_paused_process_answers_when_it_goes_on() -> None:
    async def main(loop: SimLoop, _: Network) -> float:
        server, address = await _serve(loop)
        link = await connect(address, "t")
        loop.pause(server)
        loop.call_later(5, loop.resume, server)
        await _read(link, 1, [])
        return loop.time()

    assert 5 <= run(main) < 5.1


def test_a_reader_that_stops_makes_its_writer_wait() -> None:
    async def big(method: str, body: bytes) -> AsyncGenerator[bytes]:
        for _ in range(200):
            yield bytes(4096)

    async def main(loop: SimLoop, network: Network) -> int:
        sent = 0

        async def counted(method: str, body: bytes) -> AsyncGenerator[bytes]:
            nonlocal sent
            async for item in big(method, body):
                sent += 1
                yield item

        server, address = loop.process("server"), loop.create_future()

        async def listen() -> None:
            address.set_result(await Listener(counted, "t").start())
            await loop.create_future()

        loop.spawn(server, listen())
        link = await connect(await address, "t")
        reading = asyncio.ensure_future(_read(link, 0, []))
        await asyncio.sleep(0.0005)
        network.cut("world", "server")
        await asyncio.sleep(1)
        waited = sent
        network.heal("world", "server")
        assert len(await reading) == 200
        return waited

    assert run(main) < 200


def test_a_connection_that_breaks_tells_both_ends() -> None:
    async def main(loop: SimLoop, network: Network) -> None:
        _, address = await _serve(loop)
        link = await connect(address, "t")
        reading = asyncio.ensure_future(_read(link, 100, []))
        await asyncio.sleep(0.1)
        network.break_one(0)
        with pytest.raises(Unavailable):
            await reading
        again = await connect(address, "t")
        assert len(await _read(again, 3, [])) == 3

    run(main)
