"""What is held for a turn: it fits beside all that is spent and held, or nobody gets in."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from security.budget import Caps, WorstCase, round_up
from security.errors import Rejection
from security.ledger import new_rid
from security.scripts import Visitor
from tests.security.ledger_stage import (
    HOME,
    PREFIX,
    Chain,
    contents,
    ledger_on,
    outcome,
    refusal,
)
from tests.security.money_stage import (
    OTHER,
    TODAY,
    Clocked,
    Till,
    count,
    flat,
    money,
    open_holds,
    per_token,
)

SIX = [Visitor(f"n{number}", "w") for number in range(6)]


@dataclass(frozen=True)
class Payer:
    """Somebody with a cap of 100: what leaves 5 of it, as (visitor, held, charged or None)."""

    caps: dict[str, int]
    name: str
    turns: list[tuple[Visitor, int, int | None]]
    last: Visitor
    code: str


PAYERS = {
    "day": Payer({"day": 100}, "", [(HOME, 40, 10), (OTHER, 85, None)], OTHER, "budget_exhausted"),
    "visitor": Payer(
        {"visitor": 100}, "home", [(HOME, 40, 10), (HOME, 85, None)], HOME, "budget_visitor"
    ),
    "wide": Payer(
        {"visitor": 25},
        "w",
        [(SIX[0], 25, 10), *((each, 25, None) for each in SIX[1:4]), (SIX[4], 10, None)],
        SIX[5],
        "budget_visitor",
    ),
}


async def fill(till: Till, payer: Payer) -> None:
    """Take all of a payer's money but 5."""
    for visitor, held, charge in payer.turns:
        rid, _ = await till.hold(flat(held), visitor)
        if charge is not None:
            await till.settle(rid, charge, visitor)


@pytest.mark.parametrize("who", PAYERS)
async def test_the_border_is_exact(clocked: Clocked, who: str) -> None:
    """What is spent, held and asked for may equal the cap of a day, a visitor, a /48: no more."""
    payer = PAYERS[who]
    till = Till(clocked, **payer.caps)
    await fill(till, payer)
    assert await money(clocked, payer.name) == (10, 85)
    assert await till.asks(6, payer.last) == payer.code
    assert await till.asks(5, payer.last) == "admitted"
    assert await till.asks(1, payer.last) == payer.code
    assert await till.asks(0, payer.last) == "admitted"
    assert await money(clocked, payer.name) == (10, 90)


@pytest.mark.parametrize("who", ["visitor", "wide"])
async def test_a_cap_is_for_the_one_named(clocked: Clocked, who: str) -> None:
    """Who shares no prefix with a visitor that has spent all can spend all of their own."""
    payer = PAYERS[who]
    till = Till(clocked, **payer.caps)
    await fill(till, payer)
    assert await till.asks(payer.caps["visitor"], Visitor("n9", "another")) == "admitted"
    assert await till.asks(payer.caps["visitor"], Visitor("elsewhere")) == "admitted"


async def test_the_operator_sets_another_cap(clocked: Clocked) -> None:
    """`cap` in control goes before the setting, lower or higher, and back again without it."""
    till = Till(clocked, day=100)
    await till.spend(50)
    await clocked.hset(PREFIX + "control", "cap", "60")
    assert [await till.asks(11), await till.asks(10)] == ["budget_exhausted", "admitted"]
    await clocked.hset(PREFIX + "control", "cap", "1000")
    assert [await till.asks(941), await till.asks(200)] == ["budget_exhausted", "admitted"]
    await clocked.hset(PREFIX + "control", "cap", "0")
    assert await till.asks(0) == "budget_exhausted"
    await clocked.hdel(PREFIX + "control", "cap")
    assert await till.asks(0) == "budget_exhausted", "260 of 100 are taken"
    await clocked.hset(PREFIX + "control", "cap", "nonsense")
    assert await till.asks(0) == "store_unavailable"


