"""Does a worker grow? Turns of every kind at half of what it can serve, for long: `make soak`.

Most turns are streams; some come in one piece, some by a visitor's own key, some are left by their
client, some fail upstream, some are refused at the gate. First as many are open at once as ever may
be: what that takes a process does not give back, and a crowd that comes later would look like
growth. Then memory is read again and again, and after a warm-up of a fifth of the time the median
of all slopes between two readings may be so much an hour, whatever happened for a moment; and the
last fifth of the readings may not lie above the first by as much. A server that keeps 16 KiB of
every request must be found out by the same rule. Exit code 0 when all is so, 1 when not. `--write`
puts what was found into `docs/proof.md`.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Final

import redis
import uvloop

from bench import proof
from bench.connection import Connection, Door, Shape, connect
from bench.load import Crowd
from bench.measures import MIB, unsettled
from bench.peers import KEYTURN, LEAKY, OTHERS_CORE, Peer, Served, serving
from bench.processes import memory, pin
from bench.speed_stage import Scene, scene
from command import open_many_files

ALLOWED_MIB: Final = 1.0  # an hour
HOUR: Final = 3600
WARM_UP: Final = 0.2  # of the time
LOAD: Final = 0.5  # of what it can serve
MOST: Final = 100  # turns at once
CROWDS: Final = 3
STREAM: Final = Shape(stream=True, chunks=10, first_ms=5, gap_ms=5)
LONG: Final = Shape(stream=True, chunks=20, first_ms=5, gap_ms=50)
WHOLE: Final = Shape(stream=False)
FAILING: Final = Shape(stream=True, chunks=0)
LEAVE: Final = "leave"  # in the middle of a stream
REFUSED: Final = "refused"  # for a token that is none
OWN_KEY: Final = "own key"
MIX: Final = (
    [STREAM] * 77 + [WHOLE] * 10 + [OWN_KEY] * 3 + [LEAVE] * 4 + [FAILING] * 3 + [REFUSED] * 3
)
SHOWN: Final = {REFUSED: b"x" * 64, OWN_KEY: b"sk-visitor-of-a-run-0123456789abcdef"}
IDLE: Final = 4.0  # seconds, less than any server waits: one that closes may not have told us yet
REST_LIMIT: Final = 30.0
_CODE: Final = re.compile(rb'"code":"(\w+)"')


@dataclass
class Soak:
    """What came of it: memory in bytes by seconds since the start, and the turns."""

    rate: float
    samples: list[tuple[float, int]] = field(default_factory=list)
    turns: int = 0
    waited: int = 0  # turns that came while as many as may be were open
    odd: Counter[str] = field(default_factory=Counter)  # turns that did not come whole, and why
    left: int = 0  # turns that were not settled in the end

    @property
    def after_warm_up(self) -> list[tuple[float, int]]:
        """The samples that are judged."""
        start = WARM_UP * self.samples[-1][0]
        return [sample for sample in self.samples if sample[0] >= start]

    @property
    def mib_an_hour(self) -> float:
        """How fast it grew after the warm-up."""
        return slope(self.after_warm_up) * HOUR / MIB

    @property
    def grown_mib(self) -> float:
        """By how much the last fifth of the readings lies above the first."""
        readings = [bytes_ for _, bytes_ in self.after_warm_up]
        few = max(1, len(readings) // 5)
        return (median(readings[-few:]) - median(readings[:few])) / MIB


def slope(samples: list[tuple[float, int]]) -> float:
    """The median of the slopes between any two samples (Theil and Sen)."""
    slopes = ((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(samples, 2))
    return median(slopes) if len(samples) > 1 else 0.0


class Visitors:
    """Turns of every kind, each on a connection that was used before, where there is one."""

    def __init__(self, door: Door, seed: int) -> None:
        self._door, self._rng = door, random.Random(seed)
        self._idle: list[tuple[float, Connection]] = []
        self._busy: dict[Connection, Shape | str] = {}
        self._places = asyncio.Semaphore(MOST)
        self.odd: Counter[str] = Counter()
        self.turns = self.waited = 0

    async def crowd(self) -> None:
        """As many at once as ever may be, again and again."""
        for _ in range(CROWDS):
            async with asyncio.TaskGroup() as group:
                for _ in range(MOST):
                    await self._places.acquire()
                    group.create_task(self._take(LONG))
            await self.all_ended()

    async def come(self, rate: float, seconds: float) -> None:
        """Ask at random times, whether or not the others were answered, while there is a place."""
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            while (due := due + self._rng.expovariate(rate)) < end:
                await asyncio.sleep(max(0.0, due - loop.time()))
                self.waited += self._places.locked()
                await self._places.acquire()
                group.create_task(self._take(self._rng.choice(MIX)))

    async def all_ended(self) -> None:
        """Wait until nobody is busy; whoever still is after a while did not come whole."""
        for _ in range(int(REST_LIMIT / 0.01)):
            if not self._busy:
                break
            await asyncio.sleep(0.01)
        self.odd["no answer"] += len(self._busy)

    async def _take(self, kind: Shape | str) -> None:
        self.turns += 1
        connection = self._unused() or await connect(self._door, self._ended)
        self._busy[connection] = kind
        token = connection.token
        connection.token = SHOWN.get(kind, token) if isinstance(kind, str) else token
        connection.on_stamp = (lambda *_: connection.close()) if kind == LEAVE else None
        connection.ask(kind if isinstance(kind, Shape) else STREAM)
        connection.token = token

    def _unused(self) -> Connection | None:
        fresh = time.monotonic() - IDLE
        while self._idle:
            since, connection = self._idle.pop()
            if since > fresh and not connection.closed:
                return connection
            connection.close()
        return None

    def _ended(self, connection: Connection) -> None:
        self._places.release()
        kind = self._busy.pop(connection)
        if kind not in (LEAVE, FAILING, REFUSED) and not _is_whole(connection):
            self.odd[_why(connection)] += 1
        if not connection.closed:
            self._idle.append((time.monotonic(), connection))

    def leave(self) -> None:
        """Close everything."""
        for each in (*(connection for _, connection in self._idle), *self._busy):
            each.close()


def _is_whole(connection: Connection) -> bool:
    return connection.done and connection.status == 200


def _why(connection: Connection) -> str:
    """How an answer ended that did not come whole: its status and code, or that it was cut."""
    code = _CODE.search(connection.heard)
    return f"{connection.status} {code[1].decode() if code else 'cut'}"


async def capacity(served: Served, seconds: float) -> float:
    """How many turns a second it serves, of those that come whole."""
    async with Crowd(served.door) as crowd:
        await crowd.grow(32)
        good = [kind for kind in MIX if kind in (STREAM, WHOLE)]
        rng, count, since = random.Random(1), 0, time.monotonic()
        while time.monotonic() < since + seconds:
            await crowd.take([rng.choice(good) for _ in range(100)], 60)
            count += 100
        return count / (time.monotonic() - since)


async def soak(peer: Peer, place: Scene, seconds: float, seed: int, rate: float | None) -> Soak:
    """Run one server under load, and read its memory a hundred times or more."""
    async with serving(peer, place.place) as served:
        found = Soak(rate or LOAD * await capacity(served, min(10.0, seconds / 4)))
        visitors = Visitors(served.door, seed)
        await visitors.crowd()
        coming = asyncio.create_task(visitors.come(found.rate, seconds))
        since = time.monotonic()
        while not coming.done():
            await asyncio.wait([coming], timeout=min(5.0, seconds / 100))
            found.samples.append((time.monotonic() - since, memory(served.pids).own))
        await coming
        await visitors.all_ended()
        visitors.leave()
        found.turns, found.waited, found.odd = visitors.turns, visitors.waited, visitors.odd
        with redis.Redis.from_url(place.place.redis_url) as store:
            found.left = await _at_rest(store)
    return found


async def _at_rest(store: "redis.Redis") -> int:
    """How many turns are unsettled, once none is or after a while."""
    for _ in range(int(REST_LIMIT / 0.1)):
        if not unsettled(store):
            break
        await asyncio.sleep(0.1)
    return unsettled(store)


def verdict(found: Soak) -> list[str]:
    """What is not as promised."""
    broken = []
    if found.mib_an_hour > ALLOWED_MIB:
        broken.append(f"it grew by {found.mib_an_hour:.2f} MiB an hour, more than {ALLOWED_MIB:g}")
    if found.grown_mib > ALLOWED_MIB:
        broken.append(f"in the end it had {found.grown_mib:.2f} MiB more, above {ALLOWED_MIB:g}")
    if why := +found.odd:
        broken.append(f"{why.total()} turns did not come whole: {dict(why)}")
    if found.left:
        broken.append(f"{found.left} places or holds were not given back")
    return broken


def told(title: str, found: Soak) -> str:
    """A row of the table."""
    seconds, last = found.samples[-1]
    first = found.after_warm_up[0][1]
    return (
        f"| {title} | {seconds / 60:.1f} | {found.rate:,.0f} | {found.turns:,} "
        f"| {first / MIB:.1f} | {last / MIB:.1f} | {found.grown_mib:+.2f} "
        f"| {found.mib_an_hour:+.2f} | {found.waited / found.turns:.1%} | {found.odd.total()} |"
    )


HEADS: Final = (
    "| | minutes | turns a second | turns | MiB after warm-up | MiB at the end | last fifth above "
    "the first, MiB | MiB an hour | waited for a place | not whole |\n"
    "| --- |" + " ---: |" * 9
)
WORDS: Final = """\
Half of what it can serve, at most {most} turns at once: of a hundred 77 are streams, 10 come in one
piece, 3 by a visitor's own key, 4 are left by their client, 3 fail upstream, 3 are refused. Memory
is what stands in no file. First {most} were open at once, {crowds} times; growth is judged after a
fifth of the time, by the median of the slopes between all readings. At most {allowed:g} MiB an hour
is allowed; the control keeps 16 KiB of every request and must be found out."""


def arguments(given: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="make soak", description="Does a worker grow?")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, help="turns a second, instead of half its capacity")
    parser.add_argument("--write", action="store_true", help="into docs/proof.md")
    return parser.parse_args(given)


async def both(asked: argparse.Namespace) -> tuple[Soak, Soak]:
    """Keyturn for the whole time, the control for a tenth of it."""
    with scene() as place:
        ours = await soak(KEYTURN, place, asked.minutes * 60, asked.seed, asked.rate)
    print(told("Keyturn", ours), *verdict(ours), sep="\n  ! ", file=sys.stderr, flush=True)
    with scene() as place:
        seconds = max(20.0, asked.minutes * 6)
        return ours, await soak(LEAKY, place, seconds, asked.seed, asked.rate)


def main(given: list[str]) -> int:
    """Run both, tell, and judge."""
    asked = arguments(given)
    open_many_files()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop what was started
    pin([os.getpid()], OTHERS_CORE)
    ours, control = uvloop.run(both(asked))
    broken, found_out = verdict(ours), control.mib_an_hour > ALLOWED_MIB
    rows = (HEADS, told("**Keyturn**", ours), told("a server that leaks", control))
    words = WORDS.format(allowed=ALLOWED_MIB, most=MOST, crowds=CROWDS)
    text = "\n\n".join(("### For long", proof.machine(asked), words, "\n".join(rows)))
    print(text, *broken, "" if found_out else "the control was not found out", sep="\n")
    if asked.write:
        proof.write("soak", text)
    return int(bool(broken) or not found_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
