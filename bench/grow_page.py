"""What was found, as the parts of `docs/grow.md` that `make grow` writes: a pure text of a record.

Each part stands on the page between two comments that name it; all else there is left as it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.grow_record import Record
from bench.growth import CHAIN_S, Demand, Plan, Wall, lost, walls
from bench.peak import Waits
from bench.redis_cost import Calls, RedisCost
from bench.slots import moved, sizes_of, spread
from bench.validation import TOLERANCE
from tests.stage import ROOT

PAGE: Final = ROOT / "docs" / "grow.md"
SCALES: Final = (10_000, 100_000, 1_000_000, 10_000_000, 50_000_000)
TENANTS: Final = (10, 100, 1000)
PRIMARIES: Final = (3, 6)
CUT_S: Final = 1.0  # that a replica had not been heard of before the primary died
DEAD: Final = 1 / 4  # of the workers, in the same moment

Row = Sequence[str]


def parts(record: Record) -> dict[str, str]:
    """Every part, by its name."""
    plans = [Plan(record.costs, Demand(chats)) for chats in SCALES]
    return {
        "taken": f"{record.taken}.",
        "redis": table(redis_rows(record), "A call"),
        "memory": table(memory_rows(record), "Redis keeps"),
        "worker": table(worker_rows(record), "A worker"),
        "validation": table(validation_rows(record), "Visitors who never wait"),
        "walls": table(wall_rows(walls(record.costs, Demand(1))), "Chats a day"),
        "plan": turned(plan_rows(plans, record.waits), "Chats a day"),
        "tenants": table(tenant_rows(), "Tenants"),
        "behind": behind(record.replicated),
        "failover": table(failover_rows(plans), "Chats a day"),
    }


def table(rows: Iterable[Row], corner: str) -> str:
    """Markdown; the first row is the head, without its first cell."""
    head, *body = rows
    lines = [(corner, *head), ("---", *["---:"] * len(head)), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def turned(rows: Iterable[Row], corner: str) -> str:
    """The same with rows as columns."""
    head, *body = rows
    top, *others = zip((corner, *head), *body, strict=True)
    return table([top[1:], *others], corner)


def redis_rows(record: Record) -> Iterator[Row]:
    """What Redis does for each kind of call, with a replica and without."""
    yield (
        *("CPU", "calls a second of one core", "reached", "in the script"),
        *("bytes in", "bytes out", "bytes to a replica"),
    )
    for name, cost in (("", record.redis), (", with a replica", record.replicated)):
        yield f"admission of a first turn{name}", *_call(cost.first)
        yield f"admission of a later turn{name}", *_call(cost.later)
        yield f"settlement{name}", *_call(cost.settled)


def _call(call: Calls) -> Row:
    replicated = f"{call.replica_bytes:,.0f}" if call.replica_bytes else "–"
    return (
        *(f"{call.thread_us:.0f} µs", f"{1e6 / call.thread_us:,.0f}"),
        *(f"{call.a_second:,.0f}", f"{call.script_us:.0f} µs"),
        *(f"{call.came_bytes:,.0f}", f"{call.went_bytes:,.0f}", replicated),
    )


def memory_rows(record: Record) -> Iterator[Row]:
    """What is kept of a turn, and for how long."""
    costs = record.costs
    yield "bytes", "for"
    yield "a chain", f"{costs.chain_bytes:,.0f}", f"{CHAIN_S // 60} minutes after its last turn"
    yield "a visitor's money of a day", f"{costs.visitor_bytes:,.0f}", "2 days"
    yield "a turn that runs", f"{costs.open_bytes:,.0f}", "until it is settled"
    yield "limits, and a turn that is over", f"{costs.closed_bytes:,.0f}", "about a minute"


def worker_rows(record: Record) -> Iterator[Row]:
    """What a worker needs."""
    worker = record.worker
    yield ("",)
    yield "CPU of a turn in one piece", f"{worker.whole_us:,.0f} µs"
    yield "CPU of a stream, but for its chunks", f"{worker.stream_us:,.0f} µs"
    yield "CPU of a chunk that comes alone", f"{worker.chunk_us:,.0f} µs"
    yield "memory at rest, after some thousand turns", f"{worker.idle_mib:,.0f} MiB"
    yield f"memory of each of {worker.streams:,} open streams", f"{worker.stream_kib:,.1f} KiB"
    yield "their chunks within 100 ms", f"{worker.on_time_percent:.2f} %"


def validation_rows(record: Record) -> Iterator[Row]:
    """What was foretold, and what came."""
    yield (
        *("CPU of a turn, of workers", "turns a second, foretold", "measured", ""),
        *("ms at half of it, foretold", "measured"),
    )
    for found in record.validation:
        verdict = f"{found.off:+.0%}, {'kept' if found.kept else '**missed**'} (± {TOLERANCE:.0%})"
        name = f"{found.workers} worker{'s' if found.workers > 1 else ''}"
        yield (
            f"{name}; others had {found.others:.0%} of our cores",
            f"{found.share.worker:,.0f} µs",
            *(f"{found.foretold:,.0f}", f"{found.measured:,.0f}", verdict),
            *(f"{found.foretold_ms:.1f}", f"{found.measured_ms:.1f}"),
        )


def wall_rows(found: Sequence[Wall]) -> Iterator[Row]:
    """What is full first, and what moves it."""
    yield "what is full", "what moves it"
    for wall in found:
        yield rounded(wall.chats), wall.what, wall.remedy


def plan_rows(plans: Sequence[Plan], found: dict[str, Waits]) -> Iterator[Row]:
    """What each scale needs in its busiest minutes."""
    yield (
        *("turns a second", "streams in flight", "workers", "their cores, busy", "their memory"),
        *(
            "Redis' core, busy",
            "primaries, a tenant each",
            "Redis' memory",
            "to visitors",
            "to Redis",
        ),
        *("added wait, median", "p99", "upstream a day"),
    )
    for plan in plans:
        waits = found[f"{plan.demand.chats:.0f}"]
        yield (
            *(f"{plan.demand.chats:,.0f}", few(plan.demand.turns_a_second), few(plan.streams)),
            *(f"{plan.workers:,}", few(plan.worker_cores), size(plan.worker_mib)),
            *(f"{plan.redis_cores:.1%}", f"{plan.primaries}", size(plan.redis_mib)),
            *(f"{few(plan.mbit)} Mbit/s", f"{few(plan.redis_mbit)} Mbit/s"),
            *(f"{waits.median:.1f} ms", f"{waits.p99:.1f} ms", f"{plan.usd_a_day:,.0f} USD"),
        )


def tenant_rows() -> Iterator[Row]:
    """The busiest primary's share of all load: of the usual draw of names, and of a bad one."""
    heads = [f"{count} primaries" for count in PRIMARIES]
    yield "the biggest tenant", *(f"{head}, {how}" for head in heads for how in HOWS)
    for name, skew in (("of one size", 0.0), ("the n-th an n-th of the first", 1.0)):
        for tenants in TENANTS:
            sizes = sizes_of(tenants, skew)
            cells = [cell for count in PRIMARIES for cell in _shares(tenants, count, skew)]
            yield f"{tenants:,}, {name}", f"{sizes[0] / sum(sizes):.0%}", *cells


