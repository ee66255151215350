"""A hold becomes what was spent: once, with the true charge, on the day it was taken from."""

import pytest

from security.ledger import new_rid
from security.scripts import Visitor
from tests.security.ledger_stage import (
    HOME,
    PREFIX,
    Altered,
    Chain,
    Lossy,
    Store,
    contents,
    fill,
    outcome,
)
from tests.security.money_stage import (
    A_DAY,
    NOON,
    OTHER,
    TODAY,
    Between,
    Clocked,
    Till,
    count,
    flat,
    money,
    open_holds,
    per_token,
)

WIDE = Visitor("n", "w")
ALL_OF_WIDE = ("", "n", "w")
HOLDS = PREFIX + "holds"


@pytest.mark.parametrize(("charge", "over"), [(0, 0), (1, 0), (40, 0), (41, 1), (10**12, 1)])
async def test_the_charge_takes_the_place_of_the_hold(
    clocked: Clocked, charge: int, over: int
) -> None:
    """For the day, the visitor and the /48; zero is zero, and more than was held is counted."""
    till = Till(clocked)
    rid, _ = await till.hold(flat(40), WIDE)
    await till.hold(flat(3), WIDE)
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(0, 43)] * 3
    await till.settle(rid, charge, WIDE)
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(charge, 3)] * 3
    assert await count(clocked, "over") == over
    assert list((await open_holds(clocked)).values()) == [3]
    assert await clocked.zcard(HOLDS) == 1


async def test_above_the_cap_nobody_is_admitted(clocked: Clocked) -> None:
    """A charge above its hold is taken in full: past the cap even a free turn is refused."""
    till = Till(clocked, day=100)
    rid, _ = await till.hold(flat(100))
    await till.settle(rid, 101)
    assert await money(clocked) == (101, 0)
    assert [await till.asks(0), await till.asks(per_token(0, 1, 1))] == ["budget_exhausted"] * 2


@pytest.mark.parametrize("charge", [0, 40])
async def test_settling_again_charges_nothing(clocked: Clocked, charge: int) -> None:
    """By the same worker or another, with the same charge or another: the first one stays."""
    till, another = Till(clocked), Till(clocked)
    rid, _ = await till.hold(flat(40))
    await till.settle(rid, charge)
    for again, by in ((charge, till), (7, till), (99, another)):
        await by.settle(rid, again)
    assert await money(clocked) == await money(clocked, "home") == (charge, 0)
    assert (await count(clocked, "changes"), await count(clocked, "over")) == (2, 0)


async def test_another_process_can_settle(clocked: Clocked) -> None:
    """All that is needed to end a hold is its rid: the rest stands in Redis."""
    rid, _ = await Till(clocked).hold(flat(40), WIDE)
    await Till(clocked).settle(rid, 15, Visitor("somebody-else"))
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(15, 0)] * 3


@pytest.mark.parametrize("amount", [0, 40])
async def test_nothing_left_is_a_plain_zero(clocked: Clocked, amount: int) -> None:
    """A charge that equals its hold, also a hold of nothing, leaves 0 and no other zero."""
    till = Till(clocked)
    rid, _ = await till.hold(flat(amount), WIDE)
    await till.settle(rid, amount, WIDE)
    for of in ALL_OF_WIDE:
        stored = await clocked.hmget(f"{PREFIX}spend:{TODAY}" + (of and ":" + of), "spent", "held")
        assert stored == [str(amount).encode(), b"0"]


async def test_a_longer_answer_is_counted_once(clocked: Clocked) -> None:
    """`past` counts turns that went past their limit, on their own day, and no repeat of it."""
    till = Till(clocked)
    for went_past in (True, True, False):
        rid, _ = await till.hold(flat(5))
        await till.settle(rid, 5, went_past=went_past)
        await till.settle(rid, 5, went_past=True)
    await till.settle(new_rid(), 5, went_past=True)
    assert await count(clocked, "past") == 2


async def test_a_turn_settled_before_it_came_is_refused(clocked: Clocked) -> None:
    """A call that was given up for lost and is carried out late holds nothing, for a minute."""
    till, chain = Till(clocked), Chain(Till(clocked).ledger, clocked)
    rid = new_rid()
    await till.settle(rid, 0)
    mark = f"{PREFIX}closed:{rid}"
    assert 55_000 < await clocked.pttl(mark) <= 60_000
    late = chain.redeem(rid=rid, worst=flat(40))
    assert await outcome(late) == ("store_unavailable", "unknown")
    assert (await open_holds(clocked), await money(clocked)) == ({}, (0, 0))
    assert await chain.stored() == {}
    await clocked.delete(mark)
    assert await outcome(chain.redeem(rid=rid, worst=flat(40))) == ("admitted", "advanced")


