"""Replay: what was sent once is sent again."""

from attacks.attacker import CHAT, RESPONSES, Attacker, now_ms
from attacks.case import Case, Outcome
from attacks.forging import claims_of, resigned
from attacks.wire import Answer

REUSED = "401 token_reused"


async def again(a: Attacker) -> list[Answer]:
    """The token that was just used."""
    return await a.send(a.turn(token=a.spent))


async def byte_for_byte(a: Attacker) -> list[Answer]:
    """One good turn, and the very same bytes again."""
    captured = a.turn(token=a.token)
    return await a.each([captured, captured])


async def first_turn_again(a: Attacker) -> list[Answer]:
    """A first turn, and the very same bytes again."""
    captured = a.turn()
    return await a.each([captured, captured])


async def after_the_grace(a: Attacker) -> list[Answer]:
    """The used token past its grace, then its successor."""
    a.store.age_chains(11)
    return await a.each([a.turn(token=a.spent), a.turn(token=a.token)])


async def two_turns_old(a: Attacker) -> list[Answer]:
    """A token two turns old, then the newest."""
    return await a.each([a.turn(token=a.tokens[0]), a.turn(token=a.token)])


async def of_a_chain_that_is_gone(a: Attacker) -> list[Answer]:
    """A good token whose chain is no longer there, twice."""
    a.store.drop_chains()
    return await a.each([a.turn(token=a.token), a.turn(token=a.token)])


async def yet_to_come(a: Attacker) -> list[Answer]:
    """The token of the turn after the next, as a Redis sees it that lost the last one."""
    ahead = resigned(a.token, n=claims_of(a.token)["n"] + 1)
    return await a.send(a.turn(token=ahead))


async def on_one_connection(a: Attacker) -> list[Answer]:
    """The same turn twice without waiting, on one connection."""
    twice = a.turn(token=a.token, Connection="keep-alive") + a.turn(token=a.token)
    return await a.send(twice)


async def dressed_anew(a: Attacker) -> list[Answer]:
    """The used token with another body, path, query, time, label and key."""
    other = a.body(a.mark + " something else")
    return await a.each(
        [
            a.turn(other, token=a.spent),
            a.turn(token=a.spent, path=RESPONSES),
            a.turn(token=a.spent, path=f"{CHAT}?again=1"),
            a.turn(token=a.spent, X_Request_Id="another-label-of-mine"),
            a.turn(token=a.spent, Idempotency_Key="another-key-of-mine-0001"),
            a.turn(token=a.spent, User_Agent="another browser"),
        ]
    )


async def older_than_the_skew(a: Attacker) -> list[Answer]:
    """A captured turn, held back for 121 seconds, and one from as far ahead."""
    now = now_ms()
    return await a.each(
        [a.turn(token=a.token, Keyturn_Timestamp=str(now + ms)) for ms in (-121_000, 121_500)]
    )


def one_chain(_: Case, outcome: Outcome) -> str | None:
    """Both first turns are of one chain."""
    chains = {claims_of(answer.token)["c"] for answer in outcome.answers if answer.token}
    return "the second first turn is of the same chain" if len(chains) == 1 else None


def revokes(_: Case, outcome: Outcome) -> str | None:
    """A used token within its grace, or of nobody knows when, ends the chain of its owner."""
    return "the chain was revoked" if outcome.answers[-1].chain == "revoked" else None


CASES = [
    Case(
        "a used token, a moment later",
        "the token of the turn before, with all else as it should be",
        again,
        (REUSED,),
        turns=2,
        keeps=True,
        also=(revokes,),
    ),
    Case(
        "a whole request, byte for byte",
        "a good turn, then its very bytes again",
        byte_for_byte,
        ("200", REUSED),
        posts=1,
        admitted=1,
        turns=1,
    ),
    Case(
        "the same turn twice on one connection",
        "two copies in one write",
        on_one_connection,
        ("200", REUSED),
        posts=1,
        admitted=1,
        turns=1,
    ),
    Case(
        "a captured first turn",
        "a first turn, then its very bytes: it begins a chain of its own and pays the start limit",
        first_turn_again,
        ("200", "200"),
        posts=2,
        admitted=2,
        also=(one_chain,),
    ),
    Case(
        "a used token in another dress",
        "with another body, API, query, label, Idempotency-Key and browser",
        dressed_anew,
        (REUSED,) * 6,
        turns=2,
        keeps=True,
    ),
    Case(
        "a used token after the grace",
        "11 s later; then its successor: thief and owner are both out",
        after_the_grace,
        (REUSED, "401 chain_revoked"),
        turns=2,
    ),
    Case(
        "a token two turns old",
        "within the grace; then the newest one",
        two_turns_old,
        (REUSED, "401 chain_revoked"),
        turns=3,
    ),
    Case(
        "a token whose chain is gone",
        "a good token after its chain was evicted: it is not made again",
        of_a_chain_that_is_gone,
        ("401 chain_unknown",) * 2,
        turns=1,
    ),
    Case(
        "a token of a turn that is yet to come",
        "signed by the true key: as the newest one looks to a Redis that lost a turn",
        yet_to_come,
        ("401 chain_unknown",),
        turns=2,
        keeps=True,
    ),
    Case(
        "a captured turn outside the time",
        "with the timestamp of 121 s ago, and of 121 s ahead",
        older_than_the_skew,
        ("401 timestamp_stale",) * 2,
        turns=1,
        keeps=True,
        untouched=True,
        control=True,
    ),
]
