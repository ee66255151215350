"""Start floods: a chain costs nothing to begin, so beginning is limited, for each and for all."""

from attacks.attacker import RESPONSES, Attacker, Said
from attacks.case import Case, Outcome, passes
from attacks.wire import Answer

LIMITED = "429 start_limited"


def told(served: int, refused: int) -> tuple[str, ...]:
    """So many served, then so many refused."""
    return (*("200",) * served, *(LIMITED,) * refused)


async def one_address(a: Attacker) -> list[Answer]:
    """Thirty first turns."""
    return await a.each(a.turn() for _ in range(30))


async def many_browsers(a: Attacker) -> list[Answer]:
    """Each with another fingerprint, label and key."""
    return await a.each(
        a.turn(
            Keyturn_Fingerprint=f"fingerprint-number-{number:04}",
            Idempotency_Key=f"{a.mark}-number-{number:04}",
            User_Agent=f"browser {number}",
        )
        for number in range(14)
    )


async def both_apis(a: Attacker) -> list[Answer]:
    """Chat Completions and Responses by turns, with and without the word for a first turn."""
    word: list[Said] = [None, "Bearer keyturn"]
    return await a.each(
        a.turn(path=path, Authorization=each)
        for path in ("/v1/chat/completions", RESPONSES)
        for each in word * 4
    )


async def one_network(a: Attacker) -> list[Answer]:
    """Fourteen addresses of one /64."""
    return await a.each(
        a.turn(X_Forwarded_For=f"2001:db8:1:1:{number:x}::{number:x}") for number in range(14)
    )


async def one_site(a: Attacker) -> list[Answer]:
    """A /64 after the other, of one /48: sixteen times as many as one of them may."""
    return await in_crowds(a, [f"2001:db8:2:{number:x}::1" for number in range(165)])


async def everywhere(a: Attacker) -> list[Answer]:
    """Another IPv4 address every time."""
    return await in_crowds(a, [f"192.0.2.{number}" for number in range(175)])


async def in_crowds(a: Attacker, addresses: list[str]) -> list[Answer]:
    """A first turn of each address, 25 at a time; sorted."""
    told: list[Answer] = []
    for start in range(0, len(addresses), 25):
        some = addresses[start : start + 25]
        told += await a.at_once([a.turn(X_Forwarded_For=each) for each in some])
    return sorted(told, key=lambda answer: answer.told)


async def no_penalty(a: Attacker) -> list[Answer]:
    """Refused ones do not lengthen the wait: the limit stands where it stood."""
    first = await a.each(a.turn() for _ in range(11))
    waits = {first[-1].header("retry-after")}
    again = await a.each(a.turn() for _ in range(20))
    waits |= {answer.header("retry-after") for answer in again}
    return [*first, *again]


async def mistakes(a: Attacker) -> list[Answer]:
    """Fifteen first turns with a mistake in them cost no start."""
    wrong = [a.turn(a.body(n=2)) for _ in range(15)]
    return [*await a.each(wrong), *await a.each(a.turn() for _ in range(11))]


async def a_chain_goes_on(a: Attacker) -> list[Answer]:
    """Who has begun goes on, while nobody may begin."""
    flooded = await a.each(a.turn() for _ in range(12))
    on = [await a.take() for _ in range(3)]
    return [*flooded, *on]


def waits_longer(_: Case, outcome: Outcome) -> str | None:
    """The wait grows with each refusal, or is not said."""
    waits = [each.header("retry-after") for each in outcome.answers if each.status == 429]
    if not all(wait and wait.isdecimal() and int(wait) >= 1 for wait in waits):
        return "no Retry-After"
    longer = max(map(int, filter(None, waits))) - int(waits[0] or 0)
    return f"the wait grew by {longer} s" if longer > 0 else None


CASES = [
    Case(
        "one address",
        "30 first turns: ten begin, the others are told how long to wait",
        one_address,
        told(10, 20),
        posts=10,
        admitted=10,
        harm=passes(10),
        also=(waits_longer,),
    ),
    Case(
        "many browsers",
        "14 first turns, each with another fingerprint, label and key",
        many_browsers,
        told(10, 4),
        posts=10,
        admitted=10,
        harm=passes(10),
    ),
    Case(
        "both APIs",
        "16 first turns, at Chat Completions and Responses",
        both_apis,
        told(10, 6),
        posts=10,
        admitted=10,
        harm=passes(10),
    ),
    Case(
        "one IPv6 network",
        "14 addresses of one /64",
        one_network,
        told(10, 4),
        posts=10,
        admitted=10,
        harm=passes(10),
        control=True,
    ),
    Case(
        "one IPv6 site",
        "165 networks of one /48: 160 begin",
        one_site,
        told(160, 5),
        posts=160,
        admitted=160,
        harm=passes(160),
        control=True,
        seconds=60,
    ),
    Case(
        "everywhere",
        "175 IPv4 addresses: START_LIMIT_GLOBAL is 170",
        everywhere,
        told(170, 5),
        posts=170,
        admitted=170,
        harm=passes(170),
        control=True,
        seconds=60,
    ),
    Case(
        "refusals cost no time",
        "31 first turns: the wait is not longer after 20 refusals",
        no_penalty,
        told(10, 21),
        posts=10,
        admitted=10,
        harm=passes(10),
        also=(waits_longer,),
    ),
    Case(
        "mistakes cost no start",
        "15 first turns with a mistake, then 11 good ones",
        mistakes,
        (*("400 unsupported_parameter",) * 15, *told(10, 1)),
        posts=10,
        admitted=10,
        harm=passes(10),
    ),
    Case(
        "who has begun goes on",
        "12 first turns, then three turns of a chain that had begun",
        a_chain_goes_on,
        (*told(9, 3), "200", "200", "200"),
        posts=12,
        admitted=12,
        turns=1,
        harm=passes(12),
    ),
]
