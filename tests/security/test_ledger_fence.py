"""The fence: a store that took over, or was started again, honours no token of before.

It may not know that it was spent. Whoever shows one is handed the first token of a new chain, once.
"""

import pytest

from security.breaker import Breaker
from security.calls import Calls
from security.control import Control
from security.ledger import new_rid
from security.scripts import Rate, prefix_of
from security.store import connect
from tests.security.ledger_stage import (
    AT_LEISURE,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Clock,
    Store,
    become_another,
    contents,
    ledger_on,
    outcome,
    renewed,
)
from tests.stage import redis_process

ADMITTED = ("admitted", "advanced")
RENEWED = ("chain_unknown", "advanced")
UNKNOWN = ("chain_unknown", "none")
OUT = ("store_unavailable", "kept")


@pytest.fixture
def chain(own_store: Store) -> Chain:
    """A chain that is not begun, on a server of its own."""
    return Chain(ledger_on(own_store), own_store)


async def spent_unseen(chain: Chain) -> None:
    """Spend the newest token, and let another server take over that does not know."""
    await chain.take(2)
    before = await chain.store.dump(chain.key)
    await chain.redeem()
    await chain.store.restore(chain.key, 60_000, before, replace=True)
    await become_another(chain.store)


async def test_a_token_that_was_spent_unseen_is_not_honoured(chain: Chain) -> None:
    """Neither the spent one, nor its successor: what the store lost cannot be used."""
    await spent_unseen(chain)
    assert await outcome(chain.redeem(2)) == RENEWED
    for number in (1, 2, 3):
        assert await outcome(chain.redeem(number)) == UNKNOWN


async def test_without_the_fence_it_is_honoured_again(own_store: Store) -> None:
    """The control."""
    chain = Chain(ledger_on(own_store, failover_fence=False), own_store)
    await spent_unseen(chain)
    assert await outcome(chain.redeem(2)) == ADMITTED


@pytest.mark.parametrize("number", [2, 3, 9])
async def test_the_chain_goes_on_once(chain: Chain, number: int) -> None:
    """The newest token, or one whose making was lost too, is exchanged for the first of a new
    chain, which is honoured once like any other; the old chain is over."""
    await spent_unseen(chain)
    went_on = await renewed(chain, number)
    assert await outcome(went_on.redeem()) == ADMITTED
    assert await outcome(went_on.redeem(1)) == ("token_reused", "kept")
    assert await outcome(went_on.redeem()) == ADMITTED
    for again in (1, 2, 3, 9):
        assert await outcome(chain.redeem(again)) == UNKNOWN


async def test_the_operator_ends_it_by_the_name_of_before(chain: Chain) -> None:
    """A token of before the failover names a chain that goes on: that one is ended."""
    await spent_unseen(chain)
    went_on = await renewed(chain, 2)
    assert await outcome(went_on.redeem()) == ADMITTED
    breaker = Breaker(failures=3, open_for=1, clock=Clock())
    calls = Calls(chain.store, prefix=prefix_of("t"), deadlines=AT_LEISURE, breaker=breaker)
    control = Control(chain.store, calls)
    assert await control.revoke(chain.key.rpartition(":")[2]) == "done"
    assert await outcome(went_on.redeem()) == ("chain_revoked", "revoked")
    await chain.store.delete(went_on.key)
    assert await control.revoke(chain.key.rpartition(":")[2]) == "unknown", "the control"


async def test_what_the_store_knows_to_be_spent_stays_theft(chain: Chain) -> None:
    """A token below the chain's is judged as ever: kept within the grace, else revoked."""
    await chain.take(4)
    await become_another(chain.store)
    assert await outcome(chain.redeem(3)) == ("token_reused", "kept")
    assert await outcome(chain.redeem(2)) == ("token_reused", "revoked")
    assert await outcome(chain.redeem(4)) == ("chain_revoked", "revoked")


