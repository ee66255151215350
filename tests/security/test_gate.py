"""The gate's own part: what comes before what, and what is asked of Redis.

Redis is a recording stand-in here, for what matters is when it is asked and with what; what it
answers is the ledger's affair.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from security.errors import InvalidRequest, Rejection, StoreUnavailable
from security.one_time_token import Claims, TokenSigner
from security.scripts import Duplicate, Verdict, Visitor
from tests.security.gate_stage import (
    CLAIMS,
    FINGERPRINT,
    GOOD,
    HOLD,
    IDEMPOTENCY,
    KEY,
    NOW,
    STANDING,
    VERDICT,
    VISITOR,
    Asked,
    Scene,
    hashed,
)


@pytest.fixture
def scene() -> Scene:
    """A new gate."""
    return Scene()


async def test_the_first_check_that_fails_answers(scene: Scene) -> None:
    """With everything wrong at once, each mistake comes to light only when those before are mended.

    The body is read after the checks that need none, and Redis is asked after the body.
    """
    scene.ledger.outcome = Rejection("rate_limited")
    mistake = InvalidRequest("invalid_request", "n")
    wrong: dict[str, Any] = {
        "timestamp": str(NOW - 121_000),
        "fingerprint": None,
        "token": "nonsense",
        "idempotency_key": "short",
    }
    told = [(await scene.refused(mistake, **wrong), scene.steps)]
    wrong["timestamp"] = str(NOW)
    told.append((await scene.refused(mistake, **wrong), scene.steps))
    wrong["fingerprint"] = FINGERPRINT
    told.append((await scene.refused(mistake, **wrong), scene.steps))
    wrong["token"] = scene.token()
    told.append((await scene.refused(mistake, **wrong), scene.steps))
    told.append((await scene.refused(**wrong), scene.steps))
    wrong["idempotency_key"] = IDEMPOTENCY
    told.append((await scene.refused(**wrong), scene.steps))
    assert [(rejection.code, steps) for rejection, steps in told] == [
        ("timestamp_stale", []),
        ("fingerprint_missing", []),
        ("token_malformed", []),
        ("invalid_request", ["body"]),
        ("invalid_request", ["body"]),
        ("rate_limited", ["body", "redeem"]),
    ]
    assert told[4][0].param == "Idempotency-Key"


async def test_a_gate_that_reads_first_would_read_for_everybody(scene: Scene) -> None:
    """The control: with the body read beforehand, a stale request has been read as well."""
    scene.ledger.diary.clear()

    async def read_request() -> Asked:
        scene.ledger.diary.append("body")
        return Asked()

    read = await read_request()

    async def already_read() -> Asked:
        return read

    with pytest.raises(Rejection, match=r"^timestamp_stale$"):
        await scene.gate.admit(replace(GOOD, timestamp=str(NOW - 121_000)), already_read)
    assert scene.steps == ["body"]


NO_TOKENS: list[tuple[str, Callable[[Scene], str]]] = [
    ("token_malformed", lambda scene: "nonsense"),
    ("token_malformed", lambda scene: scene.token() + "="),
    ("token_malformed", lambda scene: "A" * 1_000_000),
    ("token_forged", lambda scene: scene.token()[:9] + "A" + scene.token()[9:]),
    ("token_forged", lambda scene: TokenSigner([KEY], tenant="other").sign(CLAIMS)),
    ("token_forged", lambda scene: TokenSigner([KEY[::-1]], tenant="main").sign(CLAIMS)),
    ("token_expired", lambda scene: scene.token(expires_ms=NOW - 30_001)),
    ("chain_unknown", lambda scene: scene.token(issued_ms=NOW + 30_001)),
]


@pytest.mark.parametrize(("code", "make"), NO_TOKENS)
async def test_what_is_no_token_of_ours_costs_nothing(
    scene: Scene, code: str, make: Callable[[Scene], str]
) -> None:
    """Neither a body is read for it nor Redis asked, and no place is taken."""
    assert (await scene.refused(token=make(scene))).code == code
    assert scene.steps == []
    assert scene.capacity.taken == 0


async def test_another_browsers_token_costs_a_tick(scene: Scene) -> None:
    """A wrong fingerprint is charged to the address; the body stays unread, the token unspent."""
    rejection = await scene.refused(token=scene.token(fingerprint="another"))
    assert rejection.code == "fingerprint_mismatch"
    assert rejection.standing == STANDING
    assert scene.steps == ["probe"]
    assert scene.ledger.diary[0][2] == VISITOR


@pytest.mark.parametrize("answer", [Rejection("rate_limited"), StoreUnavailable()])
async def test_who_guesses_too_often_hears_that_instead(scene: Scene, answer: Rejection) -> None:
    """Past the limit, or without Redis, not even the mismatch is confirmed."""
    scene.ledger.outcome = answer
    assert await scene.refused(token=scene.token(fingerprint="another")) is answer
    assert scene.steps == ["probe"]


async def test_a_first_turn_gets_a_chain_and_its_first_token(scene: Scene) -> None:
    """The admission tells whose turn it is, and the token in it admits the next."""
    admission = await scene.admit(Asked(b"raw"))
    assert scene.steps == ["body", "redeem"]
    assert (admission.visitor, admission.standing) == (VISITOR, STANDING)
    assert (admission.rid, admission.chain) == (scene.ledger.diary[1][1], scene.turn.chain)
    assert (scene.turn.number, scene.turn.born_ms) == (0, 0)
    assert admission.next_token
    assert scene.signer.unsign(admission.next_token, now_ms=NOW) == Claims(
        chain=scene.turn.chain,
        turn=1,
        born_ms=NOW,
        issued_ms=NOW,
        expires_ms=NOW + 1_800_000,
        fingerprint=hashed("fp", FINGERPRINT.encode()),
    )


async def test_a_later_turn_is_asked_for_by_what_its_token_says(scene: Scene) -> None:
    """Chain, turn and birth come from the token, never from the visitor's headers."""
    token = scene.token(chain="this-chain", turn=7, born_ms=NOW - 5000)
    scene.ledger.outcome = Verdict(8, NOW + 3, NOW - 5000, STANDING, HOLD)
    admission = await scene.admit(token=token)
    assert (scene.turn.chain, scene.turn.number) == ("this-chain", 7)
    assert scene.turn.born_ms == NOW - 5000
    assert admission.next_token
    claims = scene.signer.unsign(admission.next_token, now_ms=NOW)
    assert (claims.chain, claims.turn, claims.born_ms) == ("this-chain", 8, NOW - 5000)
    assert (claims.issued_ms, claims.expires_ms) == (NOW + 3, NOW + 3 + 1_800_000)


