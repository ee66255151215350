"""The simulation is held to what queueing theory says exactly, within four standard errors."""

from collections.abc import Callable
from itertools import cycle
from math import factorial, sqrt
from random import Random
from statistics import mean, stdev

import pytest

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
    take_turns,
)

SERVICE = 100.0  # µs
RUNS = 12
SECONDS = 2


def waits(seed: int, load: float, service: Callable[[Random], float], servers: int = 1) -> float:
    """The mean wait of turns before so many cores, of which each may take any turn."""
    simulation, rng, found = Simulation(), Random(f"service {seed}"), list[float]()
    machine = Machine(simulation, servers)

    def turn() -> list[Step]:
        took = service(rng)
        return [Work(Process(machine), took), Mark(lambda whole: found.append(whole - took))]

    arrive(simulation, turn, load * servers / SERVICE * 1e6, seed)
    simulation.run(SECONDS * 1e6)
    return mean(found)


def errors_off(expected: float, found: list[float]) -> float:
    """How many standard errors the mean of independent runs is away."""
    return abs(mean(found) - expected) * sqrt(len(found)) / stdev(found)


def fixed(_: Random) -> float:
    return SERVICE


def exponential(rng: Random) -> float:
    return rng.expovariate(1 / SERVICE)


def md1(load: float) -> float:
    """Pollaczek and Khinchine, for a service that always takes the same."""
    return load * SERVICE / (2 * (1 - load))


def mmc(load: float, servers: int) -> float:
    """Erlang C."""
    offered = load * servers
    last = offered**servers / factorial(servers) / (1 - load)
    waiting = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return waiting * SERVICE / (servers * (1 - load))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_waits_as_md1(load: float) -> None:
    """With a service of fixed length; and the same test tells an exponential one."""
    assert errors_off(md1(load), [waits(seed, load, fixed) for seed in range(RUNS)]) < 4
    others = [waits(seed, load, exponential) for seed in range(RUNS)]
    assert errors_off(md1(load), others) > 4
    assert errors_off(2 * md1(load), others) < 4  # M/M/1 waits twice as long


@pytest.mark.parametrize("servers", [2, 4])
def test_many_servers_wait_as_mmc(servers: int) -> None:
    """A line before several cores; with one core less it would be another."""
    found = [waits(seed, 0.7, exponential, servers) for seed in range(RUNS)]
    assert errors_off(mmc(0.7, servers), found) < 4
    assert errors_off(mmc(0.7, servers - 1), found) > 4


def test_as_many_are_on_their_way_as_little_says() -> None:
    """Turns that only last: on average rate times duration are open (Little's law)."""
    simulation, open_now, seen = Simulation(), [0], list[int]()

    def turn() -> list[Step]:
        open_now[0] += 1
        return [Pause(50_000), Mark(lambda _: open_now.__setitem__(0, open_now[0] - 1))]

    arrive(simulation, turn, 400, seed=1)
    for step in range(100, 4000):
        simulation.run(step * 5000)
        seen.append(open_now[0])
    assert mean(seen) == pytest.approx(400 * 0.05, rel=0.05)


def test_a_process_does_one_thing_at_a_time_on_any_machine() -> None:
    """Two pieces for one process take twice as long, on two cores too; two processes do not."""
    for same, ends in ((True, [100, 200]), (False, [100, 100])):
        simulation, found = Simulation(), list[float]()
        machine = Machine(simulation, 2)
        first = Process(machine)
        for process in (first, first if same else Process(machine)):
            process.add(100, lambda: found.append(simulation.now))  # noqa: B023  # in this round
        simulation.run(1e6)
        assert found == ends


def test_a_busy_core_is_shared() -> None:
    """Processes that always have work get the same share of too few cores, and no more."""
    simulation = Simulation()
    machine = Machine(simulation, 2)
    processes = [Process(machine) for _ in range(3)]
    next_one = cycle(processes)
    done = take_turns(simulation, lambda: [Work(next(next_one), 100)], 30)
    next(done)
    simulation.run(1e6)
    assert next(done) == pytest.approx(2 * 1e6 / 100, rel=0.01)
    for process in processes:
        assert process.worked == pytest.approx(2e6 / 3, rel=0.01)


def test_beats_keep_their_time() -> None:
    """A chunk that is late does not delay when the next one comes; all are done in the end."""
    simulation, ends = Simulation(), list[float]()
    process = Process(Machine(simulation, 1))
    process.add(2500, lambda: None)  # so that the first two beats wait
    steps: list[Step] = [Beats(process, 10, 5, 1000), Mark(ends.append)]
    done = take_turns(simulation, lambda: steps, 1)
    next(done)
    simulation.run(4009)
    assert ends == []
    simulation.run(4011)
    assert ends == [4010]


def test_the_same_seed_is_the_same_run() -> None:
    """To the last digit; another seed is another run."""
    assert waits(3, 0.6, fixed) == waits(3, 0.6, fixed) != waits(4, 0.6, fixed)
