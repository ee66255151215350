"""Writes down what a worker counted, every few seconds, beside its turns and in nobody's way.

What could not be written is told again, under the same name, until it was; what is counted
meanwhile waits, within bounds.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from security.errors import Rejection
from security.history import Batch, History
from turn_history import Tally

log = logging.getLogger("keyturn")

INTERVAL: Final = 3.0
_AT_THE_END: Final = 2.0


class Recorder:
    """Takes from a tally and adds to the history; `streams` tells how many are in flight here."""

    def __init__(
        self, tally: Tally, history: History, *, streams: Callable[[], int], most: int
    ) -> None:
        self._tally = tally
        self._history = history
        self._streams = streams
        self._most = most
        self._worker = secrets.token_urlsafe(6)
        self._pending: Batch | None = None

    async def write(self) -> None:
        """Tell the history of one hour's counts; raises `Rejection`, and then keeps them."""
        if self._pending is None:
            hour, counts, sources = self._tally.take()
            self._pending = Batch(secrets.token_urlsafe(9), hour, counts, sources)
        await self._history.add(
            self._pending,
            worker=self._worker,
            streams=self._streams(),
            most=self._most,
            minute=self._tally.minute,
        )
        self._pending = None


@asynccontextmanager
async def recording(recorder: Recorder, interval: float = INTERVAL) -> AsyncIterator[None]:
    """Write every few seconds while the block lasts, and once more when it is over."""
    task = asyncio.create_task(_write_on(recorder, interval))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        with suppress(Rejection, TimeoutError):
            async with asyncio.timeout(_AT_THE_END):
                for _ in range(3):  # what was pending, an hour that is over, and the one at hand
                    await recorder.write()


async def _write_on(recorder: Recorder, interval: float) -> None:
    said = False
    while True:
        try:
            await recorder.write()
            said = False
        except Rejection:
            if not said:
                log.warning("the history cannot be written now: counts wait in memory")
            said = True
        await asyncio.sleep(interval)
