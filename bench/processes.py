"""What a process and all that descend from it cost, as the kernel counts it (Linux)."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
CORES: Final = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in RAM: `rss` counts shared pages in full, `pss` by how many share them.

    `own` are those that stand in no file: what the processes themselves put there. The others are
    programs and libraries, whose share changes with whoever else uses them.
    """

    rss: int
    pss: int
    own: int


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    tasks = (PROC / str(pid) / "task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *(each for child in children for each in family(child))]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far, exact to less than a microsecond.

    Threads that have ended are in it, child processes that have ended are not.
    """
    # The clock of another process, numbered as clock_getcpuclockid(3) does.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def memory(pids: Sequence[int]) -> Memory:
    """The memory of these processes together."""
    found = {"Rss": 0, "Pss": 0, "Anonymous": 0}
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] += int(rest.split()[0]) * 1024
    return Memory(*found.values())


def pin(pids: Sequence[int], core: int) -> None:
    """Keep these processes on one core, counted from 0, where there is more than one."""
    for pid in pids:
        for task in (PROC / str(pid) / "task").iterdir():
            os.sched_setaffinity(int(task.name), {CORES[core % len(CORES)]})


def spread(pids: Sequence[int]) -> None:
    """Let these processes run on every core again."""
    for pid in pids:
        for task in (PROC / str(pid) / "task").iterdir():
            os.sched_setaffinity(int(task.name), set(CORES))


@dataclass(frozen=True, slots=True)
class Cores:
    """Seconds that some cores had so far, and that they did nothing in."""

    whole: float
    idle: float


def cores(wanted: Sequence[int]) -> Cores:
    """Of these cores, counted from 0; what the machine gave to others is none of its idle time."""
    names = {f"cpu{CORES[core % len(CORES)]}" for core in wanted}
    lines = (line.split() for line in (PROC / "stat").read_text().splitlines())
    # user nice system idle iowait irq softirq steal; guests are in user
    ticks = [[int(number) for number in line[1:9]] for line in lines if line[0] in names]
    a_second = os.sysconf("SC_CLK_TCK")
    whole, idle = sum(map(sum, ticks)), sum(each[3] + each[4] for each in ticks)
    return Cores(whole / a_second, idle / a_second)