HOWS: Final = ("by chance (bad)", "slots moved")


def _shares(tenants: int, primaries: int, skew: float) -> Row:
    found = spread(tenants, primaries, skew, draws=100)
    by_hand = moved(sizes_of(tenants, skew), primaries)
    return f"{found.median:.0%} ({found.bad:.0%})", f"{by_hand:.0%}"


def failover_rows(plans: Sequence[Plan]) -> Iterator[Row]:
    """What is lost where the replica is a second behind, and a quarter of the workers dies too."""
    yield (
        *("turns it has not heard of: fenced", "chats begun: lost", "money of them"),
        *("not given back", "chats exchanged, at most"),
    )
    for plan in plans:
        found = lost(plan, CUT_S, DEAD)
        yield (
            *(f"{plan.demand.chats:,.0f}", few(found.turns), few(found.begun)),
            *(f"{found.usd:.4f} USD", f"{found.unrestored_usd:.4f} USD", few(found.exchanged)),
        )


def behind(cost: RedisCost) -> str:
    """How far a replica was behind a primary that had as much to do as it could."""
    usual, worst = cost.behind_ms
    return (
        f"With {cost.later.a_second:,.0f} admissions a second, and all of it on one box, "
        f"the replica was {usual:.1f} ms behind (median), and {worst:.0f} ms at worst."
    )


def few(number: float) -> str:
    """With as many digits as say something."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def rounded(number: float) -> str:
    """Two digits, and thousands apart."""
    return f"{float(f'{number:.2g}'):,.0f}"


def size(mib: float) -> str:
    """In MiB, or GiB where that is shorter."""
    return f"{mib / 1024:,.1f} GiB" if mib >= 1024 else f"{mib:,.0f} MiB"


def write(found: dict[str, str], page: Path = PAGE) -> None:
    """Put each part in its place on the page, which must have one for each."""
    text = page.read_text()
    for name, part in found.items():
        text = put(text, name, part)
    page.write_text(text)


def put(text: str, name: str, part: str) -> str:
    """The page with this part in place of the one that it had."""
    begin, end = marks(name)
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise LookupError(f"the page has no place for {name!r}: {begin} and {end}")
    return f"{before}{begin}\n{part}\n{end}{after}"


def marks(name: str) -> tuple[str, str]:
    """The comments between which a part stands."""
    return f"<!-- {name}: written by make grow -->", f"<!-- end of {name} -->"
