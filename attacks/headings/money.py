"""Money: to get more for the operator's money than was admitted, on both chat APIs."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any, Final

from attacks.attacker import RESPONSES, Attacker
from attacks.case import Case, Harm, Outcome, any_of, passes, posts_hold, reaches_upstream
from attacks.rogue import Keep, events, stream
from attacks.wire import Answer, connected
from completions.prices import read_prices
from tests.money.books import total

PRICES: Final = read_prices((Path(__file__).parents[2] / "prices.toml").read_bytes())


def undercharged(_: Case, outcome: Outcome) -> str | None:
    """Less was charged than upstream bills."""
    billed = total([post for post in outcome.posts if post["at"] == "scripted"], PRICES)
    return f"{outcome.spent} µUSD charged of {billed}" if outcome.spent < billed else None


def sent(*names: str) -> Harm:
    """One of these got upstream."""
    return posts_hold(lambda post: bool(set(names) & set(post["body"])), "it got upstream")


async def neutral(a: Attacker) -> list[Answer]:
    """What changes nothing is taken, and not sent on."""
    said: dict[str, Any] = {"n": 1, "store": False, "user": "x", "metadata": {"a": "b"}, "seed": 1}
    more: dict[str, Any] = {
        "store": False,
        "background": False,
        "metadata": {"a": "b"},
        "user": "x",
    }
    return await a.each([a.turn(a.body(**said)), a.turn(a.asks(**more), path=RESPONSES)])


async def leave_in_the_middle(a: Attacker) -> list[Answer]:
    """Five answers, each left at its first word."""
    for _ in range(5):
        async with connected(a.target.port) as connection:
            await connection.send(a.turn(a.body(a.play(words=200, gap_ms=5, prompt=60))))
            await connection.until(a.mark.encode())
    return []


async def leave_before_the_answer(a: Attacker) -> list[Answer]:
    """Three turns, each left as soon as upstream has it."""
    a.will_say(1.0, stream(events(a.mark)), Keep())
    for number in range(1, 4):
        async with connected(a.target.port) as connection:
            await connection.send(a.turn())
            end = time.monotonic() + 10
            while _taken(a) < number and time.monotonic() < end:
                await asyncio.sleep(0.01)
    return []


def _taken(a: Attacker) -> int:
    return sum(a.mark in repr(entry.body) for entry in a.rogue.books)


def free(_: Case, outcome: Outcome) -> str | None:
    """A turn that upstream took cost next to nothing."""
    turns = len(outcome.posts)
    cheap = turns > 0 and outcome.spent / turns < 100
    return f"{outcome.spent} µUSD for {turns} turns" if cheap else None


async def past_the_limit(a: Attacker) -> list[Answer]:
    """Sixteen tokens are asked for, and upstream writes five hundred words."""
    script = a.play(words=500, gap_ms=1, ignore_limit=True)
    return await a.send(a.turn(a.body(script, max_tokens=16)))


def writes_on(_: Case, outcome: Outcome) -> str | None:
    """Upstream wrote all of it."""
    written = [post["chunks"] for post in outcome.posts]
    return f"{written} words were written" if any(count >= 500 for count in written) else None


async def race_for_the_day(a: Attacker) -> list[Answer]:
    """Twenty at once, where three fit into what is left of the day."""
    slowly = a.body(a.play(words=4, gap_ms=300))
    (first,) = await a.send(a.turn(slowly, X_Forwarded_For="198.18.7.1"))
    if said := re.match(r"remaining=(\d+), limit=(\d+)", first.header("keyturn-budget") or ""):
        worst = int(said[2]) - int(said[1])
        a.store.leave_of_the_day(3 * worst + 100)
    crowd = (a.turn(slowly, X_Forwarded_For=f"198.18.8.{number}") for number in range(20))
    return [first, *await a.at_once(list(crowd))]


async def spent_visitor(a: Attacker) -> list[Answer]:
    """Whoever has spent their day, by a new browser, a new chain, the other API."""
    a.store.spend_all_of("198.18.9.1")
    said: dict[str, Any] = {"X_Forwarded_For": "198.18.9.1"}
    return await a.each(
        [
            a.turn(**said),
            a.turn(Keyturn_Fingerprint="fingerprint-that-is-new", **said),
            a.turn(path=RESPONSES, **said),
            a.turn(a.body(max_tokens=1), X_Forwarded_For="::ffff:198.18.9.1"),
        ]
    )


async def failing(a: Attacker) -> list[Answer]:
    """Six turns that upstream refuses cost no money, and each of them a token."""
    body = a.body(a.play(status=400, body={"error": {"code": "context_length_exceeded"}}))
    return [await a.take(body=body) for _ in range(6)]


CASES = [
    Case(
        "what changes nothing",
        "n: 1, store: false, background: false, user, metadata: taken, and not sent on",
        neutral,
        ("200",) * 2,
        posts=2,
        admitted=2,
        harm=sent("n", "user", "metadata", "background"),
    ),
    Case(
        "left in the middle",
        "five answers, each left at its first word: charged with no less than upstream bills",
        leave_in_the_middle,
        (),
        posts=5,
        admitted=5,
        harm=any_of(undercharged, free),
        control=True,
    ),
    Case(
        "left before the answer",
        "three turns, each left when upstream has it: charged with all that they might have cost",
        leave_before_the_answer,
        (),
        posts=3,
        admitted=3,
        where="strict",
        harm=free,
        control=True,
    ),
    Case(
        "an upstream that ignores the limit",
        "16 tokens are asked for, 500 words come: cut",
        past_the_limit,
        ("200",),
        posts=1,
        admitted=1,
        harm=any_of(writes_on, undercharged),
        control=True,
        peers=True,
    ),
    Case(
        "a race for the last of the day",
        "20 turns at once, where the worst case of three fits",
        race_for_the_day,
        ("200", *("200",) * 3, *("503 budget_exhausted",) * 17),
        posts=4,
        admitted=4,
        harm=passes(4),
        control=True,
        seconds=10,
    ),
    Case(
        "a visitor who has spent it",
        "by a new browser, the other API, one token, another spelling of the address",
        spent_visitor,
        ("429 budget_visitor",) * 4,
        harm=reaches_upstream,
    ),
    Case(
        "six that upstream refuses",
        "too long for the model: no money, and each one costs its token",
        failing,
        ("400 upstream_rejected",) * 6,
        posts=6,
        admitted=6,
    ),
]
