"""What `make grow` found, as it is kept in `bench/grow.json`, and what a turn costs by it."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.growth import KIB, Costs
from bench.peak import Waits
from bench.proof import said_by
from bench.redis_cost import Calls, RedisCost
from bench.validation import Found, Share
from bench.worker_cost import WorkerCost

FILE: Final = Path(__file__).parent / "grow.json"
PACKAGES: Final = ("uvicorn", "uvloop", "fastapi", "aiohttp", "redis")
FIRSTS: Final = 0.25  # of turns begin a chat


@dataclass(frozen=True, slots=True)
class Record:
    """A run: when and where, and all that was found; `waits` by chats a day."""

    taken: str
    redis: RedisCost  # without a replica
    replicated: RedisCost
    worker: WorkerCost
    validation: list[Found]
    waits: dict[str, Waits]

    @property
    def costs(self) -> Costs:
        """What one turn costs, Redis with a replica."""
        calls, of = self.replicated, self.redis.bytes_of
        return Costs(
            admission_us=mixed(calls, lambda call: call.thread_us),
            settlement_us=calls.settled.thread_us,
            worker_turn_us=self.worker.stream_us,
            worker_chunk_us=self.worker.chunk_us,
            worker_idle_mib=self.worker.idle_mib,
            stream_kib=self.worker.stream_kib,
            chain_bytes=of["chain"],
            visitor_bytes=of["spend"],
            closed_bytes=of["closed"] + of["rate"] + of["start"],
            open_bytes=of["hold"] + of["inflight"] + of["holds"],
            redis_net_bytes=mixed(calls, both_ways) + both_ways(calls.settled),
            replica_bytes=mixed(calls, lambda call: call.replica_bytes)
            + calls.settled.replica_bytes,
            chunk_bytes=self.worker.chunk_bytes,
        )


def mixed(cost: RedisCost, value: Callable[[Calls], float]) -> float:
    """Of an admission: of four turns one is the first of a chat."""
    return FIRSTS * value(cost.first) + (1 - FIRSTS) * value(cost.later)


def both_ways(call: Calls) -> float:
    """Bytes between a worker and Redis."""
    return call.came_bytes + call.went_bytes


def here_and_now() -> str:
    """Date, machine, load and versions, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / KIB**3
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    server = said_by("redis-server", "--version", r"v=(\S+)", "Redis")
    ran = ", ".join([f"Python {platform.python_version()}", *packages, server])
    return (
        f"{datetime.now(UTC):%d %B %Y}; {os.cpu_count()} virtual cores shared with other work, "
        f"{memory:.0f} GiB, {platform.system()}; {ran}. Load before the run: "
        f"{os.getloadavg()[0]:.1f}"
    )


def save(record: Record, to: Path = FILE) -> None:
    """Write it down."""
    to.write_text(json.dumps(asdict(record), indent=1) + "\n")


def load(of: Path = FILE) -> Record:
    """What was written down."""
    said: dict[str, Any] = json.loads(of.read_text())
    return Record(
        taken=said["taken"],
        redis=_redis_cost(said["redis"]),
        replicated=_redis_cost(said["replicated"]),
        worker=WorkerCost(**said["worker"]),
        validation=[
            Found(**{**found, "share": Share(**found["share"])}) for found in said["validation"]
        ],
        waits={chats: Waits(**found) for chats, found in said["waits"].items()},
    )


def _redis_cost(said: dict[str, Any]) -> RedisCost:
    median, worst = said["behind_ms"]
    first, later, settled = (Calls(**said[name]) for name in ("first", "later", "settled"))
    return RedisCost(first, later, settled, said["bytes_of"], (median, worst))
