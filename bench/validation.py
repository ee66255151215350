"""Does the simulation foretell what real workers do? One and two of them, on this machine.

While a few visitors ask it is measured what a turn costs each process: worker, Redis, upstream and
client. From that the simulation foretells how many turns a second the same processes serve when
many ask who never wait, and how long a turn takes at half of that. Then both is measured. What
others used of the cores meanwhile is measured too, and taken away: a foretold second is one that we
had.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from itertools import cycle, repeat
from statistics import mean, median
from typing import Final

import redis

from bench import simulation
from bench.load import Crowd, arrive
from bench.measures import WHOLE, Broken
from bench.peers import KEYTURN, OTHERS_CORE, PROXIES_CORE, Peer, Place, Served, Start, serving
from bench.processes import CORES, cores, cpu_seconds, pin, spread
from bench.simulation import Machine, Mark, Process, Simulation, Step, Work, take_turns
from bench.speed_stage import Scene

TOLERANCE: Final = 0.25  # of the turns a second that were foretold
FEW: Final = 12  # visitors who never wait, while costs are taken
MANY: Final = 24
ROUNDS: Final = 3  # of few and many in turn: others have a machine now more, now less
PARTS: Final = 4  # pieces in which a worker works on a turn
SIMULATED_S: Final = 20


@dataclass(frozen=True, slots=True)
class Share:
    """CPU of a turn, in µs, by process."""

    worker: float
    redis: float
    upstream: float
    client: float


@dataclass(frozen=True, slots=True)
class Found:
    """Turns a second and ms until the first byte (median), foretold and measured."""

    workers: int
    share: Share
    foretold: float
    measured: float
    foretold_ms: float
    measured_ms: float
    others: float  # share of our cores that others used meanwhile

    @property
    def off(self) -> float:
        """By how much more was measured than foretold."""
        return self.measured / self.foretold - 1

    @property
    def kept(self) -> bool:
        """Whether the measured rate is within tolerance."""
        return abs(self.off) <= TOLERANCE


def with_workers(number: int) -> Peer:
    """Keyturn with so many workers."""

    def start(place: Place) -> Start:
        one = KEYTURN.start(place)
        return replace(one, environment={**one.environment, "WORKERS": str(number)})

    return replace(KEYTURN, name=f"keyturn-{number}", start=start)


async def measure(scene: Scene, seconds: float, seed: int) -> list[Found]:
    """What is foretold of one worker, and of two that share all cores with the rest; what comes."""
    return [await _measure(scene, workers, seconds, seed) for workers in (1, 2)]


async def _measure(scene: Scene, workers: int, seconds: float, seed: int) -> Found:
    async with _served(scene, workers) as (served, pids):
        few, many = list[Rush](), list[Rush]()
        for _ in range(ROUNDS):
            few.append(await _saturated(served, pids, workers, FEW, seconds / ROUNDS))
            many.append(await _saturated(served, pids, workers, MANY, seconds / ROUNDS))
        measured = mean(rush.a_second for rush in many)
        others = mean(rush.others for rush in many)
        share, half = _mean(few), measured / 2
        came = await arrive(served.door, WHOLE, half, seconds, seed)
    if came.tally.broken:
        raise Broken(f"{came.tally.broken} answers were no good")
    return Found(
        workers=workers,
        share=share,
        foretold=foretold_rate(share, workers, MANY) * (1 - others),
        measured=measured,
        foretold_ms=foretold_wait(share, workers, half, seed),
        measured_ms=median(came.first_ms),
        others=others,
    )


@dataclass(frozen=True, slots=True)
class Rush:
    """What came of visitors who never wait: turns a second, their cost, what others used."""

    a_second: float
    share: Share
    others: float


def _mean(rushes: Sequence[Rush]) -> Share:
    names = [each.name for each in fields(Share)]
    return Share(**{name: mean(getattr(rush.share, name) for rush in rushes) for name in names})


Pids = dict[str, Sequence[int]]


@asynccontextmanager
async def _served(scene: Scene, workers: int) -> AsyncIterator[tuple[Served, Pids]]:
    """A server with all of its workers up; one has a core to itself, several share all cores."""
    async with serving(with_workers(workers), scene.place) as served:
        await _still(served.pids)
        with redis.Redis.from_url(scene.place.redis_url) as store:
            server = store.info("server")["process_id"]
        pids: Pids = {
            "worker": served.pids,
            "redis": [server],
            "upstream": scene.direct.pids,
            "client": [os.getpid()],
        }
        if workers == 1:
            yield served, pids
            return
        for each in pids.values():
            spread(each)
        try:
            yield served, pids
        finally:
            for name in ("redis", "upstream", "client"):
                pin(pids[name], OTHERS_CORE)


async def _still(pids: Sequence[int], limit: float = 30) -> None:
    """Wait until these processes have started up: they do next to nothing for half a second."""
    async with asyncio.timeout(limit):
        before = -1.0
        while (now := cpu_seconds(pids)) - before > 0.02:
            before = now
            await asyncio.sleep(0.5)


def _spent(pids: Pids) -> dict[str, float]:
    return {name: cpu_seconds(each) for name, each in pids.items()}


async def _saturated(
    served: Served, pids: Pids, workers: int, visitors: int, seconds: float
) -> Rush:
    """So many visitors who never wait, and what share of our cores others used meanwhile.

    One worker is alone on its core: that is what is ours.
    """
    ours = range(len(CORES)) if workers > 1 else [PROXIES_CORE]
    async with Crowd(served.door) as crowd:
        await crowd.grow(visitors)
        since = time.monotonic()
        await crowd.take(repeat(WHOLE, 100), 60)
        turns = round(100 / (time.monotonic() - since) * seconds)
        before, spent, since = cores(ours), _spent(pids), time.monotonic()
        tally = await crowd.take(repeat(WHOLE, turns), 60 + 10 * seconds)
        took, after = time.monotonic() - since, cores(ours)
        cpu = {name: now - spent[name] for name, now in _spent(pids).items()}
    if tally.broken:
        raise Broken(f"{tally.broken} of {turns} answers were no good")
    whole, idle = after.whole - before.whole, after.idle - before.idle
    used = sum(cpu.values()) if workers > 1 else cpu["worker"]
    share = Share(**{name: each / turns * 1e6 for name, each in cpu.items()})
    return Rush(turns / took, share, max(0.0, (whole - idle - used) / whole))


# -- the same, simulated


def _path(share: Share, workers: int) -> tuple[Simulation, Callable[[], list[Step]], list[float]]:
    """The way of a turn through these processes, and how long it took to its end, in ms."""
    clock, took = Simulation(), list[float]()
    if workers > 1:
        machine = rest = Machine(clock, len(CORES))
    else:
        machine, rest = Machine(clock, 1), Machine(clock, 1)
    serving = cycle([Process(machine) for _ in range(workers)])
    store, upstream, client = Process(rest), Process(rest), Process(rest)

    def turn() -> list[Step]:
        worker = Work(next(serving), share.worker / PARTS)
        script, asking = Work(store, share.redis / 2), Work(client, share.client / 2)
        answer = Work(upstream, share.upstream)
        end = Mark(lambda us: took.append(us / 1000))
        return [asking, worker, script, worker, answer, worker, script, worker, asking, end]

    return clock, turn, took


def foretold_rate(share: Share, workers: int, visitors: int) -> float:
    """Turns a second of so many visitors who never wait."""
    clock, turn, _ = _path(share, workers)
    done = take_turns(clock, turn, visitors)
    next(done)
    clock.run(1e6)
    warm = next(done)
    clock.run((1 + SIMULATED_S) * 1e6)
    return (next(done) - warm) / SIMULATED_S


def foretold_wait(share: Share, workers: int, a_second: float, seed: int) -> float:
    """The median of ms until the answer, of turns that come at random."""
    clock, turn, took = _path(share, workers)
    simulation.arrive(clock, turn, a_second, seed)
    clock.run(SIMULATED_S * 1e6)
    return median(took)
