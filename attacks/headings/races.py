"""Races: many at the same moment, each complete but for its last byte until all are ready."""

from attacks.attacker import RESPONSES, Attacker
from attacks.case import Case, Outcome, passes
from attacks.rogue import events, stream
from attacks.wire import Answer

MANY = 50
REUSED = "401 token_reused"
KEY = "an-idempotency-key-of-a-race"


async def one_token(a: Attacker) -> list[Answer]:
    """The same turn so many times."""
    return await a.at_once([a.turn(token=a.token)] * MANY)


async def both_apis(a: Attacker) -> list[Answer]:
    """The same token at both chat APIs."""
    half = MANY // 2
    both = [a.turn(token=a.token)] * half + [a.turn(token=a.token, path=RESPONSES)] * half
    return await a.at_once(both)


async def one_token_many_keys(a: Attacker) -> list[Answer]:
    """Each with an Idempotency-Key of its own."""
    keys = (f"a-key-of-its-own-{number:04}" for number in range(MANY))
    return await a.at_once([a.turn(token=a.token, Idempotency_Key=key) for key in keys])


async def one_key(a: Attacker) -> list[Answer]:
    """A turn and its repetitions, by one Idempotency-Key."""
    return await a.at_once([a.turn(token=a.token, Idempotency_Key=KEY)] * MANY)


async def first_turns_of_one_key(a: Attacker) -> list[Answer]:
    """A first turn and its repetitions, by one Idempotency-Key."""
    return await a.at_once([a.turn(Idempotency_Key=f"first-{a.mark}")] * MANY)


async def many_fingerprints(a: Attacker) -> list[Answer]:
    """One of them by its own browser, the others by guesses."""
    guesses = [
        a.turn(token=a.token, Keyturn_Fingerprint=f"guess-number-{number:04}")
        for number in range(MANY - 1)
    ]
    return await a.at_once([a.turn(token=a.token), *guesses])


async def many_bodies(a: Attacker) -> list[Answer]:
    """Each with another question."""
    bodies = (a.body(f"{a.mark} question {number}") for number in range(MANY))
    return await a.at_once([a.turn(body, token=a.token) for body in bodies])


async def starts(a: Attacker) -> list[Answer]:
    """More first turns than an address may begin."""
    return await a.at_once([a.turn() for _ in range(30)])


async def streams_of_an_address(a: Attacker) -> list[Answer]:
    """More slow answers than an address may have at a time, by a visitor's own key."""
    said = stream(events(a.mark))
    a.will_say(said[:-20], 1.0, said[-20:])
    return await a.at_once([a.turn(token="sk-visitor-of-races-0123456789")] * 14)


async def pipeline(a: Attacker) -> list[Answer]:
    """Fifteen copies in one write on one connection."""
    kept = a.turn(token=a.token, Connection="keep-alive")
    return await a.send(kept * 14 + a.turn(token=a.token))


async def other_addresses(a: Attacker) -> list[Answer]:
    """The same token from as many addresses."""
    shown = (f"203.0.113.{number + 50}" for number in range(MANY))
    return await a.at_once([a.turn(token=a.token, X_Forwarded_For=each) for each in shown])


def two_successors(_: Case, outcome: Outcome) -> str | None:
    """Two different tokens follow one."""
    given = {answer.token for answer in outcome.answers if answer.token}
    return f"{len(given)} successors" if len(given) > 1 else None


ONE_OF_MANY = ("200", *(REUSED,) * (MANY - 1))
ONCE_REPEATED = ("200", *("409 duplicate_request",) * (MANY - 1))

CASES = [
    Case(
        "50 uses of one token",
        "the same bytes on 50 connections, released together",
        one_token,
        ONE_OF_MANY,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
        control=True,
    ),
    Case(
        "one token at both APIs",
        "25 turns of Chat Completions and 25 of Responses",
        both_apis,
        ONE_OF_MANY,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
    ),
    Case(
        "one token, many Idempotency-Keys",
        "50 turns, each with a key of its own",
        one_token_many_keys,
        ONE_OF_MANY,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
    ),
    Case(
        "one token, many questions",
        "50 turns, each with another body",
        many_bodies,
        ONE_OF_MANY,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
        control=True,
    ),
    Case(
        "one token, many addresses",
        "50 turns, each forwarded for another address",
        other_addresses,
        ONE_OF_MANY,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
    ),
    Case(
        "one token, its own browser and 49 guesses",
        "49 wrong fingerprints beside the right one",
        many_fingerprints,
        ("200", *("403 fingerprint_mismatch",) * (MANY - 1)),
        posts=1,
        admitted=1,
        turns=1,
    ),
    Case(
        "50 repetitions of one turn",
        "one Idempotency-Key: one answer, and the same successor for all",
        one_key,
        ONCE_REPEATED,
        posts=1,
        admitted=1,
        turns=1,
        also=(two_successors,),
    ),
    Case(
        "50 repetitions of a first turn",
        "one Idempotency-Key, no token: one chain",
        first_turns_of_one_key,
        ONCE_REPEATED,
        posts=1,
        admitted=1,
        also=(two_successors,),
        control=True,
    ),
    Case(
        "15 copies pipelined",
        "in one write on one connection",
        pipeline,
        ("200", *(REUSED,) * 14),
        posts=1,
        admitted=1,
        turns=1,
    ),
    Case(
        "30 first turns of one address",
        "ten may begin at once",
        starts,
        (*("200",) * 10, *("429 start_limited",) * 20),
        posts=10,
        admitted=10,
        harm=passes(10),
    ),
    Case(
        "14 answers at a time",
        "slow ones by an own key; twelve may run for one address",
        streams_of_an_address,
        (*("200",) * 12, *("429 too_many_streams",) * 2),
        posts=12,
        harm=passes(12),
    ),
]
