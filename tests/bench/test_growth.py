"""What is reckoned: by hand, by chance, and as it stands on the page."""

import asyncio
import time
from bisect import bisect
from dataclasses import replace
from math import comb, sqrt
from pathlib import Path
from random import Random
from statistics import mean, stdev

import pytest
from redis.crc import key_slot

from bench import grow_page, growth, redis_cost
from bench.grow import arguments, main
from bench.grow_record import load, save
from bench.growth import FULL, PEAK, Costs, Demand, Plan, lost, walls
from bench.peak import waits
from bench.processes import cores
from bench.slots import busiest, moved, primary_of, sizes_of, spread
from security.store import _SPARE, CONNECTIONS
from tests.settings_stage import chosen

COSTS = Costs(
    admission_us=150,
    settlement_us=50,
    worker_turn_us=1000,
    worker_chunk_us=100,
    worker_idle_mib=70,
    stream_kib=40,
    chain_bytes=400,
    visitor_bytes=200,
    closed_bytes=300,
    open_bytes=800,
    redis_net_bytes=2000,
    replica_bytes=3000,
    chunk_bytes=300,
)
# 100 turns a second at the peak, each 5 s long with 90 chunks.
DEMAND = Demand(
    chats=864_000, turns=4, tokens=90, tokens_a_second=20, first_s=0.5, peak=2.5, prompt_tokens=0
)


def test_a_plan_by_hand() -> None:
    """Each figure of a plan, with numbers that one can do in the head."""
    plan = Plan(COSTS, DEMAND)
    assert plan.demand.turns_a_second == 100
    assert plan.streams == 500
    assert plan.worker_cores == pytest.approx(100 * (0.001 + 90 * 0.0001))
    assert plan.workers == 2
    assert plan.redis_cores == pytest.approx(0.02)
    assert plan.primaries == 1
    assert plan.mbit == pytest.approx(100 * 90 * 300 * 8 / 1e6)
    assert plan.worker_mib == pytest.approx(2 * 70 + 500 * 40 / 1024)
    kept = 25 * 1800 * 400 + 864_000 / 1.5 * 2 * 200 + 100 * 60 * 300 + 500 * 800
    assert plan.redis_mib == pytest.approx(kept / 1024 / 1024)
    assert plan.usd_a_day == pytest.approx(864_000 * 4 * 90 * 1.6 / 1e6)


def test_streams_alone_may_need_workers() -> None:
    """Answers that last take places, however little they cost."""
    assert Plan(replace(COSTS, worker_chunk_us=0), replace(DEMAND, first_s=55.5)).workers == 6


def test_what_is_full_is_full() -> None:
    """At each wall a plan is as busy as it may be; what is full first is told first."""
    found = {wall.what: wall.chats for wall in walls(COSTS, DEMAND)}
    at = Plan(COSTS, replace(DEMAND, chats=found["one worker's core"]))
    assert at.worker_cores == pytest.approx(FULL)
    at = Plan(COSTS, replace(DEMAND, chats=found["one core of Redis"]))
    assert at.redis_cores == pytest.approx(FULL)
    at = Plan(COSTS, replace(DEMAND, chats=found["`DAILY_BUDGET_USD`"]))
    assert at.usd_a_day == pytest.approx(5)
    at = Plan(COSTS, replace(DEMAND, chats=found["`START_LIMIT_GLOBAL`"]))
    assert at.demand.starts_a_second == pytest.approx(10)
    assert list(found.values()) == sorted(found.values())


def test_the_settings_that_are_reckoned_with_are_the_defaults() -> None:
    """A wall that is a setting moves when its default does."""
    settings = chosen()
    assert settings.max_streams == growth.STREAMS_OF_A_WORKER
    assert settings.token_ttl == growth.CHAIN_S
    assert settings.caps.day == growth.DAY_USD * 1e6
    assert CONNECTIONS + _SPARE == growth.CONNECTIONS_OF_A_WORKER
    assert settings.start_limit_global.burst == growth.STARTS_A_MINUTE


def test_a_simulated_peak_is_as_busy_as_it_was_planned() -> None:
    """By cores that were reckoned, and a turn waits longer where it is busier."""
    plan = Plan(COSTS, DEMAND)
    found = waits(plan)
    assert found.worker_busy == pytest.approx(plan.worker_cores / plan.workers, rel=0.1)
    assert found.redis_busy == pytest.approx(plan.redis_cores, rel=0.1)
    # Half of a turn's work, the script and a chunk: nothing is there earlier.
    assert found.median > (1000 / 2 + 150 + 100) / 1000
    light, full = (waits(Plan(COSTS, replace(DEMAND, chats=chats))) for chats in (86_400, 500_000))
    assert full.p99 - 0.75 > 3 * (light.p99 - 0.75)
    assert waits(plan) == found


def test_what_a_failover_loses_by_hand() -> None:
    """Rates times seconds; who is still kept may come back."""
    found = lost(Plan(COSTS, DEMAND), 2, workers_dead=0.25)
    assert (found.turns, found.begun, found.exchanged) == (200, 50, 45_000)
    assert found.usd == pytest.approx(200 * 90 * 1.6 / 1e6)
    assert found.unrestored_usd == found.usd / 4


