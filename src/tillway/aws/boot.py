"""One platform for the life of an execution environment, in an event loop that outlives its invocations.

Lambda freezes an environment between invocations, perhaps for hours, and with SnapStart many environments begin as
copies of one. `resume` stands at the beginning of every invocation and undoes both.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec

from tillway.aws.environment import function_of, settings_of
from tillway.engine.clock import Clock, boottime_ns
from tillway.engine.ids import forget_drawn_randomness
from tillway.installation import check_key_file
from tillway.settings import Settings
from tillway.wiring import Running, assemble

T = TypeVar("T")

FROZEN_NS: Final = 1_000_000_000
"""A wall clock that went so much further than the other one since the last look: the environment was frozen."""

_loop = asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one invocation."""
    return _loop.run_until_complete(work)


class AwakeClock:
    """The monotonic clock, which also counts the time for which the environment was frozen.

    Leases, caches and the rule that an old decision is given up depend on it. While a virtual machine is paused, its
    own monotonic clock may stand still; AWS sets the wall clock right when it goes on.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, own_ns: Callable[[], int] = boottime_ns) -> None:
        self._wall_ns, self._own_ns = wall_ns, own_ns
        self._ahead_ns = wall_ns() - own_ns()
        self._frozen_ns = 0

    def __call__(self) -> int:
        return self._own_ns() + self._frozen_ns

    def resume(self) -> bool:
        """Count the time since the last look. Whether the environment was frozen for at least a second."""
        slept_ns = self._wall_ns() - self._own_ns() - self._ahead_ns
        if slept_ns < FROZEN_NS:
            return False
        self._ahead_ns += slept_ns
        self._frozen_ns += slept_ns
        return True


class Environment:
    """The platform of this execution environment, built at the first invocation."""

    def __init__(self) -> None:
        self.awake = AwakeClock()
        self.function = function_of()
        self._settings: Settings | None = None
        self._running: Running | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises `SettingsInvalid`."""
        if self._settings is None:
            self._settings = settings_of()
        return self._settings

    async def running(self, public_url: str = "") -> Running:
        """The platform, ready for this invocation. `public_url` is used where no setting has one."""
        if self.awake.resume() or self._running is None:
            forget_drawn_randomness()
        if self._running is None:
            settings = self.settings
            if not settings.public_url and public_url:
                settings = msgspec.structs.replace(settings, public_url=public_url)
            running = await assemble(settings, clock=Clock(monotonic_ns=self.awake))
            try:
                await check_key_file(settings, running.store, running.keyring)
            except BaseException:
                await running.close()
                raise
            self._running = running
        return self._running

    async def close(self) -> None:
        """For tests: a real environment ends without a word."""
        if self._running is not None:
            await self._running.close()
            self._running = None


environment = Environment()
