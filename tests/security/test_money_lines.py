"""Every line that guards the money is needed: without it some promise of it is broken."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from security.errors import Rejection
from tests.security import test_ledger_memory as memory
from tests.security import test_ledger_money as money
from tests.security import test_ledger_restoring as restoring
from tests.security import test_ledger_settlement as settlement
from tests.security.ledger_stage import Altered, Store
from tests.security.money_stage import NOON, Clocked, flat

Promise = Callable[[Clocked], Awaitable[None]]
SCRIPTS = {
    "admit": "Admits one request",
    "money": "-- Money, in whole",
    "settle": "Ends a turn",
    "restore": "Gives a store back",
}

BORDER_OF_DAY = partial(money.test_the_border_is_exact, who="day")
BORDER_OF_WIDE = partial(money.test_the_border_is_exact, who="wide")
NOTHING = partial(
    money.test_a_cap_of_nothing_admits_nobody,
    caps={"visitor": 0},
    code="budget_visitor",
    worst=flat(0),
)
SHORTENED = partial(money.test_an_answer_is_shortened_to_what_is_left, seed=1)
LEAST = partial(money.test_no_answer_is_shortened_to_nothing, left=265, asked=1000, granted=None)
CHARGED = partial(settlement.test_the_charge_takes_the_place_of_the_hold, charge=1, over=0)
EQUAL = partial(settlement.test_the_charge_takes_the_place_of_the_hold, charge=40, over=0)
TAKEN_AWAY = partial(settlement.test_a_count_that_was_taken_away_never_owes_money, of="")
FREE = partial(settlement.test_nothing_left_is_a_plain_zero, amount=0)
AGAIN = partial(settlement.test_settling_again_charges_nothing, charge=40)
FOUND = partial(memory.test_any_call_finds_a_loss, by="an admission")
FOUND_BY_A_GUESS = partial(memory.test_any_call_finds_a_loss, by="a guess")
FLUSHED = partial(memory.test_what_was_spent_and_held_comes_back, lose=memory.flush)
WENT_BACK = partial(memory.test_each_worker_gives_back_its_own_holds, lose=memory.go_back)
ON_TOP = partial(memory.test_what_was_spent_since_comes_on_top, order=(0, 1, 2))
LESS_LATER = partial(memory.test_what_was_spent_since_comes_on_top, order=(1, 0, 2))


def tightest(day: int, visitor: int, code: str, granted: int) -> Promise:
    """The promise about two caps, for these two."""
    return partial(
        money.test_the_tightest_cap_decides_and_is_named,
        day=day,
        visitor=visitor,
        code=code,
        granted=granted,
    )


EPOCH = "redis.call('HSETNX', keys[1], 'epoch', rid)"
IN_ADMIT = "is_forgotten(KEYS[14], ARGV[30], tonumber(ARGV[31]), tonumber(ARGV[32]))"
IN_SETTLE = "is_forgotten(KEYS[7], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]))"
TIGHTER = "math.min(left_today, left_of_visitor())"

# What is promised, and the lines without which it is not kept: script, line, what stands instead.
NEEDED: list[tuple[Promise, list[tuple[str, str, str]]]] = [
    (
        BORDER_OF_DAY,
        [
            ("admit", " - tonumber(fields[1] or '0')", ""),
            ("admit", " - tonumber(fields[2] or '0')", ""),
            ("admit", "if worst <= left", "if worst < left"),
            ("admit", "if worst <= left", "if worst <= left + 1"),
            ("admit", "open_hold(rid, ARGV[29]", "tostring(rid, ARGV[29]"),
            ("money", "'held', whole(amount)", "'held', '0'"),
        ],
    ),
    (
        BORDER_OF_WIDE,
        [
            ("admit", "visitor_cap * BUDGET_FACTOR", "visitor_cap"),
            ("admit", "return math.min(left, left_of(", "return math.max(left, left_of("),
            ("money", "if wide ~= '' then keys[3]", "if false then keys[3]"),
        ],
    ),
    (NOTHING, [("admit", "if cap == 0 then return -1 end", "")]),
    (money.test_the_operator_sets_another_cap, [("admit", "control[2] or ARGV[33]", "ARGV[33]")]),
    (
        SHORTENED,
        [
            ("admit", "math.floor((left - prompt)", "math.ceil((left - prompt)"),
            ("admit", "(left - prompt) * 1000000", "left * 1000000"),
            ("admit", "prompt + math.ceil(granted", "prompt + math.floor(granted"),
            ("admit", "if granted < max_output then held", "if false then held"),
        ],
    ),
    (LEAST, [("admit", "math.min(max_output, LEAST_OUTPUT)", "1")]),
    (
        tightest(255, 400, "budget_exhausted", 0),
        [("admit", "if not affordable(left_today)", "if false")],
    ),
    (tightest(400, 300, "admitted", 300), [("admit", TIGHTER, "left_today")]),
    (tightest(300, 400, "admitted", 300), [("admit", TIGHTER, "left_of_visitor()")]),
    (
        money.test_a_refusal_says_when_there_is_more,
        [
            ("admit", "local wait = DAY - time[1] % DAY", "local wait = 1"),
            ("admit", "then wait = SOON end", "then end"),
            ("admit", "if at_rest then return left end", ""),
            ("admit", "left_of_visitor(true)", "math.huge"),
        ],
    ),
    (money.test_own_keys_touch_no_money, [("settle", "elseif open == 0 and", "elseif")]),
    (
        CHARGED,
        [
            ("money", "'held', whole(-amount)", "'held', '0'"),
            ("money", "whole(charged or amount)", "whole(amount)"),
            ("money", "redis.call('ZREM', BASE .. 'holds', rid)", ""),
            ("settle", "close_hold(rid, charge)", "close_hold(rid)"),
        ],
    ),
    (EQUAL, [("money", "charged > amount", "charged >= amount")]),
    (FREE, [("money", "number == 0 and 0 or number", "number")]),
    (
        AGAIN,
        [
            ("money", "redis.call('DEL', name)", ""),
            ("money", "note_change(keys[1])\n  if charged", "if charged"),
        ],
    ),
    (settlement.test_a_longer_answer_is_counted_once, [("settle", "if ARGV[5] == '1'", "if true")]),
    (
        settlement.test_a_turn_settled_before_it_came_is_refused,
        [
            ("admit", "if is_closed(rid) then", "if false then"),
            ("settle", "elseif open == 0", "elseif false"),
            ("money", "local A_MINUTE = '60000'", "local A_MINUTE = '600000'"),
        ],
    ),
    (
        settlement.test_a_turn_that_is_over_is_not_admitted_again,
        [("admit", "if not hold[1] then return reply('store_unavailable', 'unknown') end", "")],
    ),
    (
        settlement.test_a_lost_reply_is_one_hold,
        [("admit", "held, granted, whole(now", "held, max_output, whole(now")],
    ),
    (
        settlement.test_a_hold_that_nobody_ends_counts_in_full,
        [
            ("admit", "close_expired(now)", ""),
            ("money", "whole(charged or amount)", "whole(charged or 0)"),
        ],
    ),
    (TAKEN_AWAY, [("money", "redis.call('HSET', key, 'held', '0')", "tostring('')")]),
    (settlement.test_few_holds_are_closed_at_a_time, [("money", "'0', '16'", "'0', '17'")]),
    (settlement.test_a_hold_outlives_its_lease, [("money", "'172800000'", "'360000'")]),
    (
        settlement.test_a_turn_is_paid_on_the_day_it_came,
        [
            ("admit", "if ARGV[29] ~= whole(today)", "if false"),
            ("money", "if charged and charged > amount then", "if false then"),
        ],
    ),
    (
        FOUND,
        [
            ("admit", IN_ADMIT, "false"),
            ("money", EPOCH, ""),
        ],
    ),
    (
        memory.test_a_hold_lost_unnoticed_is_charged_all_the_same,
        [
            ("settle", "then charge_unheld(", "then tostring("),
            (
                "money",
                "whole(charged))\n    redis.call('PEXPIRE'",
                "'0')\n    redis.call('PEXPIRE'",
            ),
        ],
    ),
    (
        restoring.test_a_lost_reply_of_a_settlement_charges_once,
        [("settle", "and not is_closed(rid)", "")],
    ),
    (
        restoring.test_what_was_closed_unheard_is_not_given_back,
        [("restore", "not is_closed(rid) and ", "")],
    ),
    (FOUND_BY_A_GUESS, [("restore", "redis.call('PEXPIRE', of_day, KEPT)", "")]),
    (
        FLUSHED,
        [
            ("restore", "whole(now + tonumber(lease))", "whole(now)"),
            ("restore", "open_hold(rid, ARGV[2]", "tostring(rid, ARGV[2]"),
        ],
    ),
    (
        memory.test_a_hold_is_missed_though_nothing_was_spent,
        [
            ("money", EPOCH + "\n  note_change(keys[1])", EPOCH),
            ("money", "or stored_changes < changes", ""),
        ],
    ),
    (
        WENT_BACK,
        [
            ("money", "stored_epoch ~= epoch or ", ""),
            ("restore", "epoch == '' or epoch == ARGV[3]", "epoch == ''"),
        ],
    ),
    (
        ON_TOP,
        [
            ("restore", "before = spent\n", "\n"),
            ("restore", "spent, before = spent + known - before, known", ""),
            ("restore", "spent + known - before, known", "math.max(spent, known), known"),
        ],
    ),
    (LESS_LATER, [("restore", "elseif known > before then", "else")]),
    (
        memory.test_a_hold_that_was_kept_is_not_held_twice,
        [("restore", "redis.call('EXISTS', BASE .. 'hold:' .. rid) == 0", "true")],
    ),
    (
        memory.test_who_comes_late_finds_a_loss_too,
        [("money", "or stored_spent < spent ", "")],
    ),
    (
        memory.test_who_comes_late_takes_nothing_back,
        [("restore", "math.max(spent, known)", "known")],
    ),
    (memory.test_a_settlement_finds_its_hold_again, [("settle", IN_SETTLE, "false")]),
]
LINES = [(*line, promise) for promise, lines in NEEDED for line in lines]


@pytest.mark.parametrize(
    ("script", "line", "instead", "promise"),
    LINES,
    ids=[f"{script}: {line}" for script, line, _, _ in LINES],
)
async def test_every_line_of_the_money_is_needed(
    real_store: Store, script: str, line: str, instead: str, promise: Promise
) -> None:
    """Control: with any one of these lines gone or changed, the promise that needs it is broken."""
    altered = Altered(real_store, line, instead, script=SCRIPTS[script])
    clocked = Clocked(altered)
    await clocked.show(NOON)
    with pytest.raises((AssertionError, Rejection)):
        await promise(clocked)
    for text in altered.texts:  # what does not compile would break every promise
        await real_store.script_load(text)
