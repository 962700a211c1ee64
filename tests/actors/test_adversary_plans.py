"""A plan whose actor leaves while the board can't be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from actors.residents.model import PlanWall
from flotilla.core.errors import Unavailable
from flotilla.core.versions import Plan
from flotilla.stores.memory_boards import MemoryPlanBoard
from tests.actors.membership import LOG, Hands


class Board(MemoryPlanBoard):
    down = True

    def __init__(self) -> None:
        super().__init__()
        self.tried = asyncio.Event()

    async def publish(self, plan: Plan) -> None:
        self.tried.set()
        if self.down:
            raise Unavailable("The board is down.")
        await super().publish(plan)


async def test_a_plan_hangs_there_though_its_actor_left_in_the_middle_of_hanging_it_up() -> None:
    """Else nobody on this host would ever hang up another one of that model, and its swap would wait for ever."""
    board, spawned = Board(), list[asyncio.Task[None]]()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        spawned.append(asyncio.create_task(work))

    wall = PlanWall(board, Hands(), LOG, spawn)
    hanging = asyncio.create_task(wall.hang(Plan(model="m", revision=1)))
    await board.tried.wait()
    hanging.cancel()
    await asyncio.wait([hanging])
    board.down = False
    async with asyncio.timeout(5):
        await wall.hang(Plan(model="m", revision=2))
        await wall.hung("m")
    assert (await board.plans())["m"].revision == 2
    for task in spawned:
        await task
