"""Thousands of turns race for a small budget: is it kept, to the µUSD? `make money` runs this.

For each seed a fresh redis-server, a scripted upstream that keeps exact books of what it would
bill, and a real server with four workers. About a fifth of the turns fit into the day's cap. One
turn in ten is left by its client, and upstream fails in every way. Then all of it is added up: a
line for each seed, and the promises that were broken below it. "exact" is a seed without hang-ups
and failures, where every µUSD spent must be one that upstream bills. The two naive servers run the
same course as controls and must break promises. Exit code 0 when all is so, 1 when not.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Final, get_args

import redis

from bench.money_audit import Facts, Row, audit
from bench.money_ledger import Ledger, read_ledger, today
from bench.money_probe import probe
from bench.money_stage import Kind, Scene, caps_for, rush, scene
from bench.plan import plan

REST_LIMIT: Final = 30.0  # seconds until everything has come to rest
STILL: Final = 4.0  # seconds without a change after which what is held stays held
HEADS: Final = (
    *("seed", "turns", "admitted", "refused", "cap µUSD", "books µUSD", "spent µUSD"),
    *("overshoot", "leaked", "aborted charged", "phantoms", "seconds"),
)
WIDTHS: Final = (8, 6, 8, 26, 8, 10, 10, 9, 7, 15, 8, 7)


def run(kind: Kind, seed: int, count: int, *, exact: bool = False) -> Row:
    """One seed against one server, from the start of everything to the audit."""
    while not (row := _run(kind, seed, count, exact)):
        pass  # midnight passed, and with it the day that the cap is of
    return row


def _run(kind: Kind, seed: int, count: int, exact: bool) -> Row | None:
    turns, started = plan(seed, count, exact=exact), time.monotonic()
    caps = caps_for(turns)
    with scene(kind, caps) as place, redis.Redis.from_url(place.redis_url) as store:
        day = today(store)
        ended = rush(place.url, seed, count, exact=exact)
        ledger = _rest(place, store, day)
        books = asyncio.run(place.upstream.books())
        row = audit(
            f"{seed} exact" if exact else str(seed),
            Facts(turns, ended, books, ledger, caps),
            exact=exact,
        )
        probed = probe(place, store, day, [turn.address for turn in turns])
        if today(store) != day:
            return None
    row.phantoms, row.broken = probed.phantoms, row.broken + probed.broken
    row.seconds = time.monotonic() - started
    return row


def _rest(place: Scene, store: "redis.Redis", day: int) -> Ledger:
    """The money once nothing is open, or once nothing changes any more."""
    end, last, since = time.monotonic() + REST_LIMIT, None, time.monotonic()
    while True:
        books = asyncio.run(place.upstream.books())
        ledger = read_ledger(store, day)
        if ledger != last:
            last, since = ledger, time.monotonic()
        open_ones = [entry for entry in books if entry["ended"] == "open"]
        at_rest = not (open_ones or ledger.held or ledger.holds)
        if at_rest or time.monotonic() > min(end, since + STILL):
            return ledger
        time.sleep(0.05)


def line(cells: tuple[str, ...]) -> str:
    """One line of the table."""
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def cells(row: Row) -> tuple[str, ...]:
    """What the table says of a seed."""
    short = {"budget_exhausted": "day", "budget_visitor": "visitor"}
    refused = (f"{short.get(code, code)} {count}" for code, count in row.refused.most_common())
    numbers = (row.cap, row.books, row.spent, row.overshoot, row.leaked)
    return (
        row.seed,
        *(f"{number:,}" for number in (row.turns, row.admitted)),
        _cut(", ".join(refused), WIDTHS[3]),
        *(f"{number:,}" for number in numbers),
        f"{row.charged}/{row.aborted}",
        str(row.phantoms),
        f"{row.seconds:.1f}",
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def total(kind: str, rows: list[Row]) -> str:
    """The last line about a server."""
    broken = sum(bool(row.broken) for row in rows)
    return (
        f"{kind}: {len(rows)} runs, {sum(row.turns for row in rows):,} turns, "
        f"{sum(row.admitted for row in rows):,} admitted, "
        f"overshoot {sum(row.overshoot for row in rows):,} µUSD, "
        f"leaked holds {sum(row.leaked for row in rows):,} µUSD, "
        f"aborted streams charged {sum(row.charged for row in rows):,}/"
        f"{sum(row.aborted for row in rows):,}, "
        f"phantom refusals {sum(row.phantoms for row in rows)}, "
        f"{f'PROMISES BROKEN in {broken} runs' if broken else 'every promise kept'}"
    )


def show(kind: Kind, courses: Iterator[tuple[int, bool]], count: int) -> bool:
    """Run the courses and print the table; whether every promise was kept."""
    print(f"\n{kind}\n{line(HEADS)}", flush=True)
    rows = []
    for seed, exact in courses:
        rows.append(run(kind, seed, count, exact=exact))
        print(line(cells(rows[-1])), *rows[-1].broken, sep="\n        ! ", flush=True)
    print(total(kind, rows), flush=True)
    return not any(row.broken for row in rows)


def courses(first: int, seeds: int) -> Iterator[tuple[int, bool]]:
    """Every seed, and the first one once more without what makes charges inexact."""
    yield from ((seed, False) for seed in range(first, first + seeds))
    yield first, True


def main(arguments: list[str]) -> int:
    """Run what is asked for; 0 when Keyturn keeps every promise and each control breaks one."""
    parser = argparse.ArgumentParser(prog="make money", description="Race for a small budget.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5000)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--server", choices=get_args(Kind), help="this one alone, as it is")
    said = parser.parse_args(arguments)
    if said.server:
        return int(not show(said.server, courses(said.first, said.seeds), said.turns))
    kept = show("keyturn", courses(said.first, said.seeds), said.turns)
    controls: tuple[Kind, ...] = ("read-then-add", "plain-finally")
    fooled = [show(kind, iter([(said.first, False)]), said.turns) for kind in controls]
    return int(not kept or any(fooled))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
