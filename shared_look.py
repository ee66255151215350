"""A costly look that many may ask for: one at a time, and the next only after a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_PAUSE: Final = 20  # so many times as long as the last look took; then it takes 5 % of the time


class SharedLook(Generic[T]):
    """Whoever asks while we look shares that look, and what it found stands for a while.

    How long that is follows from how long it took: a large store is not asked on and on.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._look_now = look
        self._clock = clock
        self._look: asyncio.Task[T] | None = None
        self._again = 0.0

    async def get(self) -> T:
        """What was found a moment ago; raises what the look raised, which is tried again."""
        if self._look is None or (self._look.done() and self._clock() >= self._again):
            self._look = asyncio.create_task(self._timed())
        return await asyncio.shield(self._look)

    async def _timed(self) -> T:
        self._again = began = self._clock()
        found = await self._look_now()
        self._again = self._clock() + _PAUSE * (self._clock() - began)
        return found
