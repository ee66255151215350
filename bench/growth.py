"""How much of everything so many chats a day need, from what one turn costs. Pure.

What a turn costs was measured (`Costs`), what people do is assumed (`Demand`); all the rest is
arithmetic. Nothing is planned to be busier than `FULL`, in the busiest minutes of a day.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, fsum
from typing import Final

DAY_S: Final = 86_400
FULL: Final = 0.6  # of a core: beyond, waiting grows faster than load
# Chats that begin in each hour of a day, for visitors of one part of the world.
HOURS: Final = (
    6,
    4,
    3,
    2,
    2,
    3,
    5,
    8,
    11,
    13,
    14,
    14,
    13,
    13,
    13,
    13,
    13,
    14,
    15,
    17,
    19,
    18,
    14,
    9,
)
GOOD_DAY: Final = 1.4  # the busiest minutes of a busy day, to the same hour of a usual one
PEAK: Final = round(max(HOURS) / (fsum(HOURS) / len(HOURS)) * GOOD_DAY, 2)
KIB, MIB = 1024, 1024 * 1024

# Settings as they are, and what Redis and the library set.
STARTS_A_MINUTE: Final = 600
STREAMS_OF_A_WORKER: Final = 1000
CONNECTIONS_OF_A_WORKER: Final = 54
REDIS_CLIENTS: Final = 10_000
DAY_USD: Final = 5.0
CHAIN_S: Final = 1800  # a chain is kept so long after its last turn: TOKEN_TTL
SPEND_S: Final = 2 * DAY_S
CLOSED_S: Final = 60


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured of one turn; CPU in µs, all else in bytes unless it says otherwise."""

    admission_us: float  # of Redis' thread, network and AOF included
    settlement_us: float
    worker_turn_us: float  # of a worker, but for its chunks
    worker_chunk_us: float
    worker_idle_mib: float
    stream_kib: float
    chain_bytes: float
    visitor_bytes: float  # what is kept of a visitor for two days
    closed_bytes: float  # what is kept of a turn for a minute
    open_bytes: float  # what is kept of a turn while it runs
    redis_net_bytes: float  # of a turn, both ways
    replica_bytes: float  # of a turn, to each replica
    chunk_bytes: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What people do, and what upstream does: assumed."""

    chats: float  # a day
    turns: float = 4  # of a chat
    chats_of_a_visitor: float = 1.5  # a day
    prompt_tokens: float = 700  # of a turn, with the conversation so far
    tokens: int = 250  # of an answer; each is a chunk
    tokens_a_second: float = 60
    first_s: float = 0.6  # until the first of them
    peak: float = PEAK  # the busiest minutes, to the mean of a day
    input_usd: float = 0.40  # a million
    output_usd: float = 1.60

    @property
    def turns_a_second(self) -> float:
        """In the busiest minutes."""
        return self.chats * self.turns * self.peak / DAY_S

    @property
    def starts_a_second(self) -> float:
        """New chains, in the busiest minutes."""
        return self.chats * self.peak / DAY_S

    @property
    def stream_s(self) -> float:
        """From the admission of a turn to its settlement."""
        return self.first_s + self.tokens / self.tokens_a_second

    @property
    def turn_usd(self) -> float:
        """What upstream charges for a turn."""
        return (self.prompt_tokens * self.input_usd + self.tokens * self.output_usd) / 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed for a demand at these costs."""

    costs: Costs
    demand: Demand

    @property
    def streams(self) -> float:
        """In flight: arrivals a second times how long each stays (Little's law)."""
        return self.demand.turns_a_second * self.demand.stream_s

    @property
    def worker_us(self) -> float:
        """CPU of a worker for a turn."""
        return self.costs.worker_turn_us + self.demand.tokens * self.costs.worker_chunk_us

    @property
    def redis_us(self) -> float:
        """CPU of Redis for a turn."""
        return self.costs.admission_us + self.costs.settlement_us

    @property
    def worker_cores(self) -> float:
        """That workers keep busy."""
        return self.demand.turns_a_second * self.worker_us / 1e6

    @property
    def workers(self) -> int:
        """None busier than `FULL`, and none with more streams than one takes."""
        by_streams = ceil(self.streams / STREAMS_OF_A_WORKER)
        return max(1, ceil(self.worker_cores / FULL), by_streams)

    @property
    def redis_cores(self) -> float:
        """That Redis keeps busy."""
        return self.demand.turns_a_second * self.redis_us / 1e6

    @property
    def primaries(self) -> int:
        """And so tenants, each on a primary of its own, none busier than `FULL`."""
        return max(1, ceil(self.redis_cores / FULL))

    @property
    def redis_mib(self) -> float:
        """What Redis keeps of living chains, of two days' visitors, and of turns."""
        demand, costs = self.demand, self.costs
        visitors_a_second = demand.chats / demand.chats_of_a_visitor / DAY_S
        return (
            demand.starts_a_second * CHAIN_S * costs.chain_bytes
            + visitors_a_second * SPEND_S * costs.visitor_bytes
            + demand.turns_a_second * CLOSED_S * costs.closed_bytes
            + self.streams * costs.open_bytes
        ) / MIB

    @property
    def worker_mib(self) -> float:
        """Of all workers together."""
        return (
            self.workers * self.costs.worker_idle_mib + self.streams * self.costs.stream_kib / KIB
        )

    @property
    def mbit(self) -> float:
        """Answers on their way to visitors; as much comes in from upstream."""
        return self._mbit(self.demand.tokens * self.costs.chunk_bytes)

    @property
    def redis_mbit(self) -> float:
        """Between workers and Redis, both ways."""
        return self._mbit(self.costs.redis_net_bytes)

    @property
    def replica_mbit(self) -> float:
        """To each replica."""
        return self._mbit(self.costs.replica_bytes)

    @property
    def usd_a_day(self) -> float:
        """What upstream charges."""
        return self.demand.chats * self.demand.turns * self.demand.turn_usd

    def _mbit(self, bytes_of_a_turn: float) -> float:
        return self.demand.turns_a_second * bytes_of_a_turn * 8 / 1e6


