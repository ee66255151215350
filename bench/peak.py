"""How long a turn waits in the busiest minutes: one of the workers of a plan, simulated. Pure.

Visitors meet workers at random, so that each worker has its own part of the arrivals; Redis is
asked by all of them. Chunks come by upstream's beat, and each is a piece of the worker's work.
"""

from dataclasses import dataclass
from statistics import quantiles
from typing import Final

from bench.growth import Plan
from bench.simulation import (
    Beats,
    Machine,
    Mark,
    Pause,
    Process,
    Simulation,
    Step,
    Work,
    arrive,
)

WARM_S: Final = 8
LOOKED_AT_S: Final = 20


@dataclass(frozen=True, slots=True)
class Waits:
    """ms added until the first byte, and how busy the worker and Redis were."""

    median: float
    p99: float
    worker_busy: float
    redis_busy: float


def waits(plan: Plan, seed: int = 1) -> Waits:
    """What a turn waits for one of the workers, and for one of the primaries."""
    demand, costs = plan.demand, plan.costs
    clock, added = Simulation(), list[float]()
    worker, store = (Process(Machine(clock, 1)) for _ in range(2))
    mine = demand.turns_a_second / plan.workers
    others = demand.turns_a_second / plan.primaries - mine
    first_us, gap_us = demand.first_s * 1e6, 1e6 / demand.tokens_a_second

    def note(us: float) -> None:
        if clock.now > WARM_S * 1e6:
            added.append((us - first_us) / 1000)

    half, chunk = costs.worker_turn_us / 2, costs.worker_chunk_us
    admission, settlement = Work(store, costs.admission_us), Work(store, costs.settlement_us)
    turn: list[Step] = [
        *(Work(worker, half), admission, Pause(first_us), Work(worker, chunk), Mark(note)),
        *(Beats(worker, chunk, max(1, demand.tokens - 1), gap_us), settlement, Work(worker, half)),
    ]
    arrive(clock, lambda: turn, mine, seed)
    if others > 0:
        arrive(clock, lambda: [admission], others, seed + 1)
        arrive(clock, lambda: [settlement], others, seed + 2)
    clock.run((WARM_S + LOOKED_AT_S) * 1e6)
    while len(added) < 1000:  # few visitors: look for longer
        clock.run(clock.now * 2)
    shares = quantiles(added, n=100, method="inclusive")
    busy = [process.worked / clock.now for process in (worker, store)]
    return Waits(shares[49], shares[98], *busy)