def test_the_busiest_hour_is_no_mean() -> None:
    """The curve of a day has all of its hours, and a peak well above its mean."""
    assert len(growth.HOURS) == 24
    assert 2 < PEAK < 3


# -- tenants over a cluster


def test_a_tenant_is_where_redis_puts_its_keys() -> None:
    """The slot of a tenant is that of every key of it; the borders are a cluster's own."""
    borders = (0, 5461, 10923)  # what redis-cli --cluster create gives three primaries
    for name in ("main", "one", "two", "three"):
        slot = key_slot(f"keyturn:{{{name}}}:control".encode())
        assert primary_of(name, 3) == bisect(borders, slot) - 1


def test_one_tenant_has_one_primary() -> None:
    """However many there are: a cluster makes no tenant faster."""
    assert busiest(["main"], [1.0], 6) == 1
    assert moved([1.0], 6) == 1


def test_many_equal_tenants_are_spread_as_balls_are() -> None:
    """Their expected greatest share over two primaries, from the binomial distribution exactly."""
    exact = sum(comb(10, k) * max(k, 10 - k) for k in range(11)) / 2**10 / 10
    names = ["".join(Random(n).choices("abcdefgh", k=9)) for n in range(20_000)]
    draws = [busiest(names[at : at + 10], [1.0] * 10, 2) for at in range(0, 20_000, 10)]
    assert mean(draws) == pytest.approx(exact, abs=4 * stdev(draws) / sqrt(len(draws)))


def test_the_biggest_tenant_is_the_bound() -> None:
    """No primary can have less than its share, and moving slots comes close to it."""
    sizes = sizes_of(100, 1.0)
    found = spread(100, 6, 1.0, draws=50)
    assert found.biggest == pytest.approx(sizes[0] / sum(sizes))
    assert found.biggest <= moved(sizes, 6) <= found.median <= found.bad
    assert moved(sizes, 6) < found.biggest * 1.05
    assert spread(1000, 6, 0.0, draws=50).median < spread(10, 6, 0.0, draws=50).median


# -- measured


async def test_redis_is_asked_as_often_as_it_is_said() -> None:
    """A short run counts each call once, has bytes of every kind, and leaves nothing open."""
    found = await redis_cost.measure(200, replicas=1)
    for calls in (found.first, found.later, found.settled):
        assert calls.count == 200
        assert 0 < calls.thread_us < calls.process_us * 1.3
        assert calls.replica_bytes > calls.came_bytes / 2 > 0
    assert found.first.came_bytes > 2 * found.settled.came_bytes
    kinds = {"chain", "spend", "hold", "holds", "inflight", "rate", "start", "closed"}
    assert set(found.bytes_of) == kinds
    assert found.behind_ms[1] >= found.behind_ms[0] >= 0


def test_without_a_replica_nothing_is_replicated() -> None:
    """The control for bytes that go there."""
    found = asyncio.run(redis_cost.measure(50))
    assert found.later.replica_bytes == 0
    assert found.behind_ms == (0, 0)


def test_cores_that_work_are_not_idle() -> None:
    """What a process burns is missing from the idle time of its core."""
    before, end = cores(range(64)), time.process_time() + 0.5
    while time.process_time() < end:
        pass
    after = cores(range(64))
    busy = (after.whole - before.whole) - (after.idle - before.idle)
    assert busy >= 0.45


# -- written


def test_the_page_says_what_was_recorded() -> None:
    """Each part of docs/grow.md is what the record gives: no figure was changed by hand."""
    page = grow_page.PAGE.read_text()
    for name, part in grow_page.parts(load()).items():
        begin, end = grow_page.marks(name)
        assert page.partition(begin)[2].partition(end)[0] == f"\n{part}\n", name


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing of it is lost on the way."""
    record = load()
    save(record, tmp_path / "again.json")
    assert load(tmp_path / "again.json") == record


def test_a_part_is_written_anew_and_the_rest_stays() -> None:
    """A page without a place for a part is told, not guessed at."""
    begin, end = grow_page.marks("plan")
    text = f"Before.\n{begin}\nold\n{end}\nBehind.\n"
    once = grow_page.put(text, "plan", "new")
    assert once == f"Before.\n{begin}\nnew\n{end}\nBehind.\n"
    assert grow_page.put(once, "plan", "new") == once
    with pytest.raises(LookupError, match="no place for 'walls'"):
        grow_page.put(text, "walls", "new")


def test_the_command_reckons_with_figures_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    """`--chats` measures nothing; a chunk that costs more needs more workers."""
    assert main(["--chats", "2000000", "--turns", "2"]) == 0
    usual = capsys.readouterr().out
    assert "| Chats a day | 2,000,000 |" in usual
    assert main(["--chats", "2000000", "--turns", "2", "--cost", "worker_chunk_us=1000"]) == 0
    dear = capsys.readouterr().out
    assert workers_in(dear) > workers_in(usual)


def workers_in(text: str) -> int:
    """What a table says of workers."""
    (line,) = [line for line in text.splitlines() if line.startswith("| workers |")]
    return int(line.split("|")[2].replace(",", ""))


def test_a_cost_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are; exit code 2, as for wrong usage everywhere."""
    with pytest.raises(SystemExit, match="2"):
        arguments(["--cost", "worker=1"])
    assert "worker_chunk_us" in capsys.readouterr().err
