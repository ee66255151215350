"""Redis servers that lose money in the ways they do, and what visitors spend before and after."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from completions.prices import read_prices
from house import Keyturn
from tests.command_stage import free_port
from tests.faults.store_stage import OwnRedis
from tests.money.books import total
from tests.money.settlement_stage import Money, money
from tests.stage import ROOT, Answer, Upstream, Visitor, eventually
from tests.upstream import play

PRICES = read_prices((ROOT / "prices.toml").read_bytes())
CAP = 12_000  # µUSD
BUDGET = {"daily_budget_usd": "0.012", "visitor_daily_budget_usd": "off"}
SLOWLY = {"redis_timeout_ms": 3000, "redis_deadline_ms": 6000}  # a busy machine is no fault
TURN = play(words=100, prompt=250)  # of max_tokens=100: bills 260 µUSD, holds some more
BILL = 260


class Road:
    """A TCP way to a Redis: it can lead elsewhere from now on, or swallow all that is sent.

    `late`: so many seconds the reply to the next script takes longer, and then no more.
    """

    def __init__(self, to_port: str) -> None:
        self.to_port = to_port
        self.swallows = False
        self.late = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either end closes it."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
            with contextlib.closing(far_writer):
                pauses: list[float] = []  # before the next replies of this connection
                pumps = [
                    asyncio.create_task(self._pump(reader, far_writer, pauses)),
                    asyncio.create_task(self._pump(far_reader, writer, pauses, back=True)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pauses: list[float],
        *,
        back: bool = False,
    ) -> None:
        while piece := await reader.read(1 << 16):
            if not back and self.late and b"EVALSHA" in piece:
                pauses.append(self.late)
                self.late = 0.0
            if back and pauses:
                await asyncio.sleep(pauses.pop())
            if not self.swallows:
                writer.write(piece)
                await writer.drain()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def road(to_port: str) -> AsyncIterator[tuple[Road, str]]:
    """A way to the Redis on this port, and the port at which it begins."""
    way = Road(to_port)
    server = await asyncio.start_server(way.connect, "127.0.0.1", 0)
    try:
        yield way, str(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await way.close()


@dataclass
class Redises:
    """A primary, a replica that follows it over a link, and the way by which Keyturn comes."""

    primary: OwnRedis
    replica: OwnRedis
    link: Road
    way: Road
    url: str
    ports: tuple[str, str]

    @property
    def serving(self) -> OwnRedis:
        """The one that Keyturn reaches."""
        return self.primary if self.way.to_port == self.ports[0] else self.replica

    def money(self) -> Money:
        """What stands there."""
        return money(f"unix://{self.serving.socket}")

    async def mark(self) -> None:
        """Remember this moment: it is what a loss goes back to."""
        await eventually(lambda: has_no_child(self.primary))
        self.primary.tell("SAVE")
        await eventually(lambda: in_step(self))
        self.link.swallows = True


@asynccontextmanager
async def redises(directory: Path) -> AsyncIterator[Redises]:
    """Both, in step."""
    at_first, at_second = directory / "first", directory / "second"
    at_first.mkdir()
    at_second.mkdir()
    primary, replica = OwnRedis(at_first), OwnRedis(at_second)
    ports = free_port(), free_port()
    primary.start("--port", ports[0], "--repl-diskless-sync-delay", "0")
    async with road(ports[0]) as (link, link_port), road(ports[0]) as (way, way_port):
        try:
            replica.start("--port", ports[1], "--replicaof", "127.0.0.1", link_port)
            await asyncio.to_thread(primary.ready)
            await asyncio.to_thread(replica.ready)
            found = Redises(primary, replica, link, way, f"redis://127.0.0.1:{way_port}/0", ports)
            await eventually(lambda: in_step(found))
            yield found
        finally:
            primary.kill()
            replica.kill()


async def has_no_child(store: OwnRedis) -> bool:
    """Whether it would save: what it sends to a new replica is a save of its own, and may outlast
    that replica's being in step."""
    with store.client() as client:
        return not client.info("persistence")["rdb_bgsave_in_progress"]


async def in_step(found: Redises) -> bool:
    """Whether the replica has all that the primary has."""
    said: list[dict[str, Any]] = []
    for store in (found.primary, found.replica):
        with store.client() as client:
            said.append(client.info("replication"))
    first, second = said
    is_up = second.get("master_link_status") == "up"
    return is_up and first["master_repl_offset"] == second["slave_repl_offset"]