@dataclass(frozen=True, slots=True)
class Wall:
    """Something that is full at so many chats a day, and what moves it."""

    chats: float
    what: str
    remedy: str


def walls(costs: Costs, demand: Demand) -> list[Wall]:
    """What is full first, and then: one worker, one Redis, and the settings as they are."""
    return sorted(_walls(Plan(costs, demand)), key=lambda wall: wall.chats)


def _walls(plan: Plan) -> Iterator[Wall]:
    demand = plan.demand
    per_chat = demand.turns * demand.peak / DAY_S  # turns a second at the peak, of one chat a day
    worker = FULL / (per_chat * plan.worker_us / 1e6)
    streams = STREAMS_OF_A_WORKER / (per_chat * demand.stream_s)
    workers = REDIS_CLIENTS // CONNECTIONS_OF_A_WORKER
    yield Wall(DAY_USD / (demand.turns * demand.turn_usd), "`DAILY_BUDGET_USD`", "your money")
    yield Wall(STARTS_A_MINUTE / 60 * DAY_S / demand.peak, "`START_LIMIT_GLOBAL`", "a higher limit")
    yield Wall(worker, "one worker's core", "more workers: `WORKERS`, machines")
    yield Wall(streams, "`MAX_STREAMS` of one worker", "more workers, or a higher limit")
    yield Wall(FULL / (per_chat * plan.redis_us / 1e6), "one core of Redis", "a second tenant")
    yield Wall(
        worker * workers,
        f"Redis' `maxclients`, with {workers} workers",
        "`maxclients 20000` in redis.conf",
    )


@dataclass(frozen=True, slots=True)
class Lost:
    """What a promoted replica has not heard of, where it is so many seconds behind."""

    seconds: float
    turns: float  # admitted, and unknown to it: fenced
    begun: float  # chains begun: unknown, their visitors start anew
    usd: float  # of the day's total: given back by workers that live
    unrestored_usd: float  # begun by workers that died too: nobody knows of these holds
    exchanged: float  # living chats whose next turn takes one round trip more


def lost(plan: Plan, seconds: float, workers_dead: float) -> Lost:
    """What a failover loses, where this share of the workers died with the primary."""
    demand = plan.demand
    usd = demand.turns_a_second * seconds * demand.turn_usd
    return Lost(
        seconds=seconds,
        turns=demand.turns_a_second * seconds,
        begun=demand.starts_a_second * seconds,
        usd=usd,
        unrestored_usd=usd * workers_dead,
        exchanged=demand.starts_a_second * CHAIN_S,
    )
