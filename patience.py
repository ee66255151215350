"""How long each stage of a request may take, in seconds, and how that is kept."""

import asyncio
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Patience:
    """Every deadline that is not a setting; the defaults are what the server runs with."""

    body: float = 10
    write: float = 15
    keep_alive: float = 10
    connect: float = 5
    silence: float = 60


DEFAULT = Patience()


class Deadline:
    """A scope of one task that ends with `TimeoutError` when it is told that the time is up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.expired = False
        self._loop = loop
        self._task: asyncio.Task[object] | None = None  # while it is in the scope
        self._cancelled = False
        self._cancelled_before = 0

    def expire(self) -> None:
        """End the scope, now or when it is entered."""
        if not self.expired:
            self.expired = True
            self._cancel()

    def __enter__(self) -> None:
        task = self._task = asyncio.current_task(self._loop)  # to look it up asks the kernel
        if task is not None:
            self._cancelled_before = task.cancelling()
        if self.expired:
            self._loop.call_soon(self._cancel)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # As in `asyncio.timeout`: somebody else may have cancelled the task as well.
        ours = self._cancelled and task and task.uncancel() <= self._cancelled_before
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()


class Wait(Deadline):
    """A limit on each of many waits of one task: `with wait:` raises `TimeoutError` past it.

    `asyncio.timeout` sets a timer for every wait and takes it away again, and a stream waits twice
    for each chunk. Here one timer stays, and when it is due looks since when we wait. Whoever has
    made this closes it.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(asyncio.get_running_loop())
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0

    def close(self) -> None:
        """Take the timer away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        self.expired = self._cancelled = False
        super().__enter__()
        if self._task is None:
            raise RuntimeError("only a task can wait so")
        self._since = self._loop.time()
        if self._timer is None:
            self._look_at(self._since + self._seconds)

    def _look_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return
        due = self._since + self._seconds
        if due > self._loop.time():
            self._look_at(due)
        else:
            self.expire()