async def test_a_turn_that_is_over_is_not_admitted_again(clocked: Clocked) -> None:
    """The call of a turn that was settled meanwhile is refused, and holds nothing once more."""
    chain = Chain(Till(clocked).ledger, clocked)
    rid = new_rid()
    await chain.redeem(rid=rid, worst=flat(40))
    await chain.ledger.settle(rid, HOME, chain=chain.name, charge=4)
    again = chain.redeem(0, rid=rid, worst=flat(40))
    assert await outcome(again) == ("store_unavailable", "unknown")
    assert await money(clocked) == (4, 0)


async def test_a_lost_reply_is_one_hold(clocked: Clocked) -> None:
    """The repeat of a call that was carried out is told the same hold, and the same limit."""
    lossy = Lossy(clocked)
    till = Till(lossy, day=400)
    rid, hold = await till.hold(per_token(10, 1, 1000))
    assert lossy.lost == 1
    assert (hold.micro_usd, hold.max_output) == (400, 390)
    assert await open_holds(clocked) == {rid: 400}
    assert await money(clocked) == (0, 400)
    await till.settle(rid, 399)
    assert await money(clocked) == (399, 0)


# -- leases


async def test_a_hold_that_nobody_ends_counts_in_full(clocked: Clocked) -> None:
    """Once its lease is over, the next admission of anybody moves all of it to what is spent."""
    till = Till(clocked, lease=100)
    rid, _ = await till.hold(flat(40), WIDE)
    await clocked.show(NOON + 99)
    await till.hold(flat(1), OTHER)
    assert await money(clocked) == (0, 41)
    await clocked.show(NOON + 100)
    await till.hold(flat(1), OTHER)
    assert await money(clocked) == (40, 2)
    assert await money(clocked, "n") == await money(clocked, "w") == (40, 0)
    assert rid not in await open_holds(clocked)
    assert await clocked.zscore(HOLDS, rid) is None


async def test_a_late_settlement_charges_once(clocked: Clocked) -> None:
    """After the lease, before anybody came: the true charge. After that: nothing more."""
    till = Till(clocked, lease=100)
    late, too_late = [(await till.hold(flat(40)))[0] for _ in range(2)]
    await clocked.show(NOON + 200)
    await till.settle(late, 7)
    assert await money(clocked) == (7, 40)
    await till.hold(flat(0))
    assert await money(clocked) == (47, 0)
    for charge in (0, 7, 40, 50):
        await till.settle(too_late, charge)
    assert await money(clocked) == await money(clocked, "home") == (47, 0)
    assert await count(clocked, "over") == 0


async def test_few_holds_are_closed_at_a_time(clocked: Clocked) -> None:
    """One admission closes 16, the oldest first: nobody waits for all that a dead worker left."""
    till = Till(clocked, lease=100)
    rids = []
    for second in range(40):
        await clocked.show(NOON + second)
        rids.append((await till.hold(flat(1)))[0])
    await clocked.show(NOON + 300)
    for closed in (16, 32, 40):
        rid, _ = await till.hold(flat(0))
        await till.settle(rid, 0)
        assert await money(clocked) == (closed, 40 - closed)
        assert set(await open_holds(clocked)) == set(rids[closed:])


async def test_a_full_budget_stays_full_when_its_holds_are_closed(clocked: Clocked) -> None:
    """Moving a hold of a dead worker frees nothing, for whoever comes next or after."""
    till = Till(clocked, day=100, lease=100)
    await till.hold(flat(95))
    await clocked.show(NOON + 200)
    assert [await till.asks(6), await till.asks(5)] == ["budget_exhausted", "admitted"]
    assert [await till.asks(1), await till.asks(0)] == ["budget_exhausted", "admitted"]
    assert await money(clocked) == (95, 5)


async def test_a_hold_outlives_its_lease(clocked: Clocked) -> None:
    """Where nobody comes for a day and a half, what was held is still there to be counted."""
    till = Till(clocked, lease=100)
    rid, _ = await till.hold(flat(40), WIDE)
    kept = 2 * A_DAY * 1000
    spent = [f"{PREFIX}spend:{TODAY}{of}" for of in ("", ":n", ":w")]
    for key in (f"{PREFIX}hold:{rid}", HOLDS, *spent):
        assert kept - 60_000 < await clocked.pttl(key) <= kept
    await clocked.show(NOON + A_DAY * 3 // 2)
    await till.hold(flat(1), OTHER)
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(40, 0)] * 3
    assert await money(clocked, day=TODAY + 2) == (0, 1)


