"""An event loop without time or sockets: it sleeps by setting its clock forward, and a seed decides what runs next.

Callbacks that are ready at the same moment run in a drawn order: many seeds explore many interleavings, and one seed
always gives the same one. When a `Life` ends, its coroutines stop where they are: no `finally` and no `except` runs, as
in a killed process.
"""

import asyncio
import contextvars
import heapq
import inspect
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

STEPS_MAX = 12_000_000
"""Most callbacks that one `run` carries out before it is taken to go round in circles. A task that was leased by a
clock 40,000 seconds ahead is waited for, at more than a hundred callbacks a second."""

T = TypeVar("T")


class Life:
    """The lifetime of some coroutines. None of them runs once it has `ended`, or from `frozen_since` until
    `frozen_until` (seconds)."""

    def __init__(self) -> None:
        self.ended = False
        self.frozen_since = 0.0
        self.frozen_until = 0.0

    def freeze(self, now: float, seconds: float) -> None:
        """Freeze these coroutines from now on for so long, and no shorter than they are frozen already."""
        if now > self.frozen_until:
            self.frozen_since = now
        self.frozen_until = max(self.frozen_until, now + seconds)


LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("tillway_testing_life", default=None)
"""The life of the running coroutine; a task inherits it from the task that creates it."""


class Stuck(AssertionError):
    """The awaited task cannot finish: nothing is left to run, or the loop ran more callbacks than its bound."""


class _Handle:
    __slots__ = ("args", "callback", "cancelled_", "context", "when_")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context, when: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when_ = when
        self.cancelled_ = False

    def cancel(self) -> None:
        self.cancelled_ = True

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self.when_


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as coroutines, tasks, futures and sleeping need. Seconds count from 0."""

    def __init__(self, random: Random) -> None:
        self._draw = random.random
        self._now = 0.0
        self._ready: list[_Handle] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timers_made = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._closed = False
        self.steps = 0
        self._failures: list[BaseException] = []
        self._dropped: set[Any] = set()
        """The arguments of callbacks that an ended life dropped: a finished task, where they would have retrieved its
        exception."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until `main` is done. Raises `Stuck` where it never will be."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._step()
            return task.result()
        finally:
            asyncio._set_running_loop(None)

    def unheard(self) -> list[BaseException]:
        """Return the exceptions of callbacks, and of finished tasks that no code retrieved. A task whose life ended
        between its end and the callback that hears of it is left out."""
        of_tasks = [
            task.exception()
            for task in self._tasks
            if task.done()
            and not task.cancelled()
            and getattr(task, "_log_traceback", False)
            and task not in self._dropped
        ]
        return [*self._failures, *(exception for exception in of_tasks if exception is not None)]

    def _step(self) -> None:
        ready = self._ready
        if not ready:
            self._set_forward()
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"{STEPS_MAX} steps, and no end at {self._now:.3f} s")
        place = int(self._draw() * len(ready)) if len(ready) > 1 else 0
        handle = ready[place]
        ready[place] = ready[-1]
        ready.pop()
        if handle.cancelled_:
            return
        life = handle.context.get(LIFE)
        if life is not None:
            if life.ended:
                self._dropped.update(argument for argument in handle.args if isinstance(argument, asyncio.Future))
                return
            if life.frozen_until > self._now:
                self._at(life.frozen_until, handle)
                return
        handle.context.run(handle.callback, *handle.args)

    def _set_forward(self) -> None:
        """Set the clock to the next timer, and make the callbacks ready that are due then."""
        timers = self._timers
        while timers and timers[0][2].cancelled_:
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"nothing is left to run at {self._now:.3f} s")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(timers)[2])

    def _at(self, when: float, handle: _Handle) -> None:
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))

    # The methods that asyncio calls on a loop. Their types are simpler than the original's: those tie a callback to its
    # arguments, and return handles that only a real loop can have.

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # See above.
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, self._now)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # See above.
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        self._at(when, handle)
        return handle

    def call_later(  # type: ignore[override]  # See above.
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # See above.
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        task = asyncio.Task(coro, loop=self, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Tasks of an ended life are destroyed while pending, on purpose: do not log that.
        exception = context.get("exception")
        if not self._closed and exception is not None:
            self._failures.append(exception)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Forget everything that was still to run."""
        self._closed = True
        for task in self._tasks:
            coroutine = task.get_coro()
            # Close a coroutine that never began, or Python warns that it was never awaited.
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()