@pytest.mark.parametrize(
    ("caps", "code"),
    [
        ({"day": 0}, "budget_exhausted"),
        ({"visitor": 0}, "budget_visitor"),
        ({"day": 0, "visitor": 0}, "budget_exhausted"),
    ],
)
@pytest.mark.parametrize("worst", [flat(0), flat(5), per_token(0, 0, 1), per_token(1, 1, 5000)])
async def test_a_cap_of_nothing_admits_nobody(
    clocked: Clocked, caps: dict[str, int], code: str, worst: WorstCase
) -> None:
    """Neither a dear turn nor one that costs nothing, of any visitor."""
    till = Till(clocked, **caps)
    for visitor in (HOME, SIX[0]):
        assert await till.asks(worst, visitor) == code
    assert await open_holds(clocked) == {}


async def test_no_cap_admits_what_it_counts(clocked: Clocked) -> None:
    """Switched off, a cap refuses nothing, shortens nothing, and says nothing of a budget."""
    till = Till(clocked)
    _, hold = await till.hold(per_token(7, 10**6, 10**5))
    assert (hold.micro_usd, hold.max_output, hold.day) == (100_000_000_007, 10**5, TODAY)
    assert await money(clocked) == await money(clocked, "home") == (0, 100_000_000_007)
    assert (await till.ledger.probe(new_rid(), HOME)).budget is None


def most_output(left: int, worst: WorstCase) -> int:
    """The most tokens whose price is left beside the prompt's, by trying all."""
    fits = (
        tokens
        for tokens in range(worst.max_output + 1)
        if worst.prompt + round_up(tokens * worst.output_price) <= left
    )
    return max(fits, default=0)


def expected(left: int, worst: WorstCase) -> tuple[int, int] | str:
    """What is held and granted of such a turn, or the code of its refusal."""
    if worst.total <= left:
        return worst.total, worst.max_output
    tokens = most_output(left, worst) if worst.output_price else -1
    if tokens < min(worst.max_output, 256):
        return "budget_visitor"
    return worst.prompt + round_up(tokens * worst.output_price), tokens


async def tried(till: Till, worst: WorstCase, visitor: Visitor) -> tuple[int, int] | str:
    """What is held and granted, or the code of the refusal."""
    try:
        _, hold = await till.hold(worst, visitor)
    except Rejection as refused:
        return refused.code
    return hold.micro_usd, hold.max_output


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_answer_is_shortened_to_what_is_left(clocked: Clocked, seed: int) -> None:
    """Never above the cap, never below 256 tokens, and to the very token that is still paid for."""
    draw = random.Random(seed)
    kinds = set()
    for number in range(40):
        price = draw.choice([0, 1, 399_999, 1_600_001, 10_000_000])
        worst = WorstCase(draw.randrange(900_000_000), price, draw.choice([200, 300, 2000]))
        left = max(1, worst.total - draw.choice([0, 1, draw.randrange(worst.total + 1)]))
        till, visitor = Till(clocked, visitor=left), Visitor(f"v{number}")
        wanted = expected(left, worst)
        granted = await tried(till, worst, visitor)
        assert granted == wanted
        if isinstance(granted, str):
            kinds.add("refused")
            continue
        held, tokens = granted
        assert held <= left
        assert await money(clocked, visitor.address) == (0, held)
        kinds.add("whole" if tokens == worst.max_output else "shortened")
    assert kinds == {"refused", "whole", "shortened"}


@pytest.mark.parametrize(
    ("left", "asked", "granted"),
    [
        *((10 + 1000, 1000, 1000), (10 + 999, 1000, 999), (10 + 256, 1000, 256)),
        *((10 + 255, 1000, None), (10 + 100, 100, 100), (10 + 99, 100, None), (9, 1, None)),
    ],
)
async def test_no_answer_is_shortened_to_nothing(
    clocked: Clocked, left: int, asked: int, granted: int | None
) -> None:
    """256 tokens or all that was asked for, whichever is less, must fit beside a prompt of 10."""
    till = Till(clocked, day=left)
    if granted is None:
        assert await till.asks(per_token(10, 1, asked)) == "budget_exhausted"
        return
    _, hold = await till.hold(per_token(10, 1, asked))
    assert (hold.micro_usd, hold.max_output) == (10 + granted, granted)


