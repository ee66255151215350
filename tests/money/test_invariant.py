"""The cap that cannot be exceeded: thousands of racing turns, real processes, exact books.

Each test is one run of `bench.money`: a fresh redis-server, an upstream that keeps books of what it
would bill, a server with four workers, and clients of which one in ten hangs up.
"""

import pytest

from bench.money import run
from bench.plan import PRICED, chains, plan
from tests.money.books import billed

TURNS = 5000
FEWER = 1500


@pytest.mark.parametrize("seed", [101, 102])
def test_racing_turns_never_cost_more_than_the_cap(seed: int) -> None:
    """Upstream's bill and our count stay within the caps, no hold leaks, who leaves has paid."""
    row = run("keyturn", seed, TURNS)
    assert row.broken == []
    assert row.turns == TURNS
    assert row.books <= row.spent <= row.cap
    assert (row.overshoot, row.leaked, row.phantoms) == (0, 0, 0)
    assert row.charged == row.aborted > 0


def test_what_was_spent_is_what_upstream_bills() -> None:
    """Where every answer told its usage, a day's thousand turns are right to the µUSD."""
    row = run("keyturn", 103, TURNS, exact=True)
    assert row.broken == []
    assert 0 < row.books == row.spent <= row.cap


def test_read_then_add_overshoots() -> None:
    """The control: who looks, calls and then adds passes the cap, though every cost is exact."""
    row = run("read-then-add", 101, FEWER, exact=True)
    assert row.overshoot > 0
    assert row.spent == row.books > row.cap
    assert f"overshoot of {row.overshoot}" in row.broken


def test_a_plain_finally_leaks_holds() -> None:
    """The control: who settles in a generator's `finally` refuses what would have fitted."""
    row = run("plain-finally", 101, FEWER)
    assert row.overshoot == 0
    assert row.leaked > 0
    assert row.charged < row.aborted
    assert row.phantoms > 0


def test_a_run_follows_from_its_seed() -> None:
    """The same turns again, others for another seed, and each of them in one chain."""
    turns = plan(7, 500)
    assert plan(7, 500) == turns != plan(8, 500)
    assert [turn for chain in chains(turns) for turn in chain] == turns
    assert len(chains(turns)) < len(turns)


@pytest.mark.parametrize("exact", [False, True])
def test_turns_keep_the_terms_of_the_promise(exact: bool) -> None:
    """No token is less than a byte, and only a model that may think does so unseen."""
    turns = plan(9, 2000, exact=exact)
    for turn in turns:
        script = turn.script
        assert script["prompt"] <= len(turn.body())
        assert script["tokens_per_word"] <= len(script["text"].encode())
        assert script.get("reasoning", 0) == 0 or PRICED[turn.model].reasoning
    assert any(turn.hang_up is not None for turn in turns) != exact
    assert any("reset_after" in turn.script for turn in turns) != exact


def test_a_turn_says_what_it_will_cost() -> None:
    """About: caps are made from it."""
    for turn in plan(10, 200):
        script = turn.script
        output = script["words"] * script["tokens_per_word"] + script.get("reasoning", 0)
        tokens = {"prompt_tokens": script["prompt"], "cached_tokens": 0, "output_tokens": output}
        whole = billed({"body": {"model": turn.model}, **tokens}, PRICED)
        assert turn.cost() <= whole
