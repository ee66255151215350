"""The chain decision, branch by branch: the first match wins."""

import pytest

from security.ledger import new_rid
from security.scripts import Duplicate
from tests.security.ledger_stage import Chain, Store, ledger_on, outcome, refusal

KEPT = ("token_reused", "kept")
REVOKED = ("token_reused", "revoked")
UNKNOWN = ("chain_unknown", "none")
CONFLICT = ("idempotency_conflict", "kept")
ADMITTED = ("admitted", "advanced")


async def test_a_first_turn_begins_a_chain(chain: Chain) -> None:
    """A tokenless turn begins a chain at 1, born and last used now."""
    verdict = await chain.redeem()
    assert verdict.number == 1
    assert verdict.born_ms == verdict.last_ms
    stored = await chain.stored()
    assert (stored["n"], stored["state"], stored["born"]) == ("1", "open", str(verdict.born_ms))


async def test_each_turn_is_one_higher(chain: Chain) -> None:
    """The newest token is admitted and the integer grows by one; the birth stays."""
    first = await chain.redeem()
    assert [(await chain.redeem()).number for _ in range(3)] == [2, 3, 4]
    assert chain.born_ms == first.born_ms


async def test_the_same_call_again_gets_its_first_outcome(chain: Chain) -> None:
    """A repeated rid is answered as before, for a first turn and for a later one."""
    for number in (0, 1):
        rid = new_rid()
        first = await chain.redeem(number, rid=rid)
        again = await chain.redeem(number, rid=rid)
        assert (again.number, again.last_ms) == (first.number, first.last_ms)
        assert again.born_ms == first.born_ms


async def test_the_same_call_again_costs_nothing(chain: Chain) -> None:
    """A repeated rid takes no tick of the rate and no second place in flight."""
    rid = new_rid()
    first = await chain.redeem(rid=rid)
    again = await chain.redeem(0, rid=rid)
    assert again.standing.address.remaining >= first.standing.address.remaining
    assert await chain.store.zcard("keyturn:{t}:inflight:home") == 1


async def test_a_revoking_call_again_revokes_again(chain: Chain) -> None:
    """The call that revoked is told the same when repeated; another hears chain_revoked."""
    await chain.take(3)
    rid = new_rid()
    assert await outcome(chain.redeem(1, rid=rid)) == REVOKED
    assert await outcome(chain.redeem(1, rid=rid)) == REVOKED
    assert await outcome(chain.redeem(1)) == ("chain_revoked", "revoked")


@pytest.mark.parametrize("number", [1, 7])
async def test_a_token_of_no_chain_is_unknown(chain: Chain, number: int) -> None:
    """A chain that Redis does not know is never made again from a token."""
    assert await outcome(chain.redeem(number, born_ms=1)) == UNKNOWN
    assert await chain.stored() == {}


async def test_a_token_of_an_earlier_life_is_unknown(chain: Chain) -> None:
    """A token of a chain that ended is not one of the chain that was begun in its place."""
    await chain.redeem()
    assert await outcome(chain.redeem(born_ms=chain.born_ms - 1)) == UNKNOWN
    assert await outcome(chain.redeem(born_ms=0)) == UNKNOWN
    assert await outcome(chain.redeem()) == ADMITTED


async def test_nobody_passes_a_revoked_chain(chain: Chain) -> None:
    """After a theft neither the old token, the newest nor a repeat of the first turn is good."""
    await chain.take(3)
    assert await outcome(chain.redeem(1)) == REVOKED
    for number in (0, 1, 2, 3, 4):
        assert await outcome(chain.redeem(number)) == ("chain_revoked", "revoked")


@pytest.mark.parametrize("number", [0, 1])
async def test_a_lost_answer_is_recovered(chain: Chain, number: int) -> None:
    """The same key, body and fingerprint get the very same successor, however often asked."""
    await chain.take(number)
    first = await chain.redeem(idempotency="k")
    for _ in range(3):
        again = await refusal(chain.redeem(number, idempotency="k"))
        assert isinstance(again, Duplicate)
        assert again.code == "duplicate_request"
        same = again.verdict
        assert (same.number, same.last_ms, same.born_ms) == (
            first.number,
            first.last_ms,
            first.born_ms,
        )


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("changed", [{"body": "other"}, {"fingerprint": "other"}])
async def test_a_key_is_good_for_one_message(
    chain: Chain, number: int, changed: dict[str, str]
) -> None:
    """A key shown again with another body or fingerprint is a conflict, and the chain is kept."""
    await chain.take(number)
    await chain.redeem(idempotency="k")
    assert await outcome(chain.redeem(number, idempotency="k", **changed)) == CONFLICT
    assert await outcome(chain.redeem()) == ADMITTED


@pytest.mark.parametrize("number", [0, 1])
async def test_recovery_has_an_end(chain: Chain, number: int) -> None:
    """Within the window a lost answer is recovered, past it the key is a conflict."""
    await chain.take(number)
    await chain.redeem(idempotency="k")
    await chain.age(178)
    again = await refusal(chain.redeem(number, idempotency="k"))
    assert again.code == "duplicate_request"
    await chain.age(3)
    assert await outcome(chain.redeem(number, idempotency="k")) == CONFLICT


