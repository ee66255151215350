"""Theft of a chain by a captured request: what of it the thief holds, and when."""

from typing import Any

from attacks.attacker import Attacker
from attacks.case import Case, Harm, Outcome, any_of, reaches_upstream
from attacks.forging import claims_of
from attacks.wire import Answer

REUSED = "401 token_reused"
CONFLICT = "422 idempotency_conflict"
AGAIN = "409 duplicate_request"
ELSEWHERE = "198.51.101.66"


def yields(most: int) -> Harm:
    """More than so many answers bring a token."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        given = sum(answer.token is not None for answer in outcome.answers)
        return f"{given} answers brought a token" if given > most else None

    return harm


def key_of(a: Attacker) -> str:
    """The Idempotency-Key of the owner's next turn."""
    return f"a-key-that-was-captured-{a.mark}"


def captured(a: Attacker, key: str | None = None) -> bytes:
    """The owner's next turn, as somebody on the way sees it."""
    token = a.tokens[-1] if a.tokens else None
    return a.turn(token=token, Idempotency_Key=key_of(a) if key is None else key)


async def without_its_key(a: Attacker) -> list[Answer]:
    """The captured request, its key taken off: nothing is recovered."""
    bare = a.turn(token=a.token)
    return [*await a.send(captured(a)), *await a.send(bare)]


async def with_another_body(a: Attacker) -> list[Answer]:
    """The key is of that body only."""
    other = a.turn(a.body(a.mark + " something else"), token=a.token, Idempotency_Key=key_of(a))
    return await a.each([captured(a), other])


async def with_another_browser(a: Attacker) -> list[Answer]:
    """Token and key, without the fingerprint."""
    thief = a.another(fingerprint="fingerprint-of-the-thief")
    return await a.each(
        [captured(a), thief.turn(a.body(), token=a.token, Idempotency_Key=key_of(a))]
    )


async def guessed_keys(a: Attacker) -> list[Answer]:
    """Token and fingerprint, and keys that are guessed."""
    key = key_of(a)
    keys = (key.upper(), key + "x", key[:-1], "0" * 16)
    return await a.each([captured(a), *(captured(a, key) for key in keys)])


async def thief_first(a: Attacker) -> list[Answer]:
    """All of it, at once: the thief gets the successor and uses it; the owner shows it and is told;
    past the grace that ends the chain for both."""
    sent = captured(a)
    (owner,), (thief,) = await a.send(sent), await a.send(sent)
    used = await a.send(a.turn(token=thief.token))
    told = await a.send(a.turn(token=owner.token))
    a.store.age_chains(11)
    late = await a.send(a.turn(token=owner.token))
    return [owner, thief, *used, *told, *late, *await a.send(a.turn(token=used[0].token))]


async def owner_first(a: Attacker) -> list[Answer]:
    """The owner goes on, then the captured request comes, twice: nothing but the chain's end."""
    sent = captured(a)
    (owner,) = await a.send(sent)
    on = await a.send(a.turn(token=owner.token))
    return [owner, *on, *await a.each([sent, sent, a.turn(token=on[0].token)])]


async def too_late(a: Attacker) -> list[Answer]:
    """Past RECOVERY_WINDOW, the successor unused."""
    sent = captured(a)
    (owner,) = await a.send(sent)
    a.store.age_chains(181)
    return [owner, *await a.send(sent), *await a.send(a.turn(token=owner.token))]


async def from_elsewhere(a: Attacker) -> list[Answer]:
    """A captured first turn, by another address: a chain of the thief's own."""
    thief = a.another(address=ELSEWHERE)
    return await a.each([captured(a), captured(thief)])


async def first_by_another_browser(a: Attacker) -> list[Answer]:
    """A captured first turn with another fingerprint: a chain of the thief's own."""
    thief = a.another(fingerprint="fingerprint-of-the-thief")
    return await a.each([captured(a), captured(thief)])


async def first_after_its_successor(a: Attacker) -> list[Answer]:
    """A captured first turn when its chain has gone on; that harms nobody, now or later."""
    sent = captured(a)
    (owner,) = await a.send(sent)
    (on,) = await a.send(a.turn(token=owner.token))
    within = await a.send(sent)
    a.store.age_chains(11)
    return [owner, on, *within, *await a.send(sent), *await a.send(a.turn(token=on.token))]


async def successor_with_its_key(a: Attacker) -> list[Answer]:
    """The successor shown under the key of the turn before."""
    (owner,) = await a.send(captured(a))
    return [owner, *await a.send(a.turn(token=owner.token, Idempotency_Key=key_of(a)))]