async def test_a_lost_answer_is_made_good_by_the_very_same_token(scene: Scene) -> None:
    """A duplicate carries the successor that the first answer carried, byte for byte."""
    first = await scene.admit(token=scene.token(), idempotency_key=IDEMPOTENCY)
    scene.ledger.outcome = Duplicate(VERDICT)
    again = await scene.refused(token=scene.token(), idempotency_key=IDEMPOTENCY)
    assert again.code == "duplicate_request"
    assert again.next_token == first.next_token
    scene.ledger.outcome = Rejection("token_reused")
    assert (await scene.refused(token=scene.token())).next_token is None


@pytest.mark.parametrize(
    "key", ["", "a" * 15, "a" * 65, "a" * 16 + "\n", "a" * 15 + " ", "a" * 16 + "é", "a,b" * 6]
)
async def test_a_bad_idempotency_key_is_named_and_not_echoed(scene: Scene, key: str) -> None:
    """Redis is not asked, no place is kept, the token stays good."""
    rejection = await scene.refused(idempotency_key=key)
    assert (rejection.code, rejection.param) == ("invalid_request", "Idempotency-Key")
    assert not key or key not in str(rejection.detail)
    assert scene.steps == ["body"]
    assert scene.capacity.taken == 0


async def chain_of(scene: Scene, **shown: Any) -> str:
    """The chain that a first turn with this would begin."""
    admission = await scene.admit(**shown)
    assert admission.chain
    return admission.chain


async def test_a_first_turn_without_a_key_begins_a_chain_of_its_own() -> None:
    """A chain's id is random then: nobody can guess it, not even by sending the same again."""
    chains = {await chain_of(Scene()) for _ in range(50)}
    assert len(chains) == 50


async def test_a_first_turn_repeated_with_its_key_finds_its_chain() -> None:
    """Key, fingerprint and address together name it; if any of them differs it is another one."""
    key = {"idempotency_key": IDEMPOTENCY}
    first = await chain_of(Scene(), **key)
    assert await chain_of(Scene(), **key) == first
    others = [
        await chain_of(Scene(), idempotency_key=IDEMPOTENCY + "x"),
        await chain_of(Scene(), fingerprint=FINGERPRINT + "x", **key),
        await chain_of(Scene(), visitor=Visitor("elsewhere", "wider-hash"), **key),
    ]
    assert len({first, *others}) == 4


async def test_redis_never_sees_what_was_shown(scene: Scene) -> None:
    """Fingerprint, idempotency key and body reach it as keyed hashes, one for each value."""
    await scene.admit(Asked(b"what the visitor wrote"), idempotency_key=IDEMPOTENCY)
    turn = scene.turn
    for shown in (FINGERPRINT, IDEMPOTENCY, "what the visitor wrote"):
        assert shown not in repr(turn)
    assert turn.fingerprint == hashed("fp", FINGERPRINT.encode())
    assert turn.idempotency == hashed("idem", IDEMPOTENCY.encode())
    assert turn.body == hashed("body", b"what the visitor wrote")
    await scene.admit(Asked(b"what the visitor wrote "))
    assert (scene.turn.idempotency, scene.turn.body != turn.body) == ("", True)


async def test_every_request_has_an_id_of_its_own(scene: Scene) -> None:
    """The server names requests by itself, in all three ways of asking Redis."""
    for _ in range(20):
        await scene.admit()
        await scene.gate.admit_own_key(VISITOR, SecretStr("sk-own"), Asked())
        scene.capacity.taken = 0
    with pytest.raises(Rejection):
        await scene.admit(token=scene.token(fingerprint="another"))
    rids = [each[1] for each in scene.ledger.diary if each != "body"]
    assert len(set(rids)) == 41
    assert min(map(len, rids)) >= len(secrets.token_urlsafe(16))


async def test_an_own_key_opens_the_gate_without_a_token(scene: Scene) -> None:
    """No chain and no next token, and the key stays a secret in the admission."""
    admission = await scene.gate.admit_own_key(VISITOR, SecretStr("sk-own"), Asked())
    assert scene.steps == ["own key"]
    assert (admission.chain, admission.next_token) == (None, None)
    assert admission.own_key is not None
    assert "sk-own" not in repr(admission)
    assert scene.capacity.taken == 1
