"""A store that lost money admits nobody until its workers gave back what they remember."""

from collections.abc import Awaitable, Callable
from itertools import permutations
from typing import Any

import pytest

from security.ledger import new_rid
from security.scripts import Visitor
from tests.security.ledger_stage import PREFIX, Store
from tests.security.money_stage import (
    A_DAY,
    NOON,
    OTHER,
    TODAY,
    Clocked,
    Till,
    flat,
    money,
    open_holds,
)

WIDE = Visitor("n", "w")
LOST = "the store lost money"
Lose = Callable[[Clocked, dict[bytes, Any]], Awaitable[None]]


async def backup(store: Store) -> dict[bytes, Any]:
    """Every key as it is now."""
    return {key: await store.dump(key) for key in await store.keys(PREFIX + "*")}


async def flush(clocked: Clocked, _: dict[bytes, Any]) -> None:
    """Lose everything."""
    await clocked.lose_all()


async def go_back(clocked: Clocked, saved: dict[bytes, Any]) -> None:
    """Lose what came after a backup, as a failover to a replica does that lags behind."""
    await clocked.lose_all()
    for key, value in saved.items():
        await clocked.restore(key, 60_000, value, replace=True)


@pytest.mark.parametrize("lose", [flush, go_back])
async def test_what_was_spent_and_held_comes_back(clocked: Clocked, lose: Lose) -> None:
    """The next admission restores what is spent and every open hold, and only then decides."""
    till = Till(clocked, day=100, lease=100)
    await till.spend(10)
    saved = await backup(clocked)
    await till.spend(20)
    rid, _ = await till.hold(flat(40), WIDE)
    await lose(clocked, saved)
    await clocked.show(NOON + 50)
    assert await till.asks(31, OTHER) == "budget_exhausted"
    assert await money(clocked) == (30, 40)
    assert await money(clocked, "n") == await money(clocked, "w") == (0, 40)
    assert await open_holds(clocked) == {rid: 40}
    assert await clocked.zscore(PREFIX + "holds", rid) == (NOON + 150) * 1000
    assert [await till.asks(30), await till.asks(1)] == ["admitted", "budget_exhausted"]


