"""What a worker does for a turn: its CPU, apart for the turn and for its chunks, and its memory."""

from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.connection import Shape
from bench.measures import MIB, WHOLE, cpu_of, streams
from bench.peers import KEYTURN, serving
from bench.processes import memory
from bench.speed_stage import Scene
from bench.swift_upstream import chunk_bytes

FEW: Final = Shape(stream=True, chunks=10, first_ms=20, gap_ms=10)
MANY: Final = Shape(stream=True, chunks=110, first_ms=20, gap_ms=10)
VISITORS: Final = 64  # at a time: it is about as busy as it is planned to be


@dataclass(frozen=True, slots=True)
class WorkerCost:
    """What was found; CPU in µs, medians of the rounds."""

    whole_us: float  # a turn in one piece
    stream_us: float  # a stream but for its chunks, by the line through a short and a long one
    chunk_us: float
    idle_mib: float
    stream_kib: float
    streams: int  # at which that was
    on_time_percent: float  # of their chunks, within 100 ms
    chunk_bytes: float


async def measure(scene: Scene, rounds: int, seconds: float, many: int) -> WorkerCost:
    """Rounds of all three in turn, then so many streams at once."""
    whole, few, long = list[float](), list[float](), list[float]()
    async with serving(KEYTURN, scene.place) as served:
        for _ in range(rounds):
            whole.append(await cpu_of(served, WHOLE, 16, seconds))
            few.append(await cpu_of(served, FEW, VISITORS, seconds))
            long.append(await cpu_of(served, MANY, VISITORS, seconds))
        resting = memory(served.pids).rss
    chunks = [
        (more - less) / (MANY.chunks - FEW.chunks) for less, more in zip(few, long, strict=True)
    ]
    chunk = median(chunks)
    found = await streams(KEYTURN, scene, (many * 2 // 5, many), 3)
    return WorkerCost(
        whole_us=median(whole),
        stream_us=median(few) - FEW.chunks * chunk,
        chunk_us=chunk,
        idle_mib=resting / MIB,
        stream_kib=found["stream_kib"],
        streams=round(found["open"]),
        on_time_percent=found["on_time_percent"],
        chunk_bytes=chunk_bytes(),
    )
