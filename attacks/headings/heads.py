"""Heads that are too large, and some that only look so."""

from typing import Any

from attacks.attacker import Attacker
from attacks.case import Case
from attacks.wire import Answer

HEADS = "431 headers_too_large"
CHAT = "/v1/chat/completions"
MANY_HEADERS = [(f"X-{number}", "y" * 20) for number in range(2000)]
FEW_HEADERS = [(f"X-{number}", "y") for number in range(250)]


def head(
    name: str, sends: str, back: str, more: list[tuple[str, str]], path: str, **said: Any
) -> Case:
    """A good turn with such a head."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.listen(a.turn(path=path, more=more))

    return Case(name, sends, attack, (back,), **said)


CASES = [
    head(
        "17 kB of header",
        "X-A of 17,000 letters",
        HEADS,
        [("X-A", "a" * 17_000)],
        CHAT,
        untouched=True,
        peers=False,
    ),
    head(
        "70 kB of header",
        "X-A of 70,000 letters",
        HEADS,
        [("X-A", "a" * 70_000)],
        CHAT,
        untouched=True,
        peers=True,
    ),
    head(
        "2,000 headers", "of 20 letters each", HEADS, MANY_HEADERS, CHAT, untouched=True, peers=True
    ),
    head("250 headers", "small ones: no harm", "200", FEW_HEADERS, CHAT, posts=1, admitted=1),
    head(
        "a query of 17 kB",
        "?aaa…",
        HEADS,
        [],
        CHAT + "?" + "a" * 17_000,
        untouched=True,
        peers=False,
    ),
    head("a path of 70 kB", "/aaa…", HEADS, [], "/" + "a" * 70_000, untouched=True, peers=True),
    head("a name of 20 kB", "a header's", HEADS, [("a" * 20_000, "b")], CHAT, untouched=True),
    head(
        "1,000 cookies",
        "one header",
        HEADS,
        [("Cookie", "; ".join(["abcdefgh=12345678"] * 1000))],
        CHAT,
        untouched=True,
    ),
]