async def test_a_used_successor_ends_recovery(chain: Chain) -> None:
    """Once the successor was used, the old token with its old key is a theft."""
    await chain.take(1)
    await chain.redeem(idempotency="k")
    await chain.redeem(idempotency="l")
    assert await outcome(chain.redeem(1, idempotency="k")) == REVOKED


async def test_a_successor_needs_a_new_key(chain: Chain) -> None:
    """The newest token with the last turn's key is a conflict; with another it is admitted."""
    await chain.redeem(idempotency="k")
    assert await outcome(chain.redeem(idempotency="k")) == CONFLICT
    assert await outcome(chain.redeem(idempotency="l")) == ADMITTED


async def test_no_key_is_never_the_same_key(chain: Chain) -> None:
    """Turns without a key do not count as repeats of one another."""
    await chain.take(2)
    assert await outcome(chain.redeem(1)) == KEPT
    assert await outcome(chain.redeem()) == ADMITTED


@pytest.mark.parametrize("key", ["", "l"])
async def test_a_second_tab_is_forgiven_within_the_grace(chain: Chain, key: str) -> None:
    """The last token again, a moment later: refused, and the chain goes on."""
    await chain.take(1)
    await chain.redeem(idempotency="k")
    await chain.age(8)
    assert await outcome(chain.redeem(1, idempotency=key)) == KEPT
    assert await outcome(chain.redeem()) == ADMITTED


async def test_the_last_token_after_the_grace_is_a_theft(chain: Chain) -> None:
    """The last token again, past the grace: the chain is revoked."""
    await chain.take(2)
    await chain.age(11)
    assert await outcome(chain.redeem(1)) == REVOKED


async def test_the_grace_may_be_nothing(store: Store) -> None:
    """With a grace of 0 a token shown again a second later revokes."""
    chain = await Chain(ledger_on(store, reuse_grace=0), store).take(2)
    await chain.age(1)
    assert await outcome(chain.redeem(1)) == REVOKED


@pytest.mark.parametrize("number", [1, 2])
async def test_an_older_token_is_a_theft_at_once(chain: Chain, number: int) -> None:
    """A token two or more turns old revokes the chain, grace or not."""
    await chain.take(4)
    assert await outcome(chain.redeem(number)) == REVOKED
    assert (await chain.stored())["state"] == "revoked"


@pytest.mark.parametrize("ahead", [1, 5])
async def test_a_token_from_the_future_is_unknown(chain: Chain, ahead: int) -> None:
    """A token higher than the chain (Redis lost writes) is unknown, and nothing is lost by it."""
    await chain.take(2)
    assert await outcome(chain.redeem(2 + ahead)) == UNKNOWN
    assert await outcome(chain.redeem(2)) == ADMITTED


@pytest.mark.parametrize("turns", [1, 2, 4])
@pytest.mark.parametrize("key", ["", "other"])
async def test_a_first_turn_on_a_chain_never_revokes(chain: Chain, turns: int, key: str) -> None:
    """A tokenless repeat, however late, is a conflict: whoever has no token is no thief."""
    await chain.redeem(idempotency="k")
    await chain.take(turns - 1)
    await chain.age(1000)
    assert await outcome(chain.redeem(0, idempotency=key)) == CONFLICT
    assert await outcome(chain.redeem()) == ADMITTED


async def test_a_chain_has_an_absolute_end(store: Store) -> None:
    """However busy, a chain older than its absolute life is unknown, for every token and none."""
    chain = await Chain(ledger_on(store, chain_ttl=100), store).take(2)
    await chain.age(98)
    await chain.redeem()
    await chain.age(3)
    for number in (0, 1, 2, 3):
        assert await outcome(chain.redeem(number)) == UNKNOWN


async def test_a_chain_lives_as_long_as_its_token(store: Store) -> None:
    """Every turn gives the chain its idle life again, but never more than its absolute life."""
    chain = await Chain(ledger_on(store, token_ttl=100, chain_ttl=1000), store).take(1)
    assert 99_000 < await store.pttl(chain.key) <= 100_000
    await store.pexpire(chain.key, 5_000)
    await chain.redeem()
    assert 99_000 < await store.pttl(chain.key) <= 100_000
    await chain.age(970)
    await chain.redeem()
    assert 29_000 < await store.pttl(chain.key) <= 30_000


async def test_a_chain_that_expired_is_unknown(chain: Chain) -> None:
    """When its idle life is over, the newest token begins nothing."""
    await chain.take(2)
    await chain.store.delete(chain.key)
    assert await outcome(chain.redeem()) == UNKNOWN
    assert await chain.stored() == {}


async def test_revoking_does_not_lengthen_a_life(chain: Chain) -> None:
    """A thief cannot keep a chain in memory: a refusal leaves its end where it was."""
    await chain.take(3)
    await chain.store.pexpire(chain.key, 5_000)
    assert await outcome(chain.redeem(1)) == REVOKED
    assert await chain.store.pttl(chain.key) <= 5_000


async def test_chains_are_strangers(store: Store) -> None:
    """Revoking one chain leaves another of the same visitor alone."""
    ledger = ledger_on(store)
    stolen, other = await Chain(ledger, store).take(3), await Chain(ledger, store).take(3)
    assert await outcome(stolen.redeem(1)) == REVOKED
    assert await outcome(other.redeem()) == ADMITTED
