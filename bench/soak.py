"""Does a worker grow? Turns of every kind at half of what it can serve, for long: `make soak`.

Most turns are streams; some come in one piece, some are left by their client, some fail upstream,
some are refused at the gate. Memory is read again and again, and after a warm-up of a fifth of the
time a straight line is laid through it: by that line the worker may grow by so much, however long
the run. A server that keeps 16 KiB of every request must be found out by the same rule. Exit code 0
when both is so, 1 when not. `--write` puts what was found into `docs/proof.md`.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import redis
import uvloop

from bench import proof
from bench.connection import Connection, Door, Shape, Tally, connect
from bench.load import Crowd
from bench.measures import MIB, unsettled
from bench.peers import KEYTURN, LEAKY, OTHERS_CORE, Peer, Served, serving
from bench.processes import memory, pin
from bench.speed_stage import Scene, scene
from command import open_many_files

ALLOWED_MIB: Final = 1.0
WARM_UP: Final = 0.2  # of the time
LOAD: Final = 0.5  # of what it can serve
STREAM: Final = Shape(stream=True, chunks=10, first_ms=5, gap_ms=5)
WHOLE: Final = Shape(stream=False)
FAILING: Final = Shape(stream=True, chunks=0)
LEAVE: Final = "leave"  # in the middle of a stream
REFUSED: Final = "refused"  # for a token that is none
MIX: Final = [STREAM] * 80 + [WHOLE] * 10 + [LEAVE] * 4 + [FAILING] * 3 + [REFUSED] * 3
REST_LIMIT: Final = 30.0


@dataclass
class Soak:
    """What came of it: memory in bytes by seconds since the start, and the turns."""

    rate: float
    samples: list[tuple[float, int]] = field(default_factory=list)
    turns: int = 0
    odd: int = 0  # streams and wholes that did not come whole
    left: int = 0  # turns that were not settled in the end

    @property
    def after_warm_up(self) -> list[tuple[float, int]]:
        """The samples that are judged."""
        start = WARM_UP * self.samples[-1][0]
        return [sample for sample in self.samples if sample[0] >= start]

    @property
    def grown_mib(self) -> float:
        """By how much it grew from the warm-up to the end, by the line through all samples."""
        samples = self.after_warm_up
        return slope(samples) * (samples[-1][0] - samples[0][0]) / MIB


def slope(samples: list[tuple[float, int]]) -> float:
    """The slope of the line with the least squares."""
    xs, ys = zip(*samples, strict=True)
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((each - x) ** 2 for each in xs)
    return sum((a - x) * (b - y) for a, b in samples) / over if over else 0.0


class Visitors:
    """Turns of every kind, each on a connection that was used before, where there is one."""

    def __init__(self, door: Door, seed: int) -> None:
        self._door, self._rng = door, random.Random(seed)
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Shape | str] = {}
        self.tally = Tally()
        self.turns = 0

    async def come(self, rate: float, seconds: float) -> None:
        """Ask at random times, whether or not the others were answered."""
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            while (due := due + self._rng.expovariate(rate)) < end:
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(self._take(self._rng.choice(MIX)))

    async def _take(self, kind: Shape | str) -> None:
        self.turns += 1
        connection = self._idle.pop() if self._idle else await connect(self._door, self._ended)
        if connection.closed:
            connection = await connect(self._door, self._ended)
        self._busy[connection] = kind
        if kind == REFUSED:
            connection.token = b"x" * 64
        connection.on_stamp = (lambda *_: connection.close()) if kind == LEAVE else None
        connection.ask(kind if isinstance(kind, Shape) else STREAM)
        if kind == REFUSED:
            connection.token = b"keyturn"

    def _ended(self, connection: Connection) -> None:
        if self._busy.pop(connection) in (STREAM, WHOLE):
            self.tally.take(connection)
        if not connection.closed:
            self._idle.append(connection)

    def leave(self) -> None:
        """Close everything."""
        for each in (*self._idle, *self._busy):
            each.close()  # whoever is still busy counts as one that did not come whole


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
        coming = asyncio.create_task(visitors.come(found.rate, seconds))
        since = time.monotonic()
        while not coming.done():
            await asyncio.wait([coming], timeout=min(5.0, seconds / 100))
            found.samples.append((time.monotonic() - since, memory(served.pids).pss))
        await coming
        visitors.leave()
        found.turns, found.odd = visitors.turns, visitors.tally.broken
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
    if found.grown_mib > ALLOWED_MIB:
        broken.append(f"it grew by {found.grown_mib:.2f} MiB, more than {ALLOWED_MIB:g}")
    if found.odd:
        broken.append(f"{found.odd} turns did not come whole")
    if found.left:
        broken.append(f"{found.left} places or holds were not given back")
    return broken


def told(title: str, found: Soak) -> str:
    """A row of the table."""
    seconds, last = found.samples[-1]
    first = found.after_warm_up[0][1]
    return (
        f"| {title} | {seconds / 60:.1f} | {found.rate:,.0f} | {found.turns:,} "
        f"| {first / MIB:.1f} | {last / MIB:.1f} | {found.grown_mib:+.2f} |"
    )


HEADS: Final = (
    "| | minutes | turns a second | turns | MiB after warm-up | MiB at the end | growth, MiB |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)
WORDS: Final = """\
Half of what it can serve: of a hundred turns 80 are streams, 10 come in one piece, 4 are left by
their client, 3 fail upstream, 3 are refused. Growth is by the straight line through all readings
(PSS) after a fifth of the time. At most {allowed:g} MiB is allowed; the control keeps 16 KiB of
every request and must be found out."""


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
    broken, found_out = verdict(ours), control.grown_mib > ALLOWED_MIB
    rows = (HEADS, told("**Keyturn**", ours), told("a server that leaks", control))
    words = WORDS.format(allowed=ALLOWED_MIB)
    text = "\n\n".join(("### For long", proof.machine(asked), words, "\n".join(rows)))
    print(text, *broken, "" if found_out else "the control was not found out", sep="\n")
    if asked.write:
        proof.write("soak", text)
    return int(bool(broken) or not found_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
