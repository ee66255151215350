"""The metrics of all workers, told by whichever of them is asked.

The law: each worker writes its own file, whole, each second; whoever is asked adds the others' to
what it knows of itself. Nothing is locked and nobody waits. What a dead worker counted still
counts; how it stood does not.
"""

import asyncio
import json
import multiprocessing
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from metrics import Metrics, Samples, added, as_json, from_json

EVERY: Final = 1.0  # seconds
STALE: Final = 5.0  # seconds; a worker that has not written for so long is not there


_PREFIX: Final = "keyturn-metrics-"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a private directory is made in it


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A directory for the workers of this process: private, in memory where there is some."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix=_PREFIX, dir=where) as directory:
        yield Path(directory)


class SharedMetrics:
    """What this worker counts and how it stands, beside that of the others in `directory`."""

    def __init__(
        self, metrics: Metrics, state: Callable[[], Samples], directory: Path | None
    ) -> None:
        self._metrics = metrics
        self._state = state
        self._directory = directory
        self._name = f"{secrets.token_hex(8)}.json"

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """While this lasts, the others know of us, at most a second late."""
        if self._directory is None:
            yield
            return
        self._write()
        writing = asyncio.create_task(self._write_on())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            self._write(gone=True)
            if self._directory.name.startswith(_PREFIX) and _is_orphan():
                shutil.rmtree(self._directory, ignore_errors=True)

    async def of_all(self) -> Samples:
        """The sum of what all workers counted, and of how those stand that are there."""
        others = await asyncio.to_thread(self._others)
        return added([self._metrics.counts, self._state(), *others])

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._write()

    def _write(self, *, gone: bool = False) -> None:
        """Replace our file; where there is no room for it the next time may do better."""
        if self._directory is None:
            return
        file = self._directory / self._name
        said = {
            "at": -STALE if gone else time.monotonic(),  # one clock for all processes of a machine
            "counts": as_json(self._metrics.counts),
            "state": as_json(self._state()),
        }
        with suppress(OSError):
            file.with_suffix(".new").write_text(json.dumps(said))
            os.replace(file.with_suffix(".new"), file)  # noqa: PTH105  # one system call

    def _others(self) -> list[Samples]:
        if self._directory is None:
            return []
        files = [file for file in self._directory.glob("*.json") if file.name != self._name]
        return [part for file in files for part in _read(file)]


def _is_orphan() -> bool:
    """Whether the process that made us is gone, and cannot tidy up."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _read(file: Path) -> list[Samples]:
    try:
        said: dict[str, Any] = json.loads(file.read_text())
    except OSError:
        return []
    fresh = time.monotonic() - said["at"] < STALE
    return [from_json(said["counts"]), *([from_json(said["state"])] if fresh else [])]
