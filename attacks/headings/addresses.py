"""Spoofed addresses: a flood of first turns that claims to come from everywhere.

Ten chats may begin at once for one address. So twelve first turns tell whose they were taken for:
of one visitor, ten are served.
"""

from collections.abc import Callable
from typing import Any

from attacks.attacker import Attacker
from attacks.case import Case, passes
from attacks.wire import Answer

MANY = 12
MOST = 10
ONE_VISITOR = (*("200",) * MOST, *("429 start_limited",) * (MANY - MOST))
REAL = "203.0.113.7"

Headers = dict[str, Any]


def flood(
    name: str,
    sends: str,
    claim: Callable[[int], Headers],
    *,
    where: str = "main",
    control: bool = False,
) -> Case:
    """Twelve first turns with such headers: all are one visitor's."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.each(a.turn(**claim(number)) for number in range(MANY))

    said: dict[str, Any] = {"posts": MOST, "admitted": MOST, "harm": passes(MOST), "where": where}
    return Case(name, sends, attack, ONE_VISITOR, control=control, **said)


def claims(*names: str, beside: Headers | None = None) -> Callable[[int], Headers]:
    """Each of these headers names another address every time."""

    def claim(number: int) -> Headers:
        address = f"198.18.{number}.1"
        said = f"for={address};proto=https" if names == ("Forwarded",) else address
        return {**dict.fromkeys(names, said), **(beside or {})}

    return claim


def written(*spellings: str) -> Callable[[int], Headers]:
    """X-Forwarded-For in one spelling after the other."""
    return lambda number: {"X_Forwarded_For": spellings[number % len(spellings)]}


VENDORS = (
    *("X_Real_IP", "CF_Connecting_IP", "True_Client_IP", "X_Client_IP", "Client_IP"),
    *("X_Cluster_Client_IP", "Fastly_Client_IP", "X_Originating_IP", "X_Remote_IP"),
    *("X_Remote_Addr", "X_Forwarded", "Forwarded_For", "X_Azure_ClientIP", "Fly_Client_IP"),
)
STRICT: dict[str, Any] = {"where": "strict"}


async def victims_limit(a: Attacker) -> list[Answer]:
    """A flood in the name of a victim, left of the true address; then the victim."""
    victim = a.another(address="203.0.113.200", fingerprint=a.fingerprint)
    named = f"{victim.address}, {a.address}"
    told = await a.each(a.turn(X_Forwarded_For=named) for _ in range(MANY))
    return [*told, *await victim.send(victim.turn())]


async def many_hops(a: Attacker) -> list[Answer]:
    """1,500 hops, all trusted: more than anybody has, so the walk stops and the peer is it."""
    hops = ",".join(["198.51.100.9"] * 1200)
    return await a.each(
        a.turn(X_Forwarded_For=f"198.18.{number}.1,{hops}") for number in range(MANY)
    )


CASES = [
    flood(
        "X-Forwarded-For from an untrusted peer",
        "another address every time",
        claims("X_Forwarded_For"),
        where="strict",
        control=True,
    ),
    flood(
        "Forwarded, untrusted",
        "RFC 7239, another for= every time",
        claims("Forwarded"),
        where="strict",
    ),
    flood(
        "14 other headers, untrusted",
        "X-Real-IP, CF-Connecting-IP, …",
        claims(*VENDORS),
        where="strict",
    ),
    flood(
        "a left entry before the true one",
        "invented, true address",
        lambda n: {"X_Forwarded_For": f"198.18.{n}.1, {REAL}"},
        control=True,
    ),
    flood(
        "a line before the true one",
        "two X-Forwarded-For headers, the first invented",
        lambda n: {"X_Forwarded_For": [f"198.18.{n}.1", REAL]},
        control=True,
    ),
    flood(
        "an entry before a trusted hop",
        "invented, true address, a trusted proxy's",
        lambda n: {"X_Forwarded_For": f"198.18.{n}.1, {REAL}, 198.51.100.9"},
    ),
    flood(
        "words for addresses",
        "the last entry is another word every time: the peer's limit counts",
        lambda n: {"X_Forwarded_For": f"{REAL}, unknown-{n}"},
    ),
    flood("empty entries", "commas and blanks", written(",", " ,, ", ", ,", "")),
    flood(
        "trusted hops only",
        "another trusted address every time",
        lambda n: {"X_Forwarded_For": f"198.51.100.{n}"},
    ),
    flood("loopback", "127.0.0.1 and ::ffff:127.0.0.1", written("127.0.0.1", "::ffff:127.0.0.1")),
    flood("Forwarded beside the true one", "another for= every time", claims("Forwarded")),
    flood("14 other headers beside it", "X-Real-IP, CF-Connecting-IP, …", claims(*VENDORS)),
    flood(
        "one IPv4 in nine spellings",
        "with port, blanks, as ::ffff:, in brackets, in hex",
        written(
            *(REAL, f"{REAL}:4711", f"  {REAL}\t", f"::ffff:{REAL}", f"::FFFF:{REAL}"),
            *(f"[::ffff:{REAL}]:80", "::ffff:cb00:7107", "0:0:0:0:0:ffff:cb00:7107", f"{REAL}:0"),
        ),
    ),
    flood(
        "an IPv4 that is none",
        "octal, decimal, hexadecimal, short, with zeros: the peer's limit counts",
        written(
            *("0313.0.0161.07", "3405803783", "0xcb007107", "203.0.28935", "203.000.113.007"),
            *("203.0.113.256", "203.0.113", "203.0.113.7.1", "１９８.18.0.1", "198.18.0.1%eth0"),
        ),
    ),
    flood(
        "one IPv6 in nine spellings",
        "capitals, zeros, zone, brackets, port",
        written(
            *("2001:db8::1", "2001:DB8::1", "2001:0db8:0:0:0:0:0:1", "[2001:db8::1]:443"),
            *(
                "[2001:db8::1]",
                "2001:db8::1%eth0",
                "[2001:db8::1%1]:9",
                "2001:db8::0.0.0.1",
                " 2001:db8::1",
            ),
        ),
    ),
    Case(
        "1,200 hops",
        "an invented address before 1,200 trusted ones",
        many_hops,
        ONE_VISITOR,
        posts=MOST,
        admitted=MOST,
        harm=passes(MOST),
    ),
    Case(
        "the limit of a victim",
        "twelve first turns that name the victim left of the true address; then the victim's own",
        victims_limit,
        (*ONE_VISITOR, "200"),
        posts=MOST + 1,
        admitted=MOST + 1,
        harm=passes(MOST + 1),
    ),
]