@pytest.mark.parametrize(
    ("day", "visitor", "code", "granted"),
    [
        (300, 400, "admitted", 300),
        (400, 300, "admitted", 300),
        (255, 400, "budget_exhausted", 0),
        (400, 255, "budget_visitor", 0),
        (255, 255, "budget_exhausted", 0),
        (None, 255, "budget_visitor", 0),
        (255, None, "budget_exhausted", 0),
    ],
)
async def test_the_tightest_cap_decides_and_is_named(
    clocked: Clocked, day: int | None, visitor: int | None, code: str, granted: int
) -> None:
    """The least of both is granted; where the day's is too little, that is what is said."""
    till = Till(clocked, day=day, visitor=visitor)
    assert await till.asks(per_token(0, 1, 1000)) == code
    assert await money(clocked) == (0, granted)


async def test_a_refusal_says_when_there_is_more(clocked: Clocked) -> None:
    """A moment while running turns hold it, else until midnight UTC; the token is kept."""
    chain, rid = Chain(ledger_on(clocked, caps=Caps(100, 50)), clocked), new_rid()
    left = (await chain.redeem(rid=rid, worst=flat(30))).standing.budget
    assert left
    assert (left.remaining, left.limit, left.reset_in) == (20, 50, 43_200)
    refused = await refusal(chain.redeem(worst=flat(21)))
    assert (refused.code, refused.chain) == ("budget_visitor", "kept")
    assert refused.retry_after == 5
    assert (await refusal(chain.redeem(worst=flat(51)))).retry_after == 43_200
    await chain.ledger.settle(rid, HOME, chain=chain.name, charge=30)
    refused = await refusal(chain.redeem(worst=flat(21)))
    assert (refused.code, refused.retry_after) == ("budget_visitor", 43_200)
    assert refused.standing
    assert refused.standing.budget == left


async def test_what_is_left_is_the_tighter_of_two(clocked: Clocked) -> None:
    """Of a visitor whose neighbours took most of the /48, what is left of that is told."""
    till = Till(clocked, visitor=100)
    for visitor in (SIX[0], SIX[1], SIX[2]):
        await till.spend(100, visitor)
    await till.spend(70, SIX[3])
    told = (await till.ledger.probe(new_rid(), SIX[4])).budget
    assert told
    assert (told.remaining, told.limit) == (30, 100)


@pytest.mark.parametrize("turns", [0, 2])
@pytest.mark.parametrize("caps", [Caps(100, None), Caps(None, 100)])
async def test_a_refusal_consumes_nothing(clocked: Clocked, turns: int, caps: Caps) -> None:
    """Chain, token, places, start rates and money stay; only the tick of the address is kept."""
    chain = await Chain(ledger_on(clocked, caps=caps), clocked).take(turns)
    await Chain(chain.ledger, clocked).redeem(worst=flat(95))
    before = await contents(clocked)
    assert (await outcome(chain.redeem(worst=flat(6))))[1] == "kept"
    after = await contents(clocked)
    assert after.pop(PREFIX + "rate:home") > before.pop(PREFIX + "rate:home")
    assert after == before
    assert await outcome(chain.redeem(worst=flat(5))) == ("admitted", "advanced")


async def test_only_an_admission_holds(clocked: Clocked) -> None:
    """A reused token, a repeat of a lost answer and a guess take no money."""
    chain = await Chain(ledger_on(clocked, caps=Caps(100, 100)), clocked).take(1)
    await chain.redeem(worst=flat(40), idempotency="k")
    before = await money(clocked), await open_holds(clocked), await count(clocked, "changes")
    for again in (chain.redeem(1, worst=flat(7), idempotency="k"), chain.redeem(1, worst=flat(7))):
        assert (await outcome(again))[0] in ("duplicate_request", "token_reused")
    await chain.ledger.probe(new_rid(), HOME)
    after = await money(clocked), await open_holds(clocked), await count(clocked, "changes")
    assert after == before
    assert before[0] == (0, 40)


async def test_own_keys_touch_no_money(clocked: Clocked) -> None:
    """Who pays is admitted when nothing is left, and neither coming nor going is counted."""
    till = Till(clocked, day=0, visitor=0)
    rid = new_rid()
    assert (await till.ledger.admit_own_key(rid, SIX[0])).budget is None
    await till.settle(rid, 5, SIX[0])
    written: dict[str, Any] = await contents(clocked)
    named = ("spend", "hold", "closed")
    assert not [key for key in written if any(name in key for name in named)]