# -- ways to lose money


async def flush(found: Redises) -> None:
    """FLUSHALL."""
    found.primary.tell("FLUSHALL")


async def go_back(found: Redises) -> None:
    """SIGKILL, and an older copy of its data when it comes back."""
    found.primary.kill()
    found.primary.start("--port", found.ports[0])
    await asyncio.to_thread(found.primary.ready)


async def fail_over(found: Redises) -> None:
    """SIGKILL, and a replica takes over that heard nothing since the mark."""
    found.primary.kill()
    found.replica.tell("REPLICAOF", "NO", "ONE")
    found.way.to_port = found.ports[1]


@dataclass(frozen=True)
class Loss:
    """A way to lose money, by its name."""

    name: str
    strike: Callable[[Redises], Awaitable[None]]


LOSSES = [Loss("flush", flush), Loss("older copy", go_back), Loss("failover", fail_over)]


# -- visitors


async def spend(visitor: Visitor, turns: int) -> None:
    """So many turns, each of a chain of its own, all of which are admitted."""
    for _ in range(turns):
        answer = await take(visitor)
        assert answer.status == 200, answer.body


async def take(visitor: Visitor) -> Answer:
    """A first turn that costs what `BILL` says; starts are let in ten at once."""
    while True:
        answer = await visitor.post(visitor.body(TURN, max_tokens=100), visitor.headers())
        if answer.code != "start_limited":
            return answer
        await asyncio.sleep(0.005)


async def rush(visitor: Visitor, turns: int, at_once: int = 30) -> list[str | None]:
    """So many turns, many at once; what each was told: a code, or None for an answer."""
    places = asyncio.Semaphore(at_once)

    async def one() -> str | None:
        async with places:
            return (await take(visitor)).code

    return await asyncio.gather(*(one() for _ in range(turns)))


@asynccontextmanager
async def in_the_middle(
    visitor: Visitor, turns: int, *, gap_ms: int = 20
) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """So many answers that have begun, and go on for 80 words."""
    body = visitor.body(play(words=80, prompt=250, gap_ms=gap_ms), max_tokens=100)
    begun = asyncio.Semaphore(0)

    async def one() -> bytes:
        async with visitor.session.post(
            visitor.url + "/v1/chat/completions", data=body, headers=visitor.headers()
        ) as answer:
            read = await answer.content.readany()
            begun.release()
            return read + await answer.read()

    tasks = [asyncio.create_task(one()) for _ in range(turns)]
    for _ in tasks:
        await begun.acquire()
    try:
        yield tasks
    finally:
        await asyncio.gather(*tasks)


async def is_admitted(visitor: Visitor) -> bool:
    """Whether a turn is answered."""
    return (await take(visitor)).status == 200


def end_leases(store: OwnRedis) -> None:
    """Let the leases of all turns that are open end now, as if their time had gone by."""
    with store.client() as client:
        for key in client.scan_iter("*"):
            if key.endswith(":holds") or ":inflight:" in key:
                client.zadd(key, dict.fromkeys(client.zrange(key, 0, -1), 1))


async def begin(visitor: Visitor, *, words: int, gap_ms: int) -> aiohttp.ClientResponse:
    """An answer of which the first word has come; starts are let in ten at once."""
    body = visitor.body(play(words=words, prompt=250, gap_ms=gap_ms), max_tokens=words)
    url = visitor.url + "/v1/chat/completions"
    while True:
        answer = await visitor.session.post(url, data=body, headers=visitor.headers())
        if answer.status == 200:
            await answer.content.readuntil(b"word ")
            return answer
        answer.release()
        await asyncio.sleep(0.01)


async def billed(upstream: Upstream) -> int:
    """What upstream bills in all, in µUSD, once every answer has ended."""
    found: list[dict[str, Any]] = []

    async def ended() -> bool:
        found[:] = await upstream.books()
        return all(entry["ended"] != "open" for entry in found)

    await eventually(ended)
    return total(found, PRICES)


def is_whole(answer: bytes) -> bool:
    """Whether a stream came to its end."""
    return answer.endswith(b"data: [DONE]\n\n") and b'"error"' not in answer


def put_script(keyturn: Keyturn, name: str, text: str) -> None:
    """Let the ledger call this in the place of its own script of that name."""
    setattr(keyturn.ledger, f"_{name}", keyturn.ledger._calls.script_of(name, text))
