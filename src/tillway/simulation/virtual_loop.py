"""An event loop without time or sockets: it sleeps by setting its clock forward, and a seed decides what runs next.

Whatever is ready at the same moment runs in an order that is drawn, so that many seeds explore many interleavings, and
one seed always gives the same one. Coroutines that belong to a `Life` stop where they are when it ends: nothing of them
runs any more, no `finally` and no `except`, as in a process that was killed.
"""

import asyncio
import contextvars
import heapq
import inspect
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

STEPS_MAX = 2_000_000
"""Most callbacks that one `run` carries out before it is taken to go round in circles."""

T = TypeVar("T")


class Life:
    """What a set of coroutines lives in. Once it has `ended`, or until `frozen_until` (seconds), none of them runs."""

    def __init__(self) -> None:
        self.ended = False
        self.frozen_until = 0.0


LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("tillway_testing_life", default=None)
"""The life that the running coroutine belongs to; tasks inherit it from whoever makes them."""


class Stuck(AssertionError):
    """Nothing can ever happen again, or too much has happened, and what was waited for has not."""


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
        """The exceptions of callbacks, and of tasks that have ended and that nobody has asked for theirs."""
        of_tasks = [
            task.exception()
            for task in self._tasks
            if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False)
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
                return
            if life.frozen_until > self._now:
                self._at(life.frozen_until, handle)
                return
        handle.context.run(handle.callback, *handle.args)

    def _set_forward(self) -> None:
        """To the time of the next timer, and make ready what is due then."""
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

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, self._now)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        self._at(when, handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        task = asyncio.Task(coro, loop=self, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Tasks of an ended life are destroyed while pending: that is what its end is about.
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
            # One that never began would complain that nobody awaited it.
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()
