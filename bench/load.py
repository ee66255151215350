"""Those who ask, many at a time.

A `Crowd` shares out turns, `arrive` asks at a rate whatever becomes of it, `Streams` are many that
last. All run in the loop of whoever measures. Where a door is gated, every connection is a visitor
who shows the token of the turn before.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from bench.connection import Connection, Door, Shape, Tally, connect

_OPENERS: Final = 32


class Crowd:
    """Connections that share out turns, each asking as soon as it was answered."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connections: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._shapes: Iterator[Shape] = iter(())
        self._tally, self._asking = Tally(), 0
        self._over = asyncio.Event()

    async def __aenter__(self) -> "Crowd":
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._shapes = iter(())
        for each in self._connections:
            each.close()
        await asyncio.gather(*self._opening, return_exceptions=True)

    async def grow(self, count: int) -> None:
        """Open so many connections more."""
        for _ in range(count):
            self._connections.append(await connect(self._door, self._ended))

    async def take(self, shapes: Iterable[Shape], limit: float) -> Tally:
        """Take these turns and wait for the last answer; raises `TimeoutError`."""
        self._shapes, self._tally, self._over = iter(shapes), Tally(), asyncio.Event()
        self._asking = 1  # us, until all have begun
        for each in tuple(self._connections):
            self._ask(each)
        self._let_go()
        async with asyncio.timeout(limit):
            await self._over.wait()
        return self._tally

    def _ask(self, connection: Connection) -> None:
        if shape := next(self._shapes, None):
            self._asking += 1
            connection.ask(shape)

    def _ended(self, connection: Connection) -> None:
        self._tally.take(connection)
        if connection.closed:
            self._connections.remove(connection)
            task = asyncio.get_running_loop().create_task(self._replace())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._ask(connection)
            self._let_go()

    async def _replace(self) -> None:
        """Somebody else for whoever lost the connection, if there is anybody to connect to."""
        with suppress(OSError):
            await self.grow(1)
            self._ask(self._connections[-1])
        self._let_go()

    def _let_go(self) -> None:
        self._asking -= 1
        if not self._asking:
            self._over.set()


@dataclass(slots=True)
class Arrivals:
    """What became of answers that were asked for at a rate; times in ms."""

    tally: Tally = field(default_factory=Tally)
    first_ms: list[float] = field(default_factory=list)
    chunk_ms: list[float] = field(default_factory=list)
    late: int = 0


async def arrive(door: Door, shape: Shape, rate: float, seconds: float, seed: int) -> Arrivals:
    """Ask as people come, at random and whether or not the others were answered."""
    found, idle, rng = Arrivals(), list[Connection](), random.Random(seed)
    every, asking, over = set[Connection](), set[Connection](), asyncio.Event()

    def ended(connection: Connection) -> None:
        if found.tally.take(connection):
            found.first_ms.append((connection.first_ns - connection.asked_ns) / 1e6)
        asking.discard(connection)
        if not connection.closed:
            idle.append(connection)
        if not asking:
            over.set()

    def stamped(written_ns: int, now_ns: int) -> None:
        found.chunk_ms.append((now_ns - written_ns) / 1e6)

    async def ask() -> None:
        connection = idle.pop() if idle else await connect(door, ended)
        if connection.closed:
            return await ask()
        connection.on_stamp = stamped
        every.add(connection)
        asking.add(connection)
        over.clear()
        return connection.ask(shape)

    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        while (due := due + rng.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            group.create_task(ask())
    with suppress(TimeoutError):
        async with asyncio.timeout(5 * shape.lasts + 2):
            await over.wait()
    found.late = len(asking)
    for connection in every:
        connection.close()
    return found


@dataclass(slots=True)
class Delivery:
    """Chunks of open streams: how many came in time, and each one's delay in ms."""

    on_time: int
    delays_ms: list[float]


class Streams:
    """Streams that stay open, and the delays of what comes in them."""

    def __init__(self, door: Door, shape: Shape) -> None:
        self._door, self._shape = door, shape
        self._connections: list[Connection] = []
        self._came: list[tuple[int, int]] = []  # written and heard, ns

    async def __aenter__(self) -> "Streams":
        return self

    async def __aexit__(self, *_: Any) -> None:
        for each in self._connections:
            each.close()

    @property
    def open(self) -> int:
        """How many have begun and not ended."""
        return sum(each.first_ns > 0 and each.busy for each in self._connections)

    async def grow_to(self, count: int, limit: float) -> None:
        """Open more, some at a time, and wait until each has begun, for so many seconds at most."""
        wanted = iter(range(count - len(self._connections)))

        async def opener() -> None:
            for _ in wanted:
                await self._open_one()

        with suppress(TimeoutError):
            async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                for _ in range(_OPENERS):
                    group.create_task(opener())

    async def _open_one(self) -> None:
        begun = asyncio.Event()

        def stamped(written_ns: int, now_ns: int) -> None:
            begun.set()
            self._came.append((written_ns, now_ns))

        connection = await connect(self._door, lambda _: begun.set())
        connection.on_stamp = stamped
        self._connections.append(connection)
        connection.ask(self._shape)
        await begun.wait()

    def delivered(self, since_ns: int, until_ns: int, on_time_ms: float) -> Delivery:
        """What came of that which was written in this span of time."""
        spans = (now - written for written, now in self._came if since_ns < written <= until_ns)
        delays = [span / 1e6 for span in spans]
        return Delivery(sum(delay <= on_time_ms for delay in delays), delays)
