"""The day's money in print: money_report.py."""

import json
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from money_report import as_json, as_table, usd
from security.budget import WIDE_FACTOR
from security.day import Day, Spender
from tests.stage import ROOT

QUIET = Day(
    number=20_414,
    date="2025-11-22",
    resets_in=34_260,
    spent=0,
    held=0,
    cap=5_000_000,
    cap_set_in="DAILY_BUDGET_USD",
    over=0,
    past=0,
    paused=False,
    holds=0,
    lapsed=0,
)
BUSY = replace(QUIET, spent=1_234_567, held=2_310, over=1, past=2, holds=3)
ONE = Spender("q3fJw0o2m1Zx8b7kP4sT5A", 482_100, 1_200)
WIDE = Spender("QkN3v7LrT0uGxWc2ZyB9dE", 482_100, 0, wide=True)

TABLE = """\
2025-11-22 UTC; the next day begins in 9 h 31 min

USD                              spent        held        left         cap
today                         1.234567    0.002310    3.763123    5.000000

day's cap       DAILY_BUDGET_USD
visitor's cap   0.50 (VISITOR_DAILY_BUDGET_USD), 2.00 of an IPv6 /48
admissions      open
holds open      3
over            1   answers that cost more than was held for them
past            2   answers longer than they were allowed to be

visitor (1 of 42)                spent        held      of cap
q3fJw0o2m1Zx8b7kP4sT5A          0.4821      0.0012        96 %
QkN3v7LrT0uGxWc2ZyB9dE /48      0.4821      0.0000        24 %"""


def test_a_busy_day() -> None:
    """The whole table, to the letter."""
    assert as_table(BUSY, [ONE, WIDE], 42, 500_000) == TABLE


def test_a_quiet_day() -> None:
    """Where nobody spent anything the zeros are written out, and no table of visitors."""
    said = as_table(QUIET, [], 0, 500_000)
    assert "today                             0.00        0.00        5.00        5.00\n" in said
    assert said.endswith("\n\nNo visitor has spent anything today.")


@pytest.mark.parametrize(
    ("day", "visitor_cap", "said"),
    [
        (replace(BUSY, paused=True), 1, "admissions      paused in Redis (control): nobody gets"),
        (replace(BUSY, cap=2, cap_set_in="control"), 1, "day's cap       set in Redis (control)"),
        (replace(BUSY, lapsed=2), 1, "holds open      3 and 2 lapsed, to be counted in full\n"),
        (replace(BUSY, cap=None), 1, "    no limit         off\n"),
        (BUSY, None, "visitor's cap   off (VISITOR_DAILY_BUDGET_USD)\n"),
        (BUSY, None, "0.0012           -"),
        (BUSY, 0, "0.0012           -"),
        (replace(BUSY, resets_in=59), 1, "begins in 59 s\n"),
        (replace(BUSY, resets_in=61), 1, "begins in 1 min\n"),
    ],
)
def test_what_is_unusual_is_said(day: Day, visitor_cap: int | None, said: str) -> None:
    """A pause, a cap from elsewhere, none at all, holds that nobody will settle, a day's end."""
    assert said in as_table(day, [ONE], 1, visitor_cap)


AMOUNTS = st.integers(0, 10**10 - 1)


@given(spent=AMOUNTS, held=AMOUNTS, cap=st.none() | AMOUNTS, each=st.lists(AMOUNTS, max_size=10))
def test_every_table_is_exact_and_aligned(
    spent: int, held: int, cap: int | None, each: list[int]
) -> None:
    """Up to ten thousand dollars it fits 80 columns, its columns end together, no µUSD is lost."""
    day = replace(BUSY, spent=spent, held=held, cap=cap)
    said = as_table(day, [Spender("v" * 22, amount, 0, True) for amount in each], 0, 10**12)
    assert max(map(len, said.splitlines())) <= 80
    rows = [line for line in said.splitlines() if line.startswith(("today", "vvv"))]
    written = [re.findall(r"-?\d+\.\d{2,6}", row)[:2] for row in rows]
    amounts = [[int(Decimal(text) * 1_000_000) for text in row] for row in written]
    assert amounts == [[spent, held], *([amount, 0] for amount in each)]
    people = [row for row in rows if row.startswith("vvv")]
    assert len({len(row) for row in people}) <= 1


@given(AMOUNTS)
def test_an_amount_is_written_shortly_and_exactly(micro_usd: int) -> None:
    """Two to six decimals, and no more of them than are needed."""
    text = usd(micro_usd)
    assert Decimal(text) * 1_000_000 == micro_usd
    assert re.fullmatch(r"\d+\.\d{2}(\d{0,3}[1-9])?", text)
    assert usd(-micro_usd - 1) == "-" + usd(micro_usd + 1)


def test_for_scripts() -> None:
    """The same in JSON: whole µUSD, null for what is off, and the cap that each is held to."""
    said = json.loads(as_json(BUSY, [ONE, WIDE], 42, 500_000))
    assert said == {
        "date": "2025-11-22",
        "resets_in": 34_260,
        "spent_micro_usd": 1_234_567,
        "held_micro_usd": 2_310,
        "left_micro_usd": 3_763_123,
        "cap_micro_usd": 5_000_000,
        "cap_set_in": "DAILY_BUDGET_USD",
        "visitor_cap_micro_usd": 500_000,
        "paused": False,
        "holds": 3,
        "lapsed_holds": 0,
        "over": 1,
        "past": 2,
        "visitors": 42,
        "top": [
            {
                "visitor": ONE.name,
                "spent_micro_usd": 482_100,
                "held_micro_usd": 1_200,
                "cap_micro_usd": 500_000,
                "ipv6_48": False,
            },
            {
                "visitor": WIDE.name,
                "spent_micro_usd": 482_100,
                "held_micro_usd": 0,
                "cap_micro_usd": 2_000_000,
                "ipv6_48": True,
            },
        ],
    }
    without = json.loads(as_json(replace(BUSY, cap=None), [ONE], 1, None))
    assert without["left_micro_usd"] is without["cap_micro_usd"] is None
    assert without["top"][0]["cap_micro_usd"] is None


def test_what_is_shown_is_what_the_script_allows() -> None:
    """The factor of an IPv6 /48 is the one by which admissions are measured."""
    script = (ROOT / "security" / "lua" / "admit.lua").read_text()
    assert f"local BUDGET_FACTOR = {WIDE_FACTOR}\n" in script
