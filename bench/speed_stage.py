"""What the peers stand between: the swift upstream and a real redis-server, on a core of their own.

The client is the process that measures, on the same core: together they must cost little beside
what is measured, which `direct` shows.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.connection import Door
from bench.peers import OTHERS_CORE, Place, Served
from bench.processes import pin
from tests.stage import ready, redis_process


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything is; `direct` is the upstream itself, as if it were a peer."""

    place: Place
    direct: Served

    async def books(self) -> dict[str, Any]:
        """What upstream was asked so far, see `swift_upstream.Books`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.direct.door.port)
        writer.write(b"GET /books HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.rpartition(b"content-length: ")[2])
        told: dict[str, Any] = json.loads(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()
        return told


@contextmanager
def scene() -> Iterator[Scene]:
    """Both ends, with fresh books and an empty store."""
    with (
        tempfile.TemporaryDirectory(prefix="kt-bench-") as home,
        redis_process("--maxmemory-policy", "noeviction") as redis_url,
        _upstream() as direct,
    ):
        yield Scene(Place(Path(home), f"http://127.0.0.1:{direct.door.port}/v1", redis_url), direct)


@contextmanager
def _upstream() -> Iterator[Served]:
    with ready("bench.swift_upstream") as (pid, port):
        pin([pid], OTHERS_CORE)
        yield Served(Door(port), [pid], 0)
