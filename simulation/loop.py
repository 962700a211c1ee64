"""An event loop without a world: virtual time, and an order of events that follows from a seed.

Inside one process callbacks run in the order in which they were scheduled, as asyncio promises;
which process goes next is chance. Each callback takes a few microseconds of virtual time, and
when nothing is left to run, time jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import sys
import warnings
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any, TypeVar, cast

from simulation.process import CURRENT, Handle, Process
from simulation.tasks import Escape, Runaway, SimTask, Sockets

T = TypeVar("T")
STEP_S = 5e-6
STEPS_MAX = 2_000_000


class SimLoop(asyncio.AbstractEventLoop):
    def __init__(self, seed: int | str) -> None:
        self.chance = random.Random(f"loop {seed}")
        self.root = Process("world")
        self.processes: list[Process] = [self.root]
        self.current = self.root
        self.steps = 0
        self.errors: list[dict[str, Any]] = []
        self.sockets: Sockets | None = None
        self._time = 0.0
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()
        self._runnable: list[Process] = []
        self._graves: list[SimTask] = []
        self._closed = False
        self._running = False

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        # The number first: making a task hashes it.
        task = SimTask.__new__(SimTask)
        task.number = next(self._numbers)
        task.process = self.current if context is None else context.get(CURRENT, self.current)
        SimTask.__init__(
            task, coro, loop=self, name=name or f"{task.process.name}-{task.number}", context=context
        )
        return task

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        if context is None:
            context, process = contextvars.copy_context(), self.current
        else:
            process = context.get(CURRENT, self.root)
        handle = Handle(callback, args, context, process)
        self._ready(process, handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        if context is None:
            context, process = contextvars.copy_context(), self.current
        else:
            process = context.get(CURRENT, self.root)
        handle = Handle(callback, args, context, process, when)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_soon(callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed:
            self.errors.append(context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        escape = Escape(f"{func} was to run in a thread.")
        self.call_exception_handler({"message": "A way out of the simulation.", "exception": escape})
        raise escape

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self.sockets is not None
        return self.sockets.listen(protocol_factory, int(port or 0))

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any
    ) -> tuple[Any, Any]:
        assert self.sockets is not None
        return await self.sockets.connect(protocol_factory, int(port))

    # -- processes

    def process(self, name: str) -> Process:
        """A new life."""
        made = Process(name)
        self.processes.append(made)
        return made

    def spawn(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that belongs to `process`."""
        return self.create_task(work, context=process.context.copy())

    def call_in(self, process: Process, callback: Callable[..., Any], *args: Any) -> None:
        self.call_soon(callback, *args, context=process.context)

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it runs again. Its kernel closes what it had open."""
        process.alive = False
        # Kept, so that no `finally` of theirs runs: a killed process cleans nothing up.
        self._graves += self._tasks_of(process)
        process.ready.clear()
        for ending in list(process.endings):
            ending()

    def _tasks_of(self, process: Process | None = None) -> list[SimTask]:
        every = cast(set[SimTask], asyncio.all_tasks(self))
        return sorted((t for t in every if process is None or t.process is process), key=hash)

    def pause(self, process: Process) -> None:
        process.paused = True

    def resume(self, process: Process) -> None:
        process.paused = False
        self._list(process)

    # -- running

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` in the root process until it is done; then everything else is dropped.

        Raises `Runaway`."""
        collecting, hooks = gc.isenabled(), sys.get_asyncgen_hooks()
        gc.disable()  # when the collector runs is not for the seed to say
        sys.set_asyncgen_hooks(finalizer=self._finish_generator)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            task = self.spawn(self.root, main)
            self._run_until(task)
            return task.result()
        finally:
            self._drop()
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            if collecting:
                gc.enable()

    def _run_until(self, task: asyncio.Task[Any]) -> None:
        runnable, chance = self._runnable, self.chance.random
        while not task.done():
            if self._timers and self._timers[0][0] <= self._time:
                self._fire()
            if not runnable:
                self._jump()
                continue
            at = int(chance() * len(runnable))
            process = runnable[at]
            if not process.runnable:
                process.listed = False
                runnable[at] = runnable[-1]
                runnable.pop()
                continue
            self._step(process)

    def _step(self, process: Process) -> None:
        handle = process.ready.popleft()
        self.current = process
        self._time += STEP_S
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Runaway(f"{self.steps} steps, {self._time:.3f} s of virtual time.")
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.call_exception_handler(
                {"message": f"A callback of {process.name} broke.", "exception": error}
            )
        self.current = self.root

    def _jump(self) -> None:
        if not self._timers:
            raise Runaway("Nothing is left to happen, and the world still waits.")
        self._time = max(self._time, self._timers[0][0])

    def _fire(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self._time:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._ready(handle.process, handle)

    def _ready(self, process: Process, handle: Handle) -> None:
        if process.alive:
            process.ready.append(handle)
            self._list(process)

    def _list(self, process: Process) -> None:
        if not process.listed and process.runnable:
            process.listed = True
            self._runnable.append(process)

    # -- the end

    def _finish_generator(self, generator: Any) -> None:
        if not self._closed:
            self.call_soon(self.create_task, generator.aclose())

    def _drop(self) -> None:
        """Everything that still waits is dropped without a word: it belongs to a world that is over."""
        self._closed, self._running = True, False
        heard, sys.unraisablehook = sys.unraisablehook, _hear_nothing
        try:
            for process in self.processes:
                process.alive = False
                process.ready.clear()
            self._timers.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for task in self._tasks_of():
                    task.forget()
                self._graves.clear()
        finally:
            sys.unraisablehook = heard


def _hear_nothing(unraisable: Any) -> None:
    return None