async def test_a_loss_is_told_once(clocked: Clocked, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each loss, when it is found, with what was given back."""
    till = Till(clocked, day=100)
    for losses in (1, 2):
        await till.spend(10)
        await till.hold(flat(3))
        assert caplog.text.count(LOST) == losses - 1
        await clocked.lose_all()
        await till.asks(0)
        await till.asks(0)
        assert caplog.text.count(LOST) == losses
    assert "restored spent=20 and 4 holds" in caplog.text, "two of them are of nothing"


async def test_a_hold_is_missed_though_nothing_was_spent(clocked: Clocked) -> None:
    """A backup from before a hold knows as much of what was spent, and less of how often."""
    till = Till(clocked, day=100)
    await till.spend(10)
    saved = await backup(clocked)
    rid, _ = await till.hold(flat(60))
    await go_back(clocked, saved)
    assert await till.asks(31) == "budget_exhausted"
    assert await open_holds(clocked) == {rid: 60}


@pytest.mark.parametrize("by", ["an admission", "a guess", "a settlement"])
async def test_any_call_finds_a_loss(clocked: Clocked, by: str) -> None:
    """Whoever comes first: the store knows all that was spent when they are answered."""
    till = Till(clocked, day=100)
    await till.spend(30)
    await clocked.lose_all()
    if by == "a guess":
        await till.ledger.probe(new_rid(), OTHER)
    elif by == "a settlement":
        await till.settle(new_rid(), 0)
    else:
        assert await till.asks(0) == "admitted"
    assert await money(clocked) == (30, 0)
    assert [key for key in await clocked.keys("*") if await clocked.pttl(key) == -1] == [b"clock"]


async def test_a_store_may_lose_more_than_once(clocked: Clocked) -> None:
    """What is spent adds up over any number of losses."""
    till = Till(clocked, day=100)
    for _ in range(5):
        await till.spend(15)
        await clocked.lose_all()
    assert [await till.asks(26), await till.asks(25)] == ["budget_exhausted", "admitted"]
    assert await money(clocked) == (75, 25)


@pytest.mark.parametrize("lose", [flush, go_back])
async def test_each_worker_gives_back_its_own_holds(clocked: Clocked, lose: Lose) -> None:
    """The first begins a new epoch, by which the second finds that it has something to give."""
    first, second = Till(clocked, day=100), Till(clocked, day=100)
    await first.spend(10)
    saved = await backup(clocked)
    one, _ = await first.hold(flat(20))
    two, _ = await second.hold(flat(30), WIDE)
    await lose(clocked, saved)
    assert await first.asks(1) == "admitted"
    assert await money(clocked) == (10, 21)
    assert [await second.asks(40), await second.asks(39)] == ["budget_exhausted", "admitted"]
    assert await money(clocked) == (10, 90)
    assert {one: 20, two: 30}.items() <= (await open_holds(clocked)).items()
    await first.settle(one, 20)
    await second.settle(two, 30, WIDE)
    assert await money(clocked) == (60, 40)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_what_was_spent_since_comes_on_top(
    clocked: Clocked, order: tuple[int, int, int]
) -> None:
    """Workers that remember 10 and 30, and one that is new: in any order, nothing is forgotten."""
    tills = [Till(clocked, day=100) for _ in range(3)]
    await tills[0].spend(10)
    await tills[1].spend(20)
    await clocked.lose_all()
    for number in order:
        await tills[number].spend(5)
    assert await money(clocked) == (45, 0)


async def test_a_hold_that_was_kept_is_not_held_twice(clocked: Clocked) -> None:
    """What the backup knew of stands as it was, with the lease that it had."""
    till = Till(clocked, day=100, lease=100)
    rid, _ = await till.hold(flat(40), WIDE)
    saved = await backup(clocked)
    await till.spend(20)
    await go_back(clocked, saved)
    await clocked.show(NOON + 50)
    assert [await till.asks(41), await till.asks(40)] == ["budget_exhausted", "admitted"]
    assert await money(clocked, "n") == (0, 40)
    assert await clocked.zscore(PREFIX + "holds", rid) == (NOON + 100) * 1000


async def test_who_comes_late_finds_a_loss_too(clocked: Clocked) -> None:
    """Others went on with a backup until it counted more turns again, but less money."""
    late, new = Till(clocked, day=100), Till(clocked, day=100)
    await late.spend(10)
    saved = await backup(clocked)
    await late.spend(40)
    await go_back(clocked, saved)
    for _ in range(4):
        await new.spend(1)
    assert await late.asks(51) == "budget_exhausted"
    assert (await money(clocked))[0] >= 50


async def test_who_comes_late_takes_nothing_back(clocked: Clocked) -> None:
    """Others went on with a backup until it counted more money again, but fewer turns."""
    late, new = Till(clocked, day=100), Till(clocked, day=100)
    await late.spend(10)
    saved = await backup(clocked)
    for _ in range(4):
        await late.spend(0)
    await go_back(clocked, saved)
    await new.spend(50)
    assert await late.asks(0) == "admitted"
    assert await money(clocked) == (60, 0)


async def test_a_settlement_finds_its_hold_again(clocked: Clocked) -> None:
    """A turn that was open when the store forgot it is charged once, with its true charge."""
    till = Till(clocked, day=100)
    await till.spend(30)
    rid, _ = await till.hold(flat(40), WIDE)
    await clocked.lose_all()
    await till.settle(rid, 7, WIDE)
    await till.settle(rid, 7, WIDE)
    assert await money(clocked) == (37, 0)
    assert await money(clocked, "n") == await money(clocked, "w") == (7, 0)
    await clocked.lose_all()
    assert await till.asks(63) == "admitted"
    assert await money(clocked) == (37, 63), "no hold of a settled turn is given back"


async def test_a_turn_of_yesterday_is_given_back_to_yesterday(clocked: Clocked) -> None:
    """After midnight, a loss, and a new day's first turns: an old turn ends on its own day."""
    till = Till(clocked, day=100)
    await till.spend(30)
    rid, _ = await till.hold(flat(40), WIDE)
    await clocked.show(NOON + A_DAY)
    await till.spend(90)
    await clocked.lose_all()
    assert [await till.asks(11), await till.asks(10)] == ["budget_exhausted", "admitted"]
    assert await money(clocked) == (0, 0)
    await till.settle(rid, 7, WIDE)
    assert await money(clocked) == (37, 0)
    assert await money(clocked, day=TODAY + 1) == (90, 10)


async def test_a_turn_given_up_is_not_given_back(clocked: Clocked) -> None:
    """What no settlement was possible for is left to the lease, by the worker too."""
    till = Till(clocked, day=100)
    rid, _ = await till.hold(flat(40))
    till.ledger.give_up(rid)
    await clocked.lose_all()
    assert await till.asks(100) == "admitted"


async def test_a_hold_lost_unnoticed_is_charged_all_the_same(clocked: Clocked) -> None:
    """Where a store lost a hold and others wrote so much since that nobody can tell: once."""
    till = Till(clocked)
    rid, _ = await till.hold(flat(40), WIDE)
    await clocked.delete(f"{PREFIX}hold:{rid}")
    for key in [PREFIX + "holds", *await clocked.keys(PREFIX + "inflight:*")]:
        await clocked.zrem(key, rid)
    for of in ("", ":n", ":w"):
        await clocked.hincrby(f"{PREFIX}spend:{TODAY}{of}", "held", -40)
    for _ in range(2):
        await till.settle(rid, 15, WIDE)
        assert [await money(clocked, of) for of in ("", "n", "w")] == [(15, 0)] * 3


async def test_the_operator_is_told_once_that_the_money_is_gone(
    clocked: Clocked, caplog: pytest.LogCaptureFixture
) -> None:
    """The first refusal of a day is a warning in the log; another is when far less fits not."""
    till = Till(clocked, day=10)
    for day in range(2):
        await clocked.show(NOON + day * A_DAY)
        assert await till.asks(10) == "admitted"
        for cost in (8, 8, 5, 4, 3):
            assert await till.asks(cost) == "budget_exhausted"
        assert caplog.text.count("today's budget has no room for a turn") == 2 * (day + 1)
