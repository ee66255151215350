"""How counts come into the history, and what becomes of them while Redis is away: recording.py."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from problems import PROBLEMS
from recording import Recorder, recording
from security.breaker import Breaker
from security.calls import Calls, Deadlines
from security.errors import StoreUnavailable
from security.history import KEPT_HOURS, Batch, History, Load
from security.store import connect
from tests.command_stage import START_LIMIT, server_py, turn
from tests.operator_stage import TOKEN, operating, settings_for, two_workers
from tests.stage import Upstream, eventually, redis_process, serving, visiting
from tests.test_turn_history import HOUR, RECORD, REFUSED, Clock
from turn_history import BUCKETS, Tally
from turn_record import Outcome

PREFIX = "keyturn:{main}:"


@asynccontextmanager
async def history_at(url: str) -> AsyncIterator[History]:
    """A history in this store."""
    store = connect(url, timeout=0.25, connect_timeout=1)
    deadlines = Deadlines(command=0.25, whole=1)
    breaker = Breaker(failures=1000, open_for=0, clock=time.monotonic)
    try:
        yield History(store, Calls(store, prefix=PREFIX, deadlines=deadlines, breaker=breaker))
    finally:
        await store.aclose()


def batch(name: str = "b", hour: int = HOUR, counts: Mapping[str, int] | None = None) -> Batch:
    """A batch of one turn and one refusal."""
    said = {"07:c.ok": 1, "07:c.paused": 1} if counts is None else counts
    return Batch(name, hour, said, {"paused V": 1})


async def add(history: History, what: Batch, *, streams: int = 0, worker: str = "w") -> None:
    """Add it, at the minute that it counted in."""
    await history.add(what, worker=worker, streams=streams, most=10, minute=HOUR * 60 + 7)


async def test_many_workers_add_to_the_same_counts(redis_url: str) -> None:
    """Sums, whoever counted; and what was told twice is added once."""
    async with history_at(redis_url) as history:
        await add(history, batch("one"), worker="w1")
        await add(history, batch("two"), worker="w2")
        await add(history, batch("two"), worker="w2")
        counts = await history.counts(HOUR)
        assert (counts["07:c.ok"], counts["07:c.paused"]) == (2, 2)
        assert await history.refused(HOUR) == {"paused V": 2}
        await add(history, batch("three"), worker="w2")
        assert (await history.counts(HOUR))["07:c.ok"] == 3, "the control"


async def test_streams_are_those_of_workers_that_live(redis_url: str) -> None:
    """Each counts as it told last; one that fell silent does not count, and is forgotten."""
    async with history_at(redis_url) as history:
        await add(history, batch("1"), worker="w1", streams=3)
        await add(history, batch("2"), worker="w2", streams=4)
        await add(history, batch("3"), worker="w2", streams=1)
        assert await history.load() == Load(4, 20, 2)
        assert (await history.counts(HOUR))["07:streams"] == 7, "the highest of the minute"
        with redis.Redis.from_url(redis_url) as store:
            now = store.time()[0]
            store.hset(f"{PREFIX}workers", "w1", f"{now - 16} 3 10 1")
            store.hset(f"{PREFIX}workers", "w0", f"{now - 61} 3 10 1")
            assert await history.load() == Load(1, 10, 1)
            await add(history, batch("4"), worker="w2", streams=1)
            assert sorted(store.hkeys(f"{PREFIX}workers")) == [b"w1", b"w2"]


async def test_every_hour_is_bounded_and_forgotten(redis_url: str) -> None:
    """No more fields than codes and buckets allow, 200 sources, and a day later nothing."""
    measures = [
        *(f"c.{code}" for code in (*PROBLEMS, "ok", "gone", "slow_reader")),
        *(f"t.{bucket}" for bucket in range(len(BUCKETS) + 1)),
        *("own", "in", "out", "cost"),
    ]
    full = {f"{minute:02d}:{name}": 1 for minute in range(60) for name in measures}
    async with history_at(redis_url) as history:
        await add(history, batch(counts=full))
        many = {f"rate_limited {number:022d}": number + 1 for number in range(500)}
        await add(history, Batch("x", HOUR, {}, many))
        kept = await history.refused(HOUR)
        assert len(kept) == 200
        assert min(kept.values()) == 301, "the most frequent"
    with redis.Redis.from_url(redis_url) as store:
        keys = store.keys()
        lives = {key: store.pttl(key) for key in keys}
        size = sum(store.memory_usage(key) for key in keys)
    assert size < 600_000, "26 such hours are 15 MB, were every code refused in every minute"
    assert {key.decode().removeprefix(PREFIX) for key in keys} == {
        *(f"history:{HOUR}", f"history:{HOUR}:refused", "workers")
    }
    assert all(0 < life <= KEPT_HOURS * 3_600_000 for life in lives.values())


async def test_what_was_not_heard_is_told_again() -> None:
    """While Redis hangs counts wait; then they come, each once, also what it took unheard."""
    tally = Tally(Clock(HOUR * 60))
    with redis_process() as url:
        with redis.Redis.from_url(url) as store:
            pid = store.info("server")["process_id"]
        async with history_at(url) as history:
            recorder = Recorder(tally, history, streams=lambda: 0, most=5)
            await recorder.write()  # its connection is open from now on
            tally(RECORD)
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(3):
                    with pytest.raises(StoreUnavailable):
                        await recorder.write()
                    tally(REFUSED)
            finally:
                os.kill(pid, signal.SIGCONT)
            await recorder.write()
            await recorder.write()
            counts = await history.counts(HOUR)
    assert (counts["00:c.ok"], counts["00:c.rate_limited"]) == (1, 3)


async def test_it_writes_while_it_lasts_and_once_more(redis_url: str) -> None:
    """The last turns are in the history when the worker is gone."""
    tally = Tally(time.time)
    async with history_at(redis_url) as history:
        recorder = Recorder(tally, history, streams=lambda: 0, most=5)

        async def answered() -> int:
            hour = tally.minute // 60
            found = [await history.counts(each) for each in (hour - 1, hour)]
            return sum(n for each in found for name, n in each.items() if name.endswith("c.ok"))

        async with recording(recorder, interval=0.01):
            tally(RECORD)

            async def is_written() -> bool:
                return await answered() == 1

            await eventually(is_written)
        async with recording(recorder, interval=3600):
            tally(RECORD)
        assert await answered() == 2


async def test_the_money_of_the_day_is_noted(redis_url: str) -> None:
    """What was spent and held at each minute, from which the curve and the forecast are made."""
    with redis.Redis.from_url(redis_url) as store:
        store.hset(f"{PREFIX}spend:{HOUR // 24}", mapping={"spent": 700, "held": 50})
    async with history_at(redis_url) as history:
        await add(history, batch())
        counts = await history.counts(HOUR)
    assert (counts["07:spent"], counts["07:held"]) == (700, 50)


async def test_turns_of_two_workers_are_one_history(redis_url: str, upstream: Upstream) -> None:
    """By real turns over real sockets: what was answered, refused, charged, and how soon."""
    async with (
        two_workers(redis_url, upstream) as (one, other),
        operating(one) as operator,
        visiting(one) as here,
        visiting(other) as there,
    ):
        for visitor in (here, there):
            assert (await visitor.say()).status == 200
            assert (await visitor.say(n=2)).code == "unsupported_parameter"

        async def told() -> bool:
            drawn = await operator.look("history")
            refused = drawn["refused"].get("unsupported_parameter", [])
            return (sum(drawn["answered"]), sum(refused)) == (2, 2)

        await eventually(told)
        drawn = await operator.look("history?hours=1")
        state = await operator.look("state")
    assert len(drawn["at"]) == len(drawn["answered"]) == 60
    assert sum(drawn["charged_micro_usd"]) == state["spent_micro_usd"] > 0
    assert 0 < max(ms or 0 for ms in drawn["ttfb_p95_ms"]) < 60_000
    assert max(spent or 0 for spent in drawn["spent_micro_usd"]) <= state["spent_micro_usd"]


async def test_worker_processes_write_to_their_end(tmp_path: Path, redis_url: str) -> None:
    """Two workers tell of themselves; the turns of a moment before SIGTERM are in the history."""
    said = {"ADMIN_TOKEN": TOKEN, "REDIS_URL": redis_url, "WORKERS": "2"}
    with server_py(tmp_path, **said) as running:
        async with operating(running.url) as operator:

            async def are_told() -> bool:
                return bool((await operator.look("state"))["streams"]["workers"] == 2)

            await eventually(are_told, START_LIMIT)
        for _ in range(4):  # each on a connection of its own, so for either worker
            assert (await turn(running.url)).status == 200
        assert await asyncio.to_thread(running.end) == 0
        assert TOKEN not in running.said
    with redis.Redis.from_url(redis_url) as store:
        hours = [store.hgetall(key) for key in store.keys("*history:*[0-9]")]
    assert sum(int(n) for hour in hours for name, n in hour.items() if b":c.ok" in name) == 4


@pytest.mark.parametrize("query", ["hours=0", "hours=2", "hours=", "hours=24&x", "x"])
async def test_a_history_is_of_some_hours(redis_url: str, upstream: Upstream, query: str) -> None:
    """One, six or a day; nothing else is read."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server) as operator,
    ):
        assert (await operator.ask("GET", f"/admin/api/history?{query}")).status == 422
        for hours, points in ((1, 60), (6, 72), (24, 96)):
            drawn = await operator.look(f"history?hours={hours}")
            assert len(drawn["at"]) == points
            assert drawn["at"][-1] - drawn["at"][0] + drawn["step_seconds"] == hours * 3600


def test_counting_a_turn_is_cheap() -> None:
    """Microseconds: a turn costs a thousand times as much."""
    tally = Tally(time.time)
    codes: tuple[Outcome, ...] = ("ok", "rate_limited")
    records = [replace(RECORD, code=code) for code in codes]
    began = time.process_time()
    for _ in range(5000):
        for record in records:
            tally(record)
    assert (time.process_time() - began) / 10_000 < 50e-6
