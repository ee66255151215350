"""What Redis does for a turn: its CPU, its bytes and its memory, on a real server.

Turns are admitted and settled by our own ledger, many at a time, by scripts as they are: money
capped, the fence on, every second visitor with an IPv6 address and so with two of everything. The
server persists as production must (`appendonly yes`), and may have a replica. CPU is that of the
server's one thread which runs scripts, as the kernel counts it, with all it reads and writes.
"""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from redis.asyncio import from_url

from bench.processes import cpu_seconds
from security.budget import Caps, WorstCase
from security.ledger import Ledger, new_rid
from security.scripts import Rate, Turn, Visitor
from security.store import connect
from tests.faults.topology_stage import Node, in_step
from tests.security.ledger_stage import ledger_on
from tests.stage import wait_until

AT_ONCE: Final = 48  # calls; a worker has 50 connections
WORST: Final = WorstCase(300_000_000, 1_600_000, 1024)
CHARGE: Final = 700  # µUSD
LOOK: Final = 0.01  # seconds between two looks at a replica
PREFIX: Final = "keyturn:{t}:"
OFTEN: Final = Rate(burst=1_000_000, interval_us=1)
USUAL: Final[dict[str, Any]] = {
    "rate": Rate(burst=30, interval_us=2_000_000),
    "start": Rate(burst=10, interval_us=60_000_000),
    "start_of_all": OFTEN,
    "streams_per_address": 8,
    "streams_per_chain": 2,
    "caps": Caps(day=10**12, visitor=500_000),
}


@dataclass
class Chat:
    """A visitor with one chain, and the turn of it that runs."""

    visitor: Visitor
    chain: str = field(default_factory=new_rid)
    number: int = 0
    born_ms: int = 0
    rid: str = ""

    async def begin(self, ledger: Ledger) -> None:
        """Have the next turn admitted."""
        self.rid = new_rid()
        idem = new_rid()
        turn = Turn(self.chain, self.number, self.born_ms, idem, idem, idem, WORST)
        verdict = await ledger.redeem(self.rid, self.visitor, turn)
        self.number, self.born_ms = verdict.number, verdict.born_ms

    async def end(self, ledger: Ledger) -> None:
        """Have it settled."""
        await ledger.settle(self.rid, self.visitor, chain=self.chain, charge=CHARGE)


@dataclass(frozen=True, slots=True)
class Calls:
    """What one call cost: µs of the script, of the whole thread, of all threads; bytes each way."""

    count: int
    script_us: float
    thread_us: float
    process_us: float
    came_bytes: float
    went_bytes: float
    replica_bytes: float
    a_second: float


@dataclass(frozen=True, slots=True)
class RedisCost:
    """What was found of one server, and by how many ms its replica was behind: median, worst."""

    first: Calls
    later: Calls
    settled: Calls
    bytes_of: dict[str, float]  # of one key of each kind
    behind_ms: tuple[float, float]


@contextmanager
def servers(replicas: int) -> Iterator[list[Node]]:
    """A primary and so many replicas, each a process of its own."""
    with tempfile.TemporaryDirectory(prefix="kt-grow-") as directory, ExitStack() as stack:
        nodes = [Node(Path(directory) / str(number)) for number in range(1 + replicas)]
        for node in nodes:
            stack.callback(node.kill)
            node.start("--maxmemory-policy", "noeviction")
            node.ready()
            if node is not nodes[0]:
                node.says("REPLICAOF", "127.0.0.1", nodes[0].port)
                wait_until(node.follows)
        yield nodes


async def measure(turns: int, replicas: int = 0) -> RedisCost:
    """So many chats of two turns each, the first turns together and then the second ones."""
    with servers(replicas) as nodes:
        store: Any = connect(f"redis://127.0.0.1:{nodes[0].port}", timeout=5, connect_timeout=5)
        try:
            ledger = ledger_on(store, **USUAL)
            await ledger.load(connections=AT_ONCE)
            await _all([Chat(_visitor(-1 - number)) for number in range(AT_ONCE)], ledger)
            async with _watched(nodes) as lags:
                return await _measured(ledger, nodes[0], turns, lags)
        finally:
            await store.aclose()


