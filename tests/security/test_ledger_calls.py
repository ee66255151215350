"""What is asked of Redis: one call admits, one settles, whatever becomes of the turn."""

from security.budget import Caps
from security.ledger import Ledger, new_rid
from security.scripts import Rate
from tests.security.ledger_stage import HOME, HOUR_US, Chain, Store, ledger_on, outcome
from tests.security.money_stage import flat


async def _calls(store: Store) -> dict[str, int]:
    """How often clients (not scripts) were served, by command."""
    stats = await store.info("commandstats")
    asked = ("evalsha", "eval", "script|load", "multi")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in asked}


async def _spent(store: Store, ledger: Ledger) -> dict[str, int]:
    """The calls that five turns and their five settlements cost."""
    before = await _calls(store)
    chain = Chain(ledger, store)
    for _ in range(5):
        rid = new_rid()
        await chain.redeem(rid=rid)
        await ledger.settle(rid, HOME, chain=chain.name)
    after = await _calls(store)
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


async def test_a_turn_costs_one_call_and_its_end_another(real_store: Store) -> None:
    """One EVALSHA admits, one settles, and nothing else is asked of Redis."""
    ledger = ledger_on(real_store)
    await ledger.load()
    assert await _spent(real_store, ledger) == {"evalsha": 10}


async def test_other_calls_would_be_counted(real_store: Store) -> None:
    """Control: where the scripts were forgotten, the same count shows each sent whole, once."""
    ledger = ledger_on(real_store)
    await ledger.load()
    await real_store.script_flush()
    assert await _spent(real_store, ledger) == {"evalsha": 10, "eval": 2}


async def test_a_worker_asks_once_what_day_it_is(real_store: Store) -> None:
    """The very first admission of a worker that loaded nothing costs one call more; no other."""
    await ledger_on(real_store).load()
    ledger = ledger_on(real_store)
    assert await _spent(real_store, ledger) == {"evalsha": 11}
    assert await _spent(real_store, ledger) == {"evalsha": 10}


async def test_workers_start_under_any_limit(real_store: Store) -> None:
    """To learn the day takes nothing from anybody's rate, however low that is."""
    for _ in range(3):
        await ledger_on(real_store, rate=Rate(1, HOUR_US)).load()


async def test_refusals_cost_one_call_too(real_store: Store) -> None:
    """Whatever the outcome, it is one round trip."""
    ledger = ledger_on(real_store, streams_per_chain=2, caps=Caps(100, 100))
    await ledger.load()
    before = (await _calls(real_store))["evalsha"]
    chain = Chain(ledger, real_store)
    for number in (0, 1, 1, 0, 9):
        await outcome(chain.redeem(number))
    assert (await outcome(chain.redeem()))[0] == "too_many_streams"
    dear = Chain(ledger, real_store).redeem(worst=flat(101))
    assert (await outcome(dear))[0] == "budget_exhausted"
    await ledger.probe(new_rid(), HOME)
    await ledger.admit_own_key(new_rid(), HOME)
    assert (await _calls(real_store))["evalsha"] - before == 9
