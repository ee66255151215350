"""Many at once over a real redis-server: what is good once is honoured once."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable
from dataclasses import astuple
from typing import IO, Any

import pytest

from security.errors import Rejection
from security.ledger import new_rid
from security.scripts import Duplicate, Rate, Turn, Verdict
from security.store import connect
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Store,
    ledger_on,
    outcome,
)
from tests.security.money_stage import Till, flat, money
from tests.security.race_worker import AT_ONCE, Counts, by_ledger, by_looking_first, race, warm
from tests.stage import ROOT

WORKERS, TOKENS, TIMES = 4, 100, 5


@pytest.fixture
async def real_store(real_store: Store) -> Store:
    """A real redis-server with many connections open: a race needs more than one track."""
    await warm(real_store)
    return real_store


async def test_200_sends_of_one_token_are_one_turn(real_store: Store) -> None:
    """Of 200 parallel redemptions one is admitted; the rest are reuse, and the chain goes on."""
    chain = await Chain(ledger_on(real_store), real_store).take(1)
    honours, outcomes = await race(by_ledger(chain.ledger), [chain.turn()] * 200, 200)
    assert outcomes == {"admitted": 1, "token_reused kept": 199}
    assert honours == {chain.name: 1}
    assert (await chain.redeem(2)).number == 3


async def test_looking_first_honours_one_token_often(real_store: Store) -> None:
    """Control: GET-then-DEL by the same 200, forty at once, honours the token more than once."""
    turn = Chain(ledger_on(real_store), real_store).turn()
    await real_store.set(f"token:{turn.chain}", "1")
    _, outcomes = await race(by_looking_first(real_store), [turn] * 200, AT_ONCE)
    assert outcomes["admitted"] > 1


def _workers(url: str, kind: str, turns: list[Turn]) -> Counts:
    """What some processes did that redeemed every one of these several times, all at once."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.security.race_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(WORKERS)
    ]
    work = {"url": url, "kind": kind, "turns": [astuple(turn) for turn in turns], "times": TIMES}
    try:
        for seed, worker in enumerate(crowd):
            _tell(worker.stdin, json.dumps(work | {"seed": seed}))
        for worker in crowd:
            assert _line(worker.stdout) == "ready"
        for worker in crowd:
            _tell(worker.stdin, "go")
        told = [json.loads(worker.communicate(timeout=60)[0]) for worker in crowd]
    finally:
        for worker in crowd:
            worker.kill()
            worker.communicate()
    honours, outcomes = (
        sum((Counter(each[name]) for each in told), Counter[str]())
        for name in ("honours", "outcomes")
    )
    return honours, outcomes


def _tell(pipe: IO[str] | None, line: str) -> None:
    assert pipe
    pipe.write(line + "\n")
    pipe.flush()


def _line(pipe: IO[str] | None) -> str:
    assert pipe
    return pipe.readline().strip()


async def _begun(store: Store, count: int) -> list[Turn]:
    """The second turns of that many new chains."""
    ledger = ledger_on(store)
    return [(await Chain(ledger, store).take(1)).turn() for _ in range(count)]


async def test_four_workers_honour_each_of_100_tokens_once(
    redis_url: str, real_store: Store
) -> None:
    """4 processes, 2,000 redemptions of 100 tokens: exactly 100 admitted, each token once."""
    turns = await _begun(real_store, TOKENS)
    honours, outcomes = await asyncio.to_thread(_workers, redis_url, "ledger", turns)
    assert outcomes == {"admitted": 100, "token_reused kept": 1900}
    assert honours == {turn.chain: 1 for turn in turns}


async def test_four_workers_that_look_first_honour_more(redis_url: str, real_store: Store) -> None:
    """Control: GET-then-DEL by the same processes honours more than 100."""
    turns = await _begun(real_store, TOKENS)
    for turn in turns:
        await real_store.set(f"token:{turn.chain}", "1")
    honours, outcomes = await asyncio.to_thread(_workers, redis_url, "looking first", turns)
    assert sum(outcomes.values()) == WORKERS * TOKENS * TIMES
    assert outcomes["admitted"] > 100
    assert max(honours.values()) > 1


async def _ended(calls: list[Awaitable[Any]]) -> Counter[str]:
    return Counter(code for code, _ in await asyncio.gather(*(outcome(call) for call in calls)))


