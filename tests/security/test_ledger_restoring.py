"""While a store is given back what it lost, nobody gets in; and nothing else is called a loss."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from security.scripts import Visitor
from tests.security.ledger_stage import PREFIX, Altered, Store, fill
from tests.security.money_stage import (
    NOON,
    TODAY,
    Between,
    Clocked,
    Till,
    count,
    flat,
    money,
    open_holds,
)
from tests.stage import eventually

LOST = "the store lost money"
WIDE = Visitor("n", "w")


async def refuse() -> None:
    """Fail as Redis does when it takes no more."""
    raise ResponseError("OOM command not allowed when used memory > 'maxmemory'.")


async def test_a_failed_restore_admits_nobody(clocked: Clocked) -> None:
    """While what was lost cannot be given back, nobody gets in; once it can, all goes on."""
    store = Between(clocked, "Gives a store back")
    till = Till(store, day=100)
    rid, _ = await till.hold(flat(60))
    await clocked.lose_all()
    store.before = refuse
    assert await till.asks(0) == "store_unavailable"
    assert await clocked.dbsize() == 1, "nothing but the clock"
    store.before = None
    assert [await till.asks(41), await till.asks(40)] == ["budget_exhausted", "admitted"]
    await till.settle(rid, 60)
    assert await money(clocked) == (60, 40)


async def test_a_full_store_takes_nothing_back(own_store: Store) -> None:
    """The same where a real store is out of memory."""
    clocked = Clocked(own_store)
    await clocked.show(NOON)
    till = Till(clocked, day=100)
    await till.spend(60)
    await clocked.lose_all()
    await fill(own_store)
    assert await till.asks(0) == "store_unavailable"
    assert await clocked.dbsize() == 2, "nothing but the clock and the ballast"
    await own_store.config_set("maxmemory", 0)
    assert [await till.asks(41), await till.asks(40)] == ["budget_exhausted", "admitted"]


async def test_a_crowd_that_finds_a_loss_gives_back_once(clocked: Clocked) -> None:
    """Whoever comes while it is given back waits for it, and finds the cap as it was."""
    asked = Between(clocked, "Admits one request")
    store = Between(asked, "Gives a store back")
    till = Till(store, day=100)
    await till.spend(60)
    await clocked.lose_all()
    calls = asked.calls

    async def wait_for_all() -> None:
        await eventually(all_came)
        assert await open_holds(clocked) == {}

    async def all_came() -> bool:
        return asked.calls == calls + 20

    store.before = wait_for_all
    told = await asyncio.gather(*(till.asks(10) for _ in range(20)))
    assert sorted(told) == ["admitted"] * 4 + ["budget_exhausted"] * 16
    assert store.calls == 1


async def test_an_admission_that_was_lost_before_it_was_heard_is_none(clocked: Clocked) -> None:
    """A reply that comes late, from a count that was lost since, holds nothing: it is refused."""
    store = Between(clocked, "Admits one request")
    till = Till(store, day=100)
    await till.spend(10)
    carried_out, heard = asyncio.Event(), asyncio.Event()

    async def come_late(_: list[Any]) -> None:
        store.after = None
        carried_out.set()
        await heard.wait()

    store.after = come_late
    late = asyncio.create_task(till.asks(80))
    await carried_out.wait()
    await clocked.lose_all()
    assert await till.asks(90) == "admitted"
    heard.set()
    assert await late == "store_unavailable"


async def settled(till: Till) -> None:
    """A whole turn."""
    rid, _ = await till.hold(flat(3))
    await till.settle(rid, 2)


async def test_replies_out_of_order_are_no_loss(
    real_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """500 turns at once through one worker and 50 connections: nothing is ever given back."""
    store = Between(real_store, "Gives a store back")
    till = Till(store)
    await asyncio.gather(*(settled(till) for _ in range(500)))
    day = till.ledger._day
    assert await money(real_store, day=day) == (1000, 0)
    assert await count(real_store, "changes", day) == 1000
    assert store.calls == 0
    assert LOST not in caplog.text


async def test_a_memory_of_the_last_reply_alone_sees_losses(real_store: Store) -> None:
    """Control: a script that wants to be told the very last count calls a busy day a loss."""
    exact = Altered(
        real_store, "stored_changes < changes", "stored_changes ~= changes", script="Money"
    )
    store = Between(exact, "Gives a store back")
    till = Till(store)
    await asyncio.gather(*(settled(till) for _ in range(100)), return_exceptions=True)
    assert store.calls > 0


async def test_a_lost_reply_of_a_settlement_charges_once(clocked: Clocked) -> None:
    """The repeat of a call that was carried out finds the hold gone, and knows why."""
    store = Between(clocked, "Ends a turn")
    till = Till(store)
    rid, _ = await till.hold(flat(40), WIDE)

    async def lose(_: list[Any]) -> None:
        store.after = None
        raise RedisConnectionError

    store.after = lose
    await till.settle(rid, 15, WIDE)
    assert store.calls == 2
    assert [await money(clocked, of) for of in ("", "n", "w")] == [(15, 0)] * 3


async def test_what_was_closed_unheard_is_not_given_back(clocked: Clocked) -> None:
    """A settlement whose reply was lost while another worker began a new epoch charges once."""
    store = Between(clocked, "Ends a turn")
    till = Till(store)
    rid, _ = await till.hold(flat(40), WIDE)

    async def lose(_: list[Any]) -> None:
        store.after = None
        await clocked.hset(f"{PREFIX}spend:{TODAY}", "epoch", "of another worker")
        raise RedisConnectionError

    store.after = lose
    await till.settle(rid, 15, WIDE)
    assert [await money(clocked, of) for of in ("", "n", "w")] == [(15, 0)] * 3
    assert await open_holds(clocked) == {}
