"""Turns on their way through processes and machines, one event after the other. Pure.

A process does one piece of work at a time, first come, first served. A machine lets as many of its
processes work at a time as it has cores; who has to wait for a core waits in line. Times are µs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random

Do = Callable[[], None]


class Simulation:
    """A clock, and what is to happen at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Do]] = []
        self._number = count()

    def at(self, when: float, do: Do) -> None:
        """Let something happen at a time; of two at the same time the first said is first."""
        heappush(self._due, (when, next(self._number), do))

    def run(self, until: float) -> None:
        """Let everything happen until then."""
        while self._due and self._due[0][0] <= until:
            self.now, _, do = heappop(self._due)
            do()
        self.now = until


class Machine:
    """So many cores, and a line of processes that wait for one."""

    def __init__(self, simulation: Simulation, cores: int) -> None:
        self._simulation = simulation
        self._free = cores
        self._ready: deque[Process] = deque()

    def wants_core(self, process: "Process") -> None:
        """A process that did nothing has work now."""
        self._ready.append(process)
        self._give()

    def _give(self) -> None:
        while self._free and self._ready:
            self._free -= 1
            process = self._ready.popleft()
            took, do = process.begin()
            over = partial(self._over, process, do)
            self._simulation.at(self._simulation.now + took, over)

    def _over(self, process: "Process", do: Do) -> None:
        self._free += 1
        process.end()
        do()
        self._give()


class Process:
    """One piece of work at a time, first come, first served."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._work: deque[tuple[float, Do]] = deque()
        self._stands = True
        self.worked = 0.0  # µs so far

    def add(self, took: float, do: Do) -> None:
        """Work that is to be done, and what happens then."""
        self._work.append((took, do))
        if self._stands:
            self._stands = False
            self._machine.wants_core(self)

    def begin(self) -> tuple[float, Do]:
        """It has a core now: its next piece of work."""
        took, do = self._work.popleft()
        self.worked += took
        return took, do

    def end(self) -> None:
        """A piece is done: it gives the core back, and waits in line again if there is more."""
        self._stands = not self._work
        if self._work:
            self._machine.wants_core(self)


@dataclass(frozen=True, slots=True)
class Work:
    """CPU that a turn needs of a process."""

    process: Process
    took: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Time that passes elsewhere."""

    took: float


@dataclass(frozen=True, slots=True)
class Beats:
    """Pieces of work that come by a beat, whether or not the one before is done."""

    process: Process
    took: float
    times: int
    gap: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Notes how long the turn has taken until here."""

    note: Callable[[float], None]


Step = Work | Pause | Beats | Mark


class Journey:
    """One turn on its way through its steps."""

    def __init__(self, simulation: Simulation, steps: Iterable[Step], over: Do) -> None:
        self._simulation, self._steps, self._over = simulation, iter(steps), over
        self._since, self._left = simulation.now, 0
        self._next()

    def _next(self) -> None:
        simulation = self._simulation
        for step in self._steps:
            if isinstance(step, Mark):
                step.note(simulation.now - self._since)
            elif isinstance(step, Work):
                return step.process.add(step.took, self._next)
            elif isinstance(step, Pause):
                return simulation.at(simulation.now + step.took, self._next)
            else:
                self._left = step.times
                return self._beat(step, simulation.now, 0)
        return self._over()

    def _beat(self, beats: Beats, began: float, number: int) -> None:
        beats.process.add(beats.took, self._one_less)
        if number + 1 < beats.times:
            due = began + (number + 1) * beats.gap
            self._simulation.at(due, lambda: self._beat(beats, began, number + 1))

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._next()


Turn = Callable[[], Iterable[Step]]


def arrive(simulation: Simulation, turn: Turn, a_second: float, seed: int) -> None:
    """Turns that come at random, whatever becomes of those before (Poisson)."""
    rng = Random(seed)

    def come() -> None:
        Journey(simulation, turn(), _nothing)
        simulation.at(simulation.now + rng.expovariate(a_second) * 1e6, come)

    simulation.at(rng.expovariate(a_second) * 1e6, come)


def take_turns(simulation: Simulation, turn: Turn, visitors: int) -> Iterator[int]:
    """So many visitors, each asking again as soon as it was answered; yields turns done so far."""
    done = 0

    def ask() -> None:
        Journey(simulation, turn(), ask_again)

    def ask_again() -> None:
        nonlocal done
        done += 1
        ask()

    for _ in range(visitors):
        ask()
    while True:
        yield done


def _nothing() -> None:
    pass