async def test_a_lost_answer_is_found_again(chain: Chain) -> None:
    """Its successor is told as ever, and is then exchanged."""
    await chain.take(2)
    await chain.redeem(idempotency="key")
    await become_another(chain.store)
    again = chain.redeem(2, idempotency="key")
    assert await outcome(again) == ("duplicate_request", None)
    assert await outcome(chain.redeem(3)) == RENEWED


async def test_it_is_no_new_start(own_store: Store) -> None:
    """With no start left, chains go on all the same; who comes without a token is told to wait."""
    ledger = ledger_on(own_store, start=Rate(2, HOUR_US), start_of_all=Rate(2, HOUR_US))
    chains = [await Chain(ledger, own_store).take(1) for _ in range(2)]
    await become_another(own_store)
    for chain in chains:
        assert await outcome((await renewed(chain)).redeem()) == ADMITTED
    assert await outcome(Chain(ledger, own_store).redeem()) == ("start_limited", "kept")


async def test_it_costs_a_tick_of_the_address_rate(own_store: Store) -> None:
    """As every answer does."""
    ledger = ledger_on(own_store, rate=Rate(2, HOUR_US))
    chain = await Chain(ledger, own_store).take(1)
    await become_another(own_store)
    went_on = await renewed(chain)
    assert await outcome(went_on.redeem()) == ("rate_limited", "kept")


async def test_a_repeated_call_is_told_the_same(chain: Chain) -> None:
    """Our one retry finds the chain that its first call began."""
    await chain.take(1)
    await become_another(chain.store)
    rid = new_rid()
    first = await renewed(chain, rid=rid)
    again = await renewed(chain, rid=rid)
    assert first == again
    assert await outcome(again.redeem()) == ADMITTED


async def test_its_life_is_no_longer(own_store: Store) -> None:
    """It ends when the old one would have ended at the latest, and idle as soon."""
    ledger = ledger_on(own_store, token_ttl=100, chain_ttl=1000)
    chain = await Chain(ledger, own_store).take(1)
    await chain.age(950)
    await become_another(own_store)
    went_on = await renewed(chain)
    assert 40_000 < await own_store.pttl(went_on.key) <= 50_000
    await went_on.age(60)
    assert await outcome(went_on.redeem()) == UNKNOWN


async def test_one_takeover_after_another(chain: Chain) -> None:
    """Each ends what was before it."""
    await chain.take(1)
    for _ in range(3):
        await become_another(chain.store)
        old, chain = chain, await renewed(chain)
        assert await outcome(chain.redeem()) == ADMITTED
        assert await outcome(old.redeem()) == UNKNOWN


async def test_nothing_else_is_written(chain: Chain) -> None:
    """But the address rate, the old chain's end, and the new one: no hold, no place, no start."""
    await chain.take(1)
    before = await contents(chain.store)
    await become_another(chain.store)
    went_on = await renewed(chain)
    after = await contents(chain.store)
    changed = {key for key in after if before.get(key) != after[key]}
    assert changed == {f"{PREFIX}rate:home", chain.key, went_on.key}


# -- stores that do not tell


async def test_a_store_that_hides_its_history_lets_nobody_in() -> None:
    """Fenced it admits nobody; with the fence off it is believed."""
    with redis_process() as url:
        store: Store = connect(url, timeout=5, connect_timeout=5)
        await store.execute_command(
            *("ACL", "SETUSER", "guest", "on", ">word", "~*", "+@all", "-info")
        )
        await store.aclose()
        guest: Store = connect(url.replace("://", "://guest:word@"), timeout=5, connect_timeout=5)
        assert await outcome(Chain(ledger_on(guest), guest).redeem()) == OUT
        believing = ledger_on(guest, failover_fence=False)
        assert await outcome(Chain(believing, guest).redeem()) == ADMITTED
        await guest.aclose()


async def test_a_store_without_a_name_for_its_history_lets_nobody_in(own_store: Store) -> None:
    """Whatever INFO says: without that word nobody gets in."""
    silent = Altered(own_store, "'master_replid:(%x+)'", "'no_such_word:(%x+)'")
    assert await outcome(Chain(ledger_on(silent), own_store).redeem()) == OUT
