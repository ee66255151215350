"""How long each stage of a request may take, in seconds, and how that is kept."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Patience:
    """Every deadline that is not a setting; the defaults are what the server runs with."""

    body: float = 10
    write: float = 15
    keep_alive: float = 10
    connect: float = 5
    silence: float = 60


DEFAULT = Patience()


class Wait:
    """A limit on each of many waits of one task: `with wait:` raises `TimeoutError` past it.

    `asyncio.timeout` sets a timer for every wait and takes it away again, and a stream waits twice
    for each chunk. Here one timer stays, and when it is due looks since when we wait. Whoever has
    made this closes it.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None  # who waits now
        self._since = 0.0
        self._cancelled_before = 0

    def close(self) -> None:
        """Take the timer away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._loop)  # to look the loop up asks the kernel who we are
        if task is None:
            raise RuntimeError("only a task can wait so")
        self._task, self._since, self.expired = task, self._loop.time(), False
        self._cancelled_before = task.cancelling()
        if self._timer is None:
            self._look_at(self._since + self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # As in `asyncio.timeout`: somebody else may have cancelled the task as well.
        ours = self.expired and task and task.uncancel() <= self._cancelled_before
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from error

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
            self.expired = True
            self._task.cancel()
