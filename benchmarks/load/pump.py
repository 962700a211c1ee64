"""Sends each turn when its time has come, whatever became of those before it: the open loop."""

from __future__ import annotations

import asyncio
import re

from benchmarks.load.alarm import Alarm
from benchmarks.load.crowd import Crowd
from benchmarks.load.lag import Lag
from benchmarks.load.notes import Turn
from benchmarks.load.orders import Play, Played
from benchmarks.load.schedule import Schedule


class Pump:
    """Plays one phase, or one step of it. `name` makes the ids of its messages unique in the run."""

    def __init__(self, crowd: Crowd, lag: Lag, play: Play, turns: Schedule, *, name: str) -> None:
        self._crowd = crowd
        self._lag = lag
        self._play = play
        self._turns = turns
        self._name = re.sub(r"\W", "_", name)  # phases may be called anything, and ids not
        self._next = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alarm = Alarm(self._tick)

    async def run(self, patience_s: float) -> Played:
        """Returns when the phase's time is up, and its last turns have had `patience_s` to be good."""
        self._crowd.watch.begin(self._play.at)
        try:
            self._tick()
            await self._over
        finally:
            self._alarm.close()
        end = self._play.at + self._play.seconds + patience_s
        await asyncio.sleep(max(0.0, end - self._crowd.notes.clock()))
        watch = self._crowd.watch
        return Played(due=len(self._turns.at_s), good=watch.good, failed=watch.failed)

    def _tick(self) -> None:
        """Everything that is due; then sleeps until the next one is."""
        turns, began, clock = self._turns, self._play.at, self._crowd.notes.clock
        while self._next < len(turns.at_s):
            due = began + turns.at_s[self._next]
            if due > clock():
                return self._alarm.set(due)
            self._send(self._next)
            self._next += 1
        return self._over.set_result(None)

    def _send(self, n: int) -> None:
        number = self._turns.conversation[n]
        intended = self._play.at + self._turns.at_s[n]
        way = self._crowd.way_of(number)
        turn = Turn(f"{self._name}-{n}", self._turns.text[n], intended, self._play.phase, way)
        self._crowd.conversations[number].ask(turn)
        self._crowd.watch.sent += 1
        if not turn.held:
            self._lag.sent(turn.sent - intended)
