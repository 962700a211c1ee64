"""The loop of the simulator: virtual time, processes that stop, and an order that follows from the seed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from flotilla.core.ids import new_id
from simulation.clock import SimClock
from simulation.loop import SimLoop
from simulation.network import Network
from simulation.sealed import sealed
from simulation.tasks import Escape, Runaway
from tests.simulation.worlds import run


async def _note(into: list[str], *words: str) -> None:
    for word in words:
        into.append(word)
        await asyncio.sleep(0)


def test_time_jumps_and_nobody_waits() -> None:
    async def main(loop: SimLoop, _: Network) -> float:
        await asyncio.sleep(3600)
        return loop.time()

    began = time.process_time()
    assert 3600 <= run(main) < 3600.1
    assert time.process_time() - began < 1


def test_callbacks_of_one_process_keep_their_order() -> None:
    async def main(loop: SimLoop, _: Network) -> list[int]:
        got: list[int] = []
        for number in range(50):
            loop.call_soon(got.append, number)
        await asyncio.sleep(0.001)
        return got

    for seed in range(20):
        assert run(main, seed) == list(range(50))


def test_which_process_goes_first_follows_from_the_seed() -> None:
    async def main(loop: SimLoop, _: Network) -> str:
        got: list[str] = []
        tasks = [loop.spawn(loop.process(name), _note(got, name, name, name)) for name in "abc"]
        await asyncio.gather(*tasks)
        return "".join(got)

    orders = [run(main, seed) for seed in range(60)]
    assert orders == [run(main, seed) for seed in range(60)]
    assert len(set(orders)) > 20


def test_a_killed_process_never_runs_again_and_cleans_nothing_up() -> None:
    async def main(loop: SimLoop, _: Network) -> list[str]:
        got: list[str] = []

        async def work() -> None:
            loop.call_later(0.02, got.append, "timer")
            try:
                await _note(got, "begun")
                await asyncio.sleep(0.02)
                got.append("woke")
            finally:
                got.append("cleaned")

        victim = loop.process("victim")
        loop.spawn(victim, work())
        await asyncio.sleep(0.01)
        loop.kill(victim)
        await asyncio.sleep(1)
        return list(got)

    assert run(main) == ["begun"]


def test_a_child_task_belongs_to_the_process_of_its_parent() -> None:
    async def main(loop: SimLoop, _: Network) -> list[str]:
        got: list[str] = []

        async def child() -> None:
            await asyncio.sleep(0.02)
            got.append("child")

        async def parent() -> None:
            task = asyncio.create_task(child())
            await task

        victim = loop.process("victim")
        loop.spawn(victim, parent())
        await asyncio.sleep(0.01)
        loop.kill(victim)
        await asyncio.sleep(1)
        return got

    assert run(main) == []


def test_a_future_that_another_process_resolves_wakes_its_own_process() -> None:
    async def main(loop: SimLoop, _: Network) -> list[str]:
        got: list[str] = []
        answer = loop.create_future()

        async def asker() -> None:
            got.append(await answer)

        victim = loop.process("victim")
        loop.spawn(victim, asker())
        await asyncio.sleep(0.01)
        loop.pause(victim)
        answer.set_result("late")
        await asyncio.sleep(1)
        assert got == []
        loop.resume(victim)
        await asyncio.sleep(0.01)
        return got

    assert run(main) == ["late"]


def test_a_paused_process_wakes_up_late_with_everything_that_was_due() -> None:
    async def main(loop: SimLoop, _: Network) -> list[float]:
        got: list[float] = []

        async def tick() -> None:
            for _ in range(5):
                await asyncio.sleep(0.1)
                got.append(round(loop.time(), 1))

        zombie = loop.process("zombie")
        loop.spawn(zombie, tick())
        await asyncio.sleep(0.25)
        loop.pause(zombie)
        await asyncio.sleep(10)
        loop.resume(zombie)
        await asyncio.sleep(10)
        return got

    first, second, third, *_ = run(main)
    assert (first, second) == (0.1, 0.2)
    assert third > 10


def test_a_wall_clock_jumps_and_the_monotonic_one_does_not() -> None:
    async def main(loop: SimLoop, _: Network) -> None:
        process = loop.process("a")
        clock, other = SimClock(loop, process), SimClock(loop, loop.process("b"))
        process.wall_shift_s = -3600
        assert (other.now() - clock.now()).total_seconds() == 3600
        assert clock.monotonic() == other.monotonic()

    run(main)


def test_timeouts_and_groups_of_asyncio_work() -> None:
    async def main(loop: SimLoop, _: Network) -> str:
        async def wait(seconds: float) -> None:
            await asyncio.sleep(seconds)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await wait(2)
        assert 1 <= loop.time() < 1.1
        async with asyncio.TaskGroup() as group:
            for seconds in (1, 2, 3):
                group.create_task(wait(seconds))
        assert 4 <= loop.time() < 4.1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(5), 1)
        return "done"

    assert run(main) == "done"


def test_a_generator_that_is_dropped_is_closed() -> None:
    async def main(loop: SimLoop, _: Network) -> list[str]:
        got: list[str] = []

        async def numbers() -> AsyncGenerator[int]:
            try:
                while True:
                    yield 1
            finally:
                got.append("closed")

        async def take_one() -> None:
            async for _ in numbers():
                return

        await take_one()
        await asyncio.sleep(0.01)
        async with aclosing(numbers()) as opened:
            await anext(opened)
        return got

    assert run(main) == ["closed", "closed"]


def test_a_world_in_which_nothing_can_happen_any_more_ends() -> None:
    async def main(loop: SimLoop, _: Network) -> None:
        await loop.create_future()

    with pytest.raises(Runaway):
        run(main)


def test_what_breaks_unseen_is_kept() -> None:
    async def main(loop: SimLoop, _: Network) -> list[str]:
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        return [str(context["exception"]) for context in loop.errors]

    assert run(main) == ["division by zero"]


# -- no way out


def test_chance_and_time_follow_from_the_seed() -> None:
    def drawn(seed: int) -> list[object]:
        loop = SimLoop(seed)
        with sealed(loop, seed):
            return [new_id("s"), random.random(), os.urandom(4), uuid.uuid4(), time.time(), time.monotonic()]

    assert drawn(7) == drawn(7) != drawn(8)
    before = new_id("s")
    assert before != new_id("s")


def test_threads_sockets_and_sleep_are_refused() -> None:
    import socket
    import threading

    async def main(loop: SimLoop, _: Network) -> None:
        with sealed(loop, 1):
            for escape in (
                lambda: time.sleep(1),
                lambda: threading.Thread(target=print).start(),
                lambda: socket.socket().connect(("127.0.0.1", 1)),
            ):
                with pytest.raises(Escape):
                    escape()
        with pytest.raises(Escape):
            await asyncio.to_thread(print)

    run(main)
    threading.Thread(target=secrets.token_hex).start()
