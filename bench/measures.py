"""What is measured of a peer, each by a function that begins and ends by itself.

Numbers come back by name, see `bench.findings.MEASURES` for what they are. CPU is that of the
peer's processes alone. Nothing is asked more often, or for longer, than its arguments say.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from statistics import median, quantiles
from typing import Final

import redis

from bench.connection import Door, Shape, ask_once, request
from bench.load import Arrivals, Crowd, Streams, arrive
from bench.peers import Peer, Place, Served, serving
from bench.processes import cpu_seconds, memory
from bench.speed_stage import Scene

Numbers = dict[str, float]

KIB: Final = 1024
MIB: Final = KIB * 1024
WHOLE: Final = Shape(stream=False)
AT_ONCE: Final = Shape(stream=True)
PACED: Final = Shape(stream=True, first_ms=20, gap_ms=10)
SHORT: Final = Shape(stream=True, chunks=10, first_ms=20, gap_ms=20)
SLOW: Final = Shape(stream=True, chunks=290, gap_ms=1000)
ENDLESS: Final = Shape(stream=True, chunks=100_000)
CPU: Final = {"whole_us": (WHOLE, 16), "burst_us": (AT_ONCE, 16), "paced_us": (PACED, 10)}
ON_TIME_MS: Final = 100
DEAF_LIMIT: Final = 90.0


class Broken(Exception):
    """A peer did not do what was asked of it, so that its numbers would mean nothing."""


async def cpu(served: Served, measure: str, seconds: float) -> Numbers:
    """CPU of a turn in µs, one of `CPU`."""
    shape, connections = CPU[measure]
    return {measure: await cpu_of(served, shape, connections, seconds)}


async def cpu_of(served: Served, shape: Shape, connections: int, seconds: float) -> float:
    """CPU of a turn of this shape in µs."""
    limit = 30 + 10 * seconds
    async with Crowd(served.door) as crowd:
        await crowd.grow(connections)
        since = time.monotonic()
        await crowd.take(repeat(shape, 2 * connections), limit)
        rate = 2 * connections / (time.monotonic() - since)
        rounds = max(1, round(rate * seconds / connections))
        before = cpu_seconds(served.pids)
        tally = await crowd.take(repeat(shape, turns := rounds * connections), limit)
        spent = cpu_seconds(served.pids) - before
    if tally.whole < turns:
        raise Broken(f"{tally.broken} of {turns} answers were no good")
    return spent / turns * 1e6


async def latency(served: Served, rate: float, seconds: float, seed: int) -> Arrivals:
    """Turns of 10 chunks as people come: when each began, and how late each chunk was."""
    await arrive(served.door, SHORT, rate, 0.5, seed)
    found = await arrive(served.door, SHORT, rate, seconds, seed)
    if found.tally.broken or found.late or len(found.first_ms) < 2:
        raise Broken(f"{found.tally.broken} answers were no good, {found.late} did not end")
    return found


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not pass."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def added(found: Arrivals, direct: Arrivals) -> Numbers:
    """What a peer adds to the same turns asked for directly, in ms."""
    return {
        "first_p50_ms": median(found.first_ms) - median(direct.first_ms),
        "first_p99_ms": percentile(found.first_ms, 99) - percentile(direct.first_ms, 99),
        "chunk_p99_ms": percentile(found.chunk_ms, 99),
    }


async def start(peer: Peer, place: Place) -> Numbers:
    """From nothing to the first answer, and the memory it then has."""
    async with serving(peer, place) as served:
        return {"start_s": served.seconds, "idle_mib": memory(served.pids).rss / MIB}


async def streams(
    peer: Peer | None, scene: Scene, counts: tuple[int, int], seconds: float
) -> Numbers:
    """Many open streams of a chunk a second: is each delivered in time, and at what memory?

    They grow to the first of `counts` and then to the second; without a peer they are asked of
    upstream itself.
    """
    if peer is None:
        return await _streams(scene.direct, scene, counts, seconds)
    async with serving(peer, scene.place) as served:
        return await _streams(served, scene, counts, seconds)


async def _streams(
    served: Served, scene: Scene, counts: tuple[int, int], seconds: float
) -> Numbers:
    async with Crowd(served.door) as crowd:
        await crowd.grow(8)
        await crowd.take(repeat(SHORT, 40), 60)
    idle = memory(served.pids)
    async with Streams(served.door, SLOW) as many:
        await many.grow_to(counts[0], 30)
        some = memory(served.pids)
        await many.grow_to(counts[1], 60)
        await asyncio.sleep(1)  # those that were opened last are past their beginning
        before, spent = await scene.books(), cpu_seconds(served.pids)
        await asyncio.sleep(seconds)
        after, spent = await scene.books(), cpu_seconds(served.pids) - spent
        await asyncio.sleep(2 * ON_TIME_MS / 1000)
        all_of_it, open_ones = memory(served.pids), many.open
        came = many.delivered(before["at_ns"], after["at_ns"], ON_TIME_MS)
    # A stream that could not be opened is one whose every chunk is missing.
    expected = after["chunks"] - before["chunks"] + (counts[1] - open_ones) * seconds
    return {
        "open": open_ones,
        "on_time_percent": 100 * came.on_time / max(expected, 1),
        "stream_p99_ms": percentile(came.delays_ms, 99) if len(came.delays_ms) > 1 else 0,
        "stream_kib": (all_of_it.pss - idle.pss) / KIB / max(open_ones, 1),
        "some_mib": some.rss / MIB,
        "stream_core_percent": 100 * spent / seconds,
    }


async def deaf(peer: Peer, scene: Scene, count: int) -> Numbers:
    """Clients that ask for much and read nothing: what they cost, until all are cut and settled."""
    with redis.Redis.from_url(scene.place.redis_url) as store:
        store.flushall()  # what others left that were killed is not theirs
    async with serving(peer, scene.place) as served:
        idle, peak, since = memory(served.pids).rss, 0, time.monotonic()
        with (
            _deaf_clients(served.door, count),
            redis.Redis.from_url(scene.place.redis_url) as store,
        ):
            began = 0
            while time.monotonic() < since + DEAF_LIMIT:
                peak = max(peak, memory(served.pids).rss)
                running = (await scene.books())["open"]
                began = max(began, running)
                if began == count and not running and not unsettled(store):
                    break
                await asyncio.sleep(0.2)
            left = (await scene.books())["open"] + unsettled(store)
    return {
        "deaf_mib": (peak - idle) / MIB,
        "deaf_left": max(left, count - began),
        "deaf_s": time.monotonic() - since,
    }


@contextmanager
def _deaf_clients(door: Door, count: int) -> Iterator[None]:
    clients = []
    try:
        for _ in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", door.port))
            client.sendall(request(door, ENDLESS, b"keyturn"))
            clients.append(client)
        yield
    finally:
        for client in clients:
            client.close()


def unsettled(store: "redis.Redis") -> int:
    """Places in flight and open holds."""
    return sum(1 for pattern in ("*:inflight:*", "*:hold:*") for _ in store.scan_iter(pattern))


async def redis_commands(served: Served, place: Place, turns: int) -> Numbers:
    """What Redis is asked for a turn of a running chain: before its first byte, and after."""
    token = (await ask_once(served.door, SHORT, 30)).token
    counted = list[tuple[int, int]]()
    with redis.Redis.from_url(place.redis_url) as store, store.monitor() as monitor:
        for number in range(turns):
            store.echo(before := f"before turn {number}")
            for _ in _until(monitor, before):
                pass
            answer = await ask_once(served.door, SHORT, 30, token)
            token = answer.token
            # Redis tells by its own clock, which is this machine's.
            first = time.time() - (time.monotonic_ns() - answer.first_ns) / 1e9
            store.echo(after := f"after turn {number}")
            early = [when < first for when in _until(monitor, after)]
            counted.append((sum(early), len(early) - sum(early)))
    before_first, after_first = zip(*counted, strict=True)
    return {"redis_before": median(before_first), "redis_after": median(after_first)}


def _until(monitor: "redis.client.Monitor", mark: str) -> Iterator[float]:
    """When each command came, up to ours; what a script calls is a part of its command."""
    for said in monitor.listen():  # type: ignore[no-untyped-call]
        if mark in said["command"]:
            return
        if said["client_type"] != "lua":
            yield said["time"]