async def _measured(ledger: Ledger, node: Node, turns: int, behind: list[float]) -> RedisCost:
    chats = [Chat(_visitor(number)) for number in range(turns)]
    empty = node.info("memory")["used_memory"]
    first = await _counted(node, chats, lambda chat: chat.begin(ledger))
    grown = (node.info("memory")["used_memory"] - empty) / turns
    sizes = _sizes(node, turns)
    more = grown / sum(sizes.values())  # the server's own tables are in no key
    settled = await _counted(node, chats, lambda chat: chat.end(ledger))
    sizes["closed"] = _sizes(node, turns)["closed"]
    behind.clear()
    later = await _counted(node, chats, lambda chat: chat.begin(ledger))
    a_ms = later.replica_bytes * later.a_second / 1000  # bytes; it is as fast as it can be
    sizes = {kind: size * more for kind, size in sizes.items()}
    found = (median(behind) / a_ms, max(behind) / a_ms) if behind else (0.0, 0.0)
    return RedisCost(first, later, settled, sizes, found)


def _visitor(number: int) -> Visitor:
    """As long as the keyed hashes are; every second one has a wider prefix, of its own."""
    name = f"visitor-{number:013d}"
    return Visitor(name, f"wide-{number:016d}" if number % 2 else None)


async def _all(chats: Sequence[Chat], ledger: Ledger) -> None:
    for chat in chats:
        await chat.begin(ledger)
        await chat.end(ledger)


async def _counted(
    node: Node, chats: Sequence[Chat], do: Callable[[Chat], Awaitable[None]]
) -> Calls:
    """Do this for all, many at a time, and what it cost."""
    loop, waiting = asyncio.get_running_loop(), iter(chats)

    async def some() -> None:
        for chat in waiting:
            await do(chat)

    pid = node.info("server")["process_id"]
    before, spent, since = _counters(node), cpu_seconds([pid]), loop.time()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    took, spent = loop.time() - since, cpu_seconds([pid]) - spent
    each = {name: (now - before[name]) / len(chats) for name, now in _counters(node).items()}
    assert round(each["calls"] * len(chats)) == len(chats), "a call was repeated"
    return Calls(
        count=len(chats),
        script_us=each["script_us"],
        thread_us=each["thread_us"],
        process_us=spent / len(chats) * 1e6,
        came_bytes=each["came"],
        went_bytes=each["went"],
        replica_bytes=each["replicated"],
        a_second=len(chats) / took,
    )


def _counters(node: Node) -> dict[str, float]:
    cpu, stats = node.info("cpu"), node.info("stats")
    evalsha = node.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    thread = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
    return {
        "calls": evalsha["calls"],
        "script_us": evalsha["usec"],
        "thread_us": thread * 1e6,
        "came": stats["total_net_input_bytes"],
        "went": stats["total_net_output_bytes"] - stats.get("total_net_repl_output_bytes", 0),
        "replicated": node.info("replication")["master_repl_offset"],
    }


# -- memory


def _sizes(node: Node, turns: int) -> dict[str, float]:
    """Bytes of a turn in keys of each kind, as the server says."""
    found: dict[str, float] = defaultdict(float)
    with node.client() as client:
        keys = [key for key in client.scan_iter(f"{PREFIX}*", count=1000) if _kind(key)]
        for some in batched(keys, 1000):
            with client.pipeline(transaction=False) as asked:
                for key in some:
                    asked.memory_usage(key, samples=0)
                for key, size in zip(some, asked.execute(), strict=True):
                    found[_kind(key)] += (size or 0) / turns
    return dict(found)


def _kind(key: str) -> str:
    """`chain:x` is a chain; a visitor's money of a day is `spend`, and that of all is none."""
    kind, _, rest = key.removeprefix(PREFIX).partition(":")
    return "" if kind == "spend" and ":" not in rest else kind


def batched(keys: list[str], size: int) -> Iterator[list[str]]:
    """So many at a time."""
    return (keys[start : start + size] for start in range(0, len(keys), size))


# -- how far behind a replica is


@asynccontextmanager
async def _watched(nodes: list[Node]) -> AsyncIterator[list[float]]:
    """By how many bytes the replica is behind, at most, looked at again and again."""
    behind: list[float] = []
    if len(nodes) == 1:
        yield behind
        return
    wait_until(lambda: in_step(*nodes))
    over = asyncio.Event()  # the library may swallow that a task was cancelled
    async with asyncio.TaskGroup() as group:
        group.create_task(_look(nodes, behind, over))
        try:
            yield behind
        finally:
            over.set()


async def _look(nodes: list[Node], behind: list[float], over: asyncio.Event) -> None:
    primary, replica = (from_url(f"redis://127.0.0.1:{node.port}") for node in nodes)
    async with primary, replica:
        while not over.is_set():
            has = (await replica.info("replication"))["slave_repl_offset"]
            written = (await primary.info("replication"))["master_repl_offset"]
            behind.append(max(0, written - has))
            await asyncio.sleep(LOOK)