async def same_label(a: Attacker) -> list[Answer]:
    """Two visitors with one X-Request-Id: a label keys nothing."""
    other = a.another(address=ELSEWHERE, fingerprint="fingerprint-of-the-thief")
    label = "label-of-somebody-else"
    return await a.each([each.turn(X_Request_Id=label) for each in (a, other)])


async def bad_keys(a: Attacker) -> list[Answer]:
    """Keys that could be guessed, or are something else."""
    keys = ("", "short", "k" * 65, "with a blank in it", "schlüssel-schlüssel", "}:control{0123456")
    return await a.each(captured(a, key) for key in keys)


async def two_keys(a: Attacker) -> list[Answer]:
    """Two Idempotency-Keys."""
    return await a.send(a.turn(token=a.token, Idempotency_Key=[key_of(a), "another-key-beside-it"]))


def share_a_chain(_: Case, outcome: Outcome) -> str | None:
    """Owner and thief have tokens of one chain."""
    chains = [claims_of(answer.token)["c"] for answer in outcome.answers if answer.token]
    return "owner and thief share a chain" if len(set(chains)) < len(chains) else None


ONE: dict[str, Any] = {"posts": 1, "admitted": 1, "turns": 1}

CASES = [
    Case(
        "captured, without its key",
        "the same turn after it was answered, without its Idempotency-Key",
        without_its_key,
        ("200", REUSED),
        harm=yields(1),
        **ONE,
    ),
    Case(
        "captured, with another body",
        "token, fingerprint and key, another question",
        with_another_body,
        ("200", CONFLICT),
        harm=yields(1),
        control=True,
        **ONE,
    ),
    Case(
        "captured, in another browser",
        "token and key, another fingerprint",
        with_another_browser,
        ("200", "403 fingerprint_mismatch"),
        harm=yields(1),
        control=True,
        **ONE,
    ),
    Case(
        "captured, its key guessed",
        "token and fingerprint, four keys that are nearly right",
        guessed_keys,
        ("200", *(REUSED,) * 4),
        harm=yields(1),
        **ONE,
    ),
    Case(
        "captured whole, thief first",
        "all of it, before the owner goes on: the key is a secret, and this is why. The thief has "
        "one turn; when the owner shows the same successor, both are out",
        thief_first,
        ("200", AGAIN, "200", REUSED, REUSED, "401 chain_revoked"),
        posts=2,
        admitted=2,
        turns=1,
        harm=any_of(yields(3), reaches_upstream),
    ),
    Case(
        "captured whole, owner first",
        "all of it, after the owner went on: two turns old, so it ends the chain; no token",
        owner_first,
        ("200", "200", REUSED, "401 chain_revoked", "401 chain_revoked"),
        posts=2,
        admitted=2,
        turns=1,
        harm=yields(2),
    ),
    Case(
        "captured whole, too late",
        "past RECOVERY_WINDOW; the owner's successor is still good",
        too_late,
        ("200", CONFLICT, "200"),
        posts=2,
        admitted=2,
        turns=1,
        harm=yields(2),
    ),
    Case(
        "a first turn, from elsewhere",
        "a captured first turn with its key, by another address: another chain",
        from_elsewhere,
        ("200", "200"),
        posts=2,
        admitted=2,
        harm=share_a_chain,
    ),
    Case(
        "a first turn, in another browser",
        "a captured first turn with its key, another fingerprint: another chain",
        first_by_another_browser,
        ("200", "200"),
        posts=2,
        admitted=2,
        harm=share_a_chain,
    ),
    Case(
        "a first turn, after its successor",
        "within the grace and past it: no token, and the owner goes on",
        first_after_its_successor,
        ("200", "200", CONFLICT, CONFLICT, "200"),
        posts=3,
        admitted=3,
        harm=yields(3),
    ),
    Case(
        "the successor under the old key",
        "a new turn with the Idempotency-Key of the last one",
        successor_with_its_key,
        ("200", CONFLICT),
        **ONE,
    ),
    Case(
        "a label for a key",
        "two visitors with one X-Request-Id",
        same_label,
        ("200", "200"),
        posts=2,
        admitted=2,
        harm=share_a_chain,
    ),
    Case(
        "keys that are none",
        "six Idempotency-Keys: empty, short, long, with a blank, an umlaut, Redis syntax",
        bad_keys,
        ("422 invalid_request",) * 6,
        turns=1,
        keeps=True,
        untouched=True,
    ),
    Case(
        "two keys",
        "two Idempotency-Key headers",
        two_keys,
        ("400 header_repeated",),
        turns=1,
        keeps=True,
        untouched=True,
    ),
]
