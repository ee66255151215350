"""The day's money as a table for people, and as JSON for scripts. Pure.

The law: amounts are whole µUSD up to the last moment and then written out exactly, never as floats.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from security.budget import MICRO_PER_USD, WIDE_FACTOR
from security.day import Day, Spender

_FEWEST_PLACES: Final = 2
_MOST_PLACES: Final = 6
_NAME: Final = 26  # the least width of a table's first column, and of the others
_AMOUNT: Final = 10


def usd(micro_usd: int) -> str:
    """An amount in USD with two to six decimals: 0.50, 0.000123."""
    return _written(micro_usd, _places([micro_usd]))


def _admissions(day: Day) -> str:
    if day.paused:
        return "paused in Redis (control): nobody gets in"
    return "nothing is left: nobody gets in" if day.left == 0 else "open"


def as_table(day: Day, spenders: Sequence[Spender], visitors: int, visitor_cap: int | None) -> str:
    """The whole report, readable in 80 columns."""
    parts = [
        f"{day.date} UTC; the next day begins in {_duration(day.resets_in)}",
        _totals(day),
        _facts(day, visitor_cap),
        _people(spenders, visitors, visitor_cap),
    ]
    return "\n\n".join(parts)


def as_json(day: Day, spenders: Sequence[Spender], visitors: int, visitor_cap: int | None) -> str:
    """The same, amounts in whole µUSD; null is a cap that is off."""
    report = {
        **day_fields(day, visitor_cap),
        "visitors": visitors,
        "top": [spender_fields(each, visitor_cap) for each in spenders],
    }
    return json.dumps(report, indent=2)


def day_fields(day: Day, visitor_cap: int | None) -> dict[str, Any]:
    """The day as its own part of the report for scripts."""
    return {
        "date": day.date,
        "resets_in": day.resets_in,
        "spent_micro_usd": day.spent,
        "held_micro_usd": day.held,
        "left_micro_usd": day.left,
        "cap_micro_usd": day.cap,
        "cap_set_in": day.cap_set_in,
        "visitor_cap_micro_usd": visitor_cap,
        "paused": day.paused,
        "holds": day.holds,
        "lapsed_holds": day.lapsed,
        "over": day.over,
        "past": day.past,
    }


def spender_fields(spender: Spender, visitor_cap: int | None) -> dict[str, Any]:
    """One of those who spent, for scripts."""
    return {
        "visitor": spender.name,
        "spent_micro_usd": spender.spent,
        "held_micro_usd": spender.held,
        "cap_micro_usd": _cap_of(spender, visitor_cap),
        "ipv6_48": spender.wide,
    }


def _totals(day: Day) -> str:
    amounts = (day.spent, day.held, day.left, day.cap)
    places = _places(amount for amount in amounts if amount is not None)
    left = "no limit" if day.left is None else _written(day.left, places)
    cap = "off" if day.cap is None else _written(day.cap, places)
    written = (_written(day.spent, places), _written(day.held, places), left, cap)
    return _table([("USD", "spent", "held", "left", "cap"), ("today", *written)])


def _facts(day: Day, visitor_cap: int | None) -> str:
    lapsed = f" and {day.lapsed} lapsed, to be counted in full" if day.lapsed else ""
    facts = {
        "day's cap": _cap_source(day),
        "visitor's cap": _visitor_cap(visitor_cap),
        "admissions": _admissions(day),
        "holds open": f"{day.holds}{lapsed}",
        "over": f"{day.over:<3} answers that cost more than was held for them",
        "past": f"{day.past:<3} answers longer than they were allowed to be",
    }
    return "\n".join(f"{name:<16}{fact}" for name, fact in facts.items())


def _people(spenders: Sequence[Spender], visitors: int, visitor_cap: int | None) -> str:
    if not spenders:
        return "No visitor has spent anything today."
    shown = sum(not each.wide for each in spenders)
    head = f"visitor ({shown} of {visitors})" if shown < visitors else f"visitor ({visitors})"
    places = _places(amount for each in spenders for amount in (each.spent, each.held))
    rows: list[tuple[str, ...]] = [(head, "spent", "held", "of cap")]
    for each in spenders:
        name = f"{each.name} /48" if each.wide else each.name
        amounts = (_written(each.spent, places), _written(each.held, places))
        rows.append((name, *amounts, _share(each, visitor_cap)))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Names to the left, amounts to the right."""
    first = max(_NAME, *(len(row[0]) for row in rows))
    width = max(_AMOUNT, *(len(cell) for row in rows for cell in row[1:]))
    lines = (
        row[0].ljust(first) + "".join(f"  {cell:>{width}}" for cell in row[1:]) for row in rows
    )
    return "\n".join(lines)


def _cap_source(day: Day) -> str:
    if day.cap_set_in == "control":
        return "set in Redis (control), in place of DAILY_BUDGET_USD"
    return "DAILY_BUDGET_USD"


def _visitor_cap(cap: int | None) -> str:
    if cap is None:
        return "off (VISITOR_DAILY_BUDGET_USD)"
    return f"{usd(cap)} (VISITOR_DAILY_BUDGET_USD), {usd(cap * WIDE_FACTOR)} of an IPv6 /48"


def _cap_of(spender: Spender, visitor_cap: int | None) -> int | None:
    if visitor_cap is None:
        return None
    return visitor_cap * WIDE_FACTOR if spender.wide else visitor_cap


def _share(spender: Spender, visitor_cap: int | None) -> str:
    cap = _cap_of(spender, visitor_cap)
    return f"{(spender.spent + spender.held) * 100 // cap} %" if cap else "-"


def _written(micro_usd: int, places: int) -> str:
    sign, (whole, part) = "-" * (micro_usd < 0), divmod(abs(micro_usd), MICRO_PER_USD)
    return f"{sign}{whole}.{part:0{_MOST_PLACES}d}"[: places - _MOST_PLACES or None]


def _places(amounts: Iterable[int]) -> int:
    """The fewest decimals, from two on, that write all of these out exactly."""
    needed = (len(f"{abs(amount) % MICRO_PER_USD:06d}".rstrip("0")) for amount in amounts)
    return max(_FEWEST_PLACES, *needed, 0)


def _duration(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
