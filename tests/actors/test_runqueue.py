"""Whose turn it is."""

from __future__ import annotations

import asyncio

from actors.runqueue import STEPS_PER_SLICE, RunQueue


class Doer:
    def __init__(self, name: str, todo: int, done: list[str]) -> None:
        self.name, self.todo, self.done = name, todo, done

    def step(self) -> bool:
        self.done.append(self.name)
        self.todo -= 1
        return self.todo > 0


async def test_a_noisy_actor_waits_behind_all_others_after_each_step() -> None:
    done: list[str] = []
    queue = RunQueue()
    for doer in (Doer("noisy", 100, done), Doer("q1", 1, done), Doer("q2", 2, done)):
        queue.add(doer)
    await _emptied(queue)
    assert done[:5] == ["noisy", "q1", "q2", "noisy", "q2"] and done.count("noisy") == 100


async def test_after_a_slice_the_loop_gets_its_turn() -> None:
    done: list[str] = []
    queue = RunQueue()
    queue.add(Doer("noisy", 10 * STEPS_PER_SLICE, done))
    seen: list[int] = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert 0 < seen[-1] <= 3 * STEPS_PER_SLICE
    await _emptied(queue)
    assert len(done) == 10 * STEPS_PER_SLICE


async def _emptied(queue: RunQueue) -> None:
    while len(queue):
        await asyncio.sleep(0)
