"""Forged and stolen tokens: of another browser, another place, another time."""

from attacks.attacker import Attacker, Said, now_ms
from attacks.case import Case, reaches_upstream
from attacks.forging import claims_of, resigned
from attacks.wire import Answer

MISMATCH = "403 fingerprint_mismatch"
MALFORMED = "400 fingerprint_malformed"
UNKNOWN = "401 chain_unknown"


def browser(
    name: str, fingerprint: Said, back: str, *, sends: str = "", control: bool = False
) -> Case:
    """The good token with such a fingerprint; it is not spent."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(token=a.token, Keyturn_Fingerprint=fingerprint))

    words = sends or f"Keyturn-Fingerprint: {fingerprint!r}"
    untouched = back != MISMATCH
    return Case(
        name, words, attack, (back,), turns=1, keeps=True, untouched=untouched, control=control
    )


def times(
    name: str, sends: str, issued: int, expires: int, back: str, *, untouched: bool = True
) -> Case:
    """The good token with other times, in seconds from now, signed by the true key."""

    async def attack(a: Attacker) -> list[Answer]:
        now = now_ms()
        other = resigned(a.token, i=now + issued * 1000, e=now + expires * 1000)
        return await a.send(a.turn(token=other))

    return Case(name, sends, attack, (back,), turns=1, keeps=True, untouched=untouched)


async def whole_theft(a: Attacker) -> list[Answer]:
    """Token and fingerprint, used from elsewhere; then by the owner, past the grace; then again."""
    thief = a.another(address="198.51.101.66")
    taken = await thief.send(thief.turn(token=a.token))
    a.store.age_chains(11)
    owner = await a.send(a.turn(token=a.token))
    return [*taken, *owner, *await thief.send(thief.turn(token=taken[0].token))]


async def guesses(a: Attacker) -> list[Answer]:
    """So many wrong fingerprints that the address is at its limit."""
    return await a.each(
        a.turn(token=a.token, Keyturn_Fingerprint=f"guess-number-{number:04}")
        for number in range(206)
    )


async def other_birth(a: Attacker) -> list[Answer]:
    """The claims of a chain that was born at another time."""
    return await a.send(a.turn(token=resigned(a.token, b=claims_of(a.token)["b"] - 1)))


async def other_chain(a: Attacker) -> list[Answer]:
    """The claims with the id of a chain that nobody began."""
    return await a.send(a.turn(token=resigned(a.token, c="A" * 22)))


async def too_old_a_chain(a: Attacker) -> list[Answer]:
    """A chain that began more than a day ago, in use all the time."""
    born = now_ms() - 86_401_000
    a.store.set_birth(claims_of(a.token)["c"], born)
    return await a.send(a.turn(token=resigned(a.token, b=born)))


async def revoked(a: Attacker) -> list[Answer]:
    """The newest token of a chain that was revoked, and one signed for the turn after."""
    ahead = resigned(a.token, n=claims_of(a.token)["n"] + 1)
    return await a.each([a.turn(token=a.tokens[0]), a.turn(token=a.token), a.turn(token=ahead)])


async def another_visitors(a: Attacker) -> list[Answer]:
    """The token of somebody else who has the same fingerprint: whoever holds it, uses it, once."""
    thief = a.another()
    return await thief.each([thief.turn(token=a.token), thief.turn(token=a.token)])


async def timestamps(a: Attacker) -> list[Answer]:
    """Every wrong way of telling the time."""
    wrong: list[Said] = [
        None,
        "",
        "0",
        "-1",
        "1e300",
        "1" * 20,
        "now",
        "１７９５３０００００００００",
        "0x19a",
    ]
    wrong += [f"{now_ms()}.5", f"+{now_ms()}", f"{now_ms()} 0", str(now_ms() // 1000)]
    return await a.each(a.turn(token=a.token, Keyturn_Timestamp=each) for each in wrong)


async def two_timestamps(a: Attacker) -> list[Answer]:
    """A stale one and a fresh one."""
    fresh, stale = str(now_ms()), str(now_ms() - 10**9)
    return await a.each(
        a.turn(token=a.token, Keyturn_Timestamp=both) for both in ([stale, fresh], [fresh, stale])
    )


CASES = [
    browser("another browser", "fingerprint-of-another-one", MISMATCH, control=True),
    browser("one letter different", "fingerprint-of-a-browseR", MISMATCH),
    browser("the beginning of it", "fingerprint-of-a-browse", MISMATCH),
    browser("it and more", "fingerprint-of-a-browser-", MISMATCH),
    browser("in capitals", "FINGERPRINT-OF-A-BROWSER", MISMATCH),
    browser("none", None, "400 fingerprint_missing", sends="no fingerprint", control=True),
    browser("an empty one", "", MALFORMED),
    browser("15 characters", "f" * 15, MALFORMED),
    browser("129 characters", "f" * 129, MALFORMED, sends="129 × f"),
    browser("8 kB", "f" * 8000, MALFORMED, sends="8,000 × f"),
    browser("a blank inside", "fingerprint of a browser", MALFORMED),
    browser("Unicode", "fingerprint-of-a-browsër", MALFORMED),
    browser("a glob", "fingerprint-of-a-*******", MALFORMED),
    browser("Redis syntax", "}:control{fingerprint-of", MALFORMED),
    browser(
        "two of them",
        ["fingerprint-of-another-one", "fingerprint-of-a-browser"],
        "400 header_repeated",
    ),
    Case(
        "206 guesses of a fingerprint",
        "each wrong: the address is out after 199, the token is kept",
        guesses,
        (*(MISMATCH,) * 199, *("429 rate_limited",) * 7),
        turns=1,
        seconds=30,
    ),
    Case(
        "token and fingerprint, from elsewhere",
        "used by the thief, then by the owner past the grace, then by the thief: both are out",
        whole_theft,
        ("200", "401 token_reused", "401 chain_revoked"),
        posts=1,
        admitted=1,
        turns=1,
    ),
    Case(
        "token and fingerprint, twice",
        "by somebody else at the same address: once",
        another_visitors,
        ("200", "401 token_reused"),
        posts=1,
        admitted=1,
        turns=1,
    ),
    times("expired", "31 s past its end", -1900, -31, "401 token_expired"),
    times("expired long ago", "a day past its end", -90_000, -86_400, "401 token_expired"),
    times("from the future", "issued 31 s ahead", 31, 1831, UNKNOWN),
    times("from next year", "issued a year ahead", 31_536_000, 31_537_000, UNKNOWN),
    Case(
        "of another birth",
        "signed by the true key, born 1 ms before its chain",
        other_birth,
        (UNKNOWN,),
        turns=1,
        keeps=True,
    ),
    Case(
        "of a chain that never was",
        "signed by the true key: the chain is not made",
        other_chain,
        (UNKNOWN,),
        turns=1,
        keeps=True,
    ),
    Case(
        "of a chain that is too old",
        "in use for more than CHAIN_TTL",
        too_old_a_chain,
        (UNKNOWN,),
        turns=1,
    ),
    Case(
        "of a revoked chain",
        "an old token revokes it; then the newest, and one for the turn after by the true key",
        revoked,
        ("401 token_reused", "401 chain_revoked", "401 chain_revoked"),
        turns=3,
    ),
    Case(
        "no time, or none that is one",
        "13 wrong timestamps: empty, negative, 1e300, of 20 digits, full-width, in seconds, …",
        timestamps,
        ("400 timestamp_missing", *("400 timestamp_malformed",) * 12),
        turns=1,
        keeps=True,
        untouched=True,
        harm=reaches_upstream,
    ),
    Case(
        "two times",
        "a stale and a fresh timestamp, in either order",
        two_timestamps,
        ("400 header_repeated",) * 2,
        turns=1,
        keeps=True,
        untouched=True,
    ),
]