async def test_200_sends_of_one_first_turn_begin_one_chain(real_store: Store) -> None:
    """The same first turn with its key: one chain, and all others get the very same successor."""
    chain = Chain(ledger_on(real_store), real_store)
    turn = chain.turn(idempotency="k")

    async def send() -> tuple[str, Verdict]:
        try:
            return "admitted", await chain.ledger.redeem(new_rid(), HOME, turn)
        except Duplicate as again:
            return again.code, again.verdict

    ended = await asyncio.gather(*(send() for _ in range(200)))
    assert Counter(code for code, _ in ended) == {"admitted": 1, "duplicate_request": 199}
    assert len({(v.number, v.last_ms, v.born_ms) for _, v in ended}) == 1
    assert await real_store.zcard(PREFIX + "inflight:home") == 1


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("rate_limited", {"rate": Rate(30, HOUR_US)}),
        ("start_limited", {"start": Rate(30, HOUR_US)}),
        ("start_limited", {"start_of_all": Rate(30, HOUR_US)}),
        ("too_many_streams", {"streams_per_address": 30}),
    ],
)
async def test_a_limit_is_exact_under_a_rush(
    real_store: Store, code: str, limits: dict[str, Any]
) -> None:
    """200 first turns at once against a limit of 30: exactly 30 pass."""
    ledger = ledger_on(real_store, **limits)
    ended = await _ended([Chain(ledger, real_store).redeem() for _ in range(200)])
    assert ended == {"admitted": 30, code: 170}


CAPS = [("budget_exhausted", {"day": 3799}), ("budget_visitor", {"visitor": 3799})]


async def _rush(till: Till, *, settled: bool) -> str:
    """A turn of 100, which costs all of it."""
    try:
        rid, _ = await till.hold(flat(100))
    except Rejection as refused:
        return refused.code
    if settled:
        await till.settle(rid, 100)
    return "admitted"


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(("code", "caps"), CAPS)
async def test_a_cap_is_exact_under_a_rush(
    redis_url: str, real_store: Store, code: str, caps: dict[str, int], settled: bool
) -> None:
    """200 turns at once, by two workers, on a cap for 37 of them: exactly 37 are admitted."""
    stores = [connect(redis_url, timeout=5, connect_timeout=5) for _ in range(2)]
    tills = [Till(store, **caps) for store in stores]
    crowd = [_rush(tills[number % 2], settled=settled) for number in range(200)]
    assert Counter(await asyncio.gather(*crowd)) == {"admitted": 37, code: 163}
    day = tills[0].ledger._day
    assert await money(real_store, day=day) == ((3700, 0) if settled else (0, 3700))
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize(("code", "caps"), CAPS)
async def test_a_cap_that_sees_only_what_is_spent_is_overshot(
    real_store: Store, code: str, caps: dict[str, int]
) -> None:
    """Control: check, then call, then charge, as others do: more than 37 are admitted."""
    blind = Altered(real_store, " - tonumber(fields[2] or '0')", "")
    till = Till(blind, **caps)
    ended = Counter(await asyncio.gather(*(_rush(till, settled=True) for _ in range(200))))
    assert ended["admitted"] > 37


async def test_a_thief_and_the_owner_cannot_both_go_on(real_store: Store) -> None:
    """Whoever shows an old token while the newest is shown: at most one turn, then revoked."""
    for _ in range(20):
        chain = await Chain(ledger_on(real_store), real_store).take(3)
        thief = chain.ledger.redeem(new_rid(), HOME, chain.turn(1))
        ended = await _ended([thief, chain.redeem(), chain.redeem()])
        assert ended["admitted"] <= 1
        assert await outcome(chain.redeem()) == ("chain_revoked", "revoked")


async def test_one_request_called_often_is_one_turn(real_store: Store) -> None:
    """One rid sent 50 times at once is admitted as one turn, with one tick and one place."""
    chain = await Chain(ledger_on(real_store, rate=Rate(100, HOUR_US)), real_store).take(1)
    rid, turn = new_rid(), chain.turn()
    calls = [chain.ledger.redeem(rid, HOME, turn) for _ in range(50)]
    verdicts = await asyncio.gather(*calls)
    assert {verdict.number for verdict in verdicts} == {2}
    assert min(verdict.standing.address.remaining for verdict in verdicts) == 98
    assert await real_store.zcard(f"{PREFIX}inflight:{chain.name}") == 2


async def test_without_a_memory_of_rids_it_is_not(real_store: Store) -> None:
    """Control: a script that does not know its rid again refuses its own repeats."""
    forgetful = Altered(real_store, "chain.rid == rid", "false")
    chain = await Chain(ledger_on(forgetful), real_store).take(1)
    rid, turn = new_rid(), chain.turn()
    ended = await asyncio.gather(
        *(chain.ledger.redeem(rid, HOME, turn) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(each, Rejection) for each in ended) == 49