async def test_a_hold_that_is_gone_is_no_error(clocked: Clocked) -> None:
    """When even its key has ended, what is left of its name goes at the next admission."""
    till = Till(clocked, lease=100)
    rid, _ = await till.hold(flat(40))
    await clocked.delete(f"{PREFIX}hold:{rid}")
    await clocked.show(NOON + 200)
    assert await till.asks(1) == "admitted"
    assert await clocked.zscore(HOLDS, rid) is None


# -- midnight


async def test_a_turn_is_paid_on_the_day_it_came(clocked: Clocked) -> None:
    """A hold of yesterday is settled on yesterday; today's cap is whole for who comes today."""
    till = Till(clocked, day=100, visitor=100)
    await clocked.show((TODAY + 1) * A_DAY - 1)
    rid, hold = await till.hold(flat(90), WIDE)
    assert hold.day == TODAY
    await clocked.show((TODAY + 1) * A_DAY)
    _, hold = await till.hold(flat(100), WIDE)
    assert hold.day == TODAY + 1
    await till.settle(rid, 95, WIDE, went_past=True)
    for of in ALL_OF_WIDE:
        assert await money(clocked, of) == (95, 0)
        assert await money(clocked, of, TODAY + 1) == (0, 100)
    counted = [await count(clocked, name) for name in ("over", "past")]
    assert counted == [1, 1]
    assert await till.asks(1, WIDE) == "budget_exhausted"


async def test_a_call_with_another_day_writes_nothing(clocked: Clocked) -> None:
    """A worker that does not know the day yet, or any more, is told it: not even a tick is kept."""
    watched, seen = Between(clocked, "Admits one request"), []

    async def look(reply: list[bytes]) -> None:
        seen.append((reply[1], [key for key in await contents(clocked) if key != "clock"]))

    watched.after = look
    till = Till(watched)
    for now in (NOON, NOON + A_DAY, NOON + 3 * A_DAY):
        await clocked.lose_all()
        await clocked.show(now)
        await till.hold(flat(40))
        assert [code for code, _ in seen] == [b"other_day", b"admitted"]
        assert seen[0][1] == []
        assert len(seen[1][1]) > 5
        seen.clear()


# -- out of memory


async def test_a_full_redis_holds_nothing_and_settles(own_store: Store) -> None:
    """At maxmemory no money is set aside; what was, is settled, and an unknown turn is marked."""
    clocked = Clocked(own_store)
    await clocked.show(NOON)
    till = Till(clocked, day=100)
    rid, _ = await till.hold(flat(40), WIDE)
    await fill(own_store)
    assert await till.asks(1, WIDE) == "store_unavailable"
    assert await open_holds(clocked) == {rid: 40}
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(0, 40)] * 3
    await till.settle(rid, 15, WIDE)
    assert [await money(clocked, of) for of in ALL_OF_WIDE] == [(15, 0)] * 3
    await till.settle(new_rid(), 1)
    assert await till.asks(1, WIDE) == "store_unavailable"


async def test_a_settlement_that_counts_first_is_refused(own_store: Store) -> None:
    """Control: a script that adds before it removes cannot end a hold in a full Redis."""
    first = "local open = redis.call('ZREM', KEYS[2], rid)"
    adding = "note_change(KEYS[7])\n" + first
    clocked = Clocked(Altered(own_store, first, adding, script="Ends"))
    await clocked.show(NOON)
    till = Till(clocked)
    rid, _ = await till.hold(flat(40))
    await fill(own_store)
    assert await outcome(till.settle(rid, 15)) == ("store_unavailable", "kept")


@pytest.mark.parametrize("of", ["", f":{HOME.address}"])
async def test_a_count_that_was_taken_away_never_owes_money(clocked: Clocked, of: str) -> None:
    """After the operator deletes a day's count, or a visitor's, no more fits than the caps say."""
    till = Till(clocked, day=100, visitor=100)
    rid, _ = await till.hold(flat(30))
    await clocked.delete(f"{PREFIX}spend:{TODAY}{of}")
    await till.settle(rid, 0)
    assert [await money(clocked), await money(clocked, HOME.address)] == [(0, 0)] * 2
    assert await till.asks(101) != "admitted"
    assert await till.asks(100) == "admitted"
