"""What a run came to, held against every promise about money."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.money_ledger import Ledger, Money, names
from bench.money_stage import Caps
from bench.plan import PRICED, Turn, number_of
from bench.rush import Ended
from tests.money.books import billed

BUDGETS = frozenset({"budget_exhausted", "budget_visitor"})
# How the scripted failures of upstream reach a client.
FAILURES = frozenset({"broken", "429", "500", "upstream_unavailable", "upstream_rate_limited"})
# A worker spares an upstream that failed a few times in a row.
EXPECTED = BUDGETS | {"overloaded"}
SERVED = FAILURES | {"ok"}
NOTHING = Money(0, 0)


@dataclass
class Facts:
    """A run when all has come to rest."""

    turns: list[Turn]
    ended: list[Ended]
    books: list[dict[str, Any]]
    ledger: Ledger
    caps: Caps


@dataclass
class Row:
    """A line of the table; `broken` are the promises that were not kept."""

    seed: str
    turns: int
    admitted: int
    refused: Counter[str]
    cap: int
    books: int
    spent: int
    overshoot: int
    leaked: int
    aborted: int
    charged: int
    phantoms: int = 0
    seconds: float = 0
    broken: list[str] = field(default_factory=list)


def audit(seed: str, facts: Facts, *, exact: bool) -> Row:
    """What these facts say."""
    by_turn = {number_of(entry["body"]): billed(entry, PRICED) for entry in facts.books}
    ledger, cap = facts.ledger, facts.caps.day
    books, spent = sum(by_turn.values()), ledger.day.spent
    aborted = [each.number for each in facts.ended if each.left and each.deltas]
    charged = [number for number in aborted if _is_charged(number, facts, by_turn)]
    row = Row(
        seed=seed,
        turns=len(facts.ended),
        admitted=len(facts.books),
        refused=Counter(each.code for each in facts.ended if each.code not in SERVED),
        cap=cap,
        books=books,
        spent=spent,
        overshoot=max(0, books - cap, spent - cap),
        leaked=ledger.held,
        aborted=len(aborted),
        charged=len(charged),
    )
    row.broken = _broken(row, facts, by_turn) + (_inexact(row) if exact else [])
    return row


def _is_charged(number: int, facts: Facts, by_turn: dict[int, int]) -> bool:
    """Whether a turn that was left cost at least what upstream bills; its visitor took no other."""
    money = facts.ledger.visitors.get(names(facts.turns[number].address)[0], NOTHING)
    return money.spent > 0 and money.spent >= by_turn[number]


def _broken(row: Row, facts: Facts, by_turn: dict[int, int]) -> list[str]:
    ledger = facts.ledger
    found = {
        f"overshoot of {row.overshoot}": row.overshoot,
        f"spent {row.books - row.spent} less than upstream bills": row.spent < row.books,
        f"{row.leaked} still held": row.leaked,
        f"{ledger.holds} holds left": ledger.holds,
        f"{ledger.over} charges above their hold": ledger.over,
        f"{row.aborted - row.charged} aborted streams not charged": row.charged < row.aborted,
        "two answers for one turn": len(by_turn) < len(facts.books),
        "a turn without an end": row.turns < len(facts.turns),
        "the visitors' money is not the day's": _apart(facts),
        "the cap was never met": not row.refused["budget_exhausted"],
        "no visitor met a cap": not row.refused["budget_visitor"],
    }
    broken = [what for what, is_so in found.items() if is_so]
    odd = {code for code in row.refused if code not in EXPECTED}
    broken += [f"{row.refused[code]} answers were {code}" for code in sorted(odd)]
    return broken + _visitors(facts, by_turn)


def _inexact(row: Row) -> list[str]:
    return [] if row.spent == row.books else [f"spent is off by {row.spent - row.books}"]


def _apart(facts: Facts) -> bool:
    """Whether what all visitors spent (the /48 counts nothing of its own) is not the day's sum."""
    narrow = {names(turn.address)[0] for turn in facts.turns}
    visitors = facts.ledger.visitors
    return sum(visitors[name].spent for name in narrow & set(visitors)) != facts.ledger.day.spent


def _visitors(facts: Facts, by_turn: dict[int, int]) -> list[str]:
    """The same promises for each visitor, and for each /48 at four times the cap."""
    books: Counter[str] = Counter()
    caps: dict[str, int] = {}
    for turn in facts.turns:
        for factor, name in zip((1, 4), names(turn.address), strict=False):
            caps[name] = factor * facts.caps.visitor
            books[name] += by_turn.get(turn.number, 0)
    over = short = 0
    for name, cap in caps.items():
        money = facts.ledger.visitors.get(name, NOTHING)
        over += max(0, books[name] - cap, money.spent - cap)
        short += money.spent < books[name]
    found = {f"visitors overshot by {over}": over, f"{short} visitors paid too little": short}
    return [what for what, is_so in found.items() if is_so]
