"""What a token says, who may have said it, and for how long."""

import hashlib
import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from security.errors import Rejection
from security.one_time_token import (
    LEEWAY_MS,
    MAX_LENGTH,
    Claims,
    TokenSigner,
    _as_written,
    _claims,
)

OLD = "the-oldest-key-0123456789-abcdefghijklmno"
KEY = "the-key-that-signs-9876543210-zyxwvutsrqpo"
SALT = "keyturn.one-time-token.v1.main"
OURS: dict[str, Any] = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
BASE64URL = string.ascii_letters + string.digits + "-_"

NOW = 1_795_300_000_000
TTL = 1_800_000
GOOD = Claims("Zk3vQm1xT9sLw8Bd2HnRpA", 3, NOW - 60_000, NOW, NOW + TTL, "f0-_GhJkLmNoPqRsTuVwXy")
SAID = {
    "c": GOOD.chain,
    "n": GOOD.turn,
    "b": GOOD.born_ms,
    "i": GOOD.issued_ms,
    "e": GOOD.expires_ms,
    "f": GOOD.fingerprint,
}

NAMES = st.text(BASE64URL, min_size=22, max_size=22)
TIMES = st.integers(10**12, 10**13)
CLAIMS = st.builds(
    Claims,
    chain=NAMES,
    turn=st.integers(1, 10**9),
    born_ms=TIMES,
    issued_ms=TIMES,
    expires_ms=TIMES,
    fingerprint=NAMES,
)


def signer(*keys: str, tenant: str = "main") -> TokenSigner:
    """A signer with these keys, oldest first."""
    return TokenSigner(keys or (KEY,), tenant=tenant)


def serializer(key: str = KEY, salt: str = SALT, **how: Any) -> Any:
    """The library by itself, as the signer is said to use it unless told otherwise."""
    return URLSafeSerializer(key, salt=salt, signer_kwargs=how or OURS)


def code_of(token: str, by: TokenSigner | None = None, *, now_ms: int = NOW) -> str | None:
    """The code with which a token is refused, or None."""
    try:
        (by or signer()).unsign(token, now_ms=now_ms)
    except Rejection as rejection:
        return rejection.code
    return None


@given(CLAIMS.filter(lambda claims: claims.issued_ms <= claims.expires_ms))
def test_what_was_signed_is_read_again(claims: Claims) -> None:
    """The claims come back as they went in, and the same claims give the same text."""
    token = signer().sign(claims)
    assert signer().sign(claims) == token
    assert len(token) <= MAX_LENGTH
    assert signer().unsign(token, now_ms=claims.issued_ms) == claims
    assert signer().unsign(token, now_ms=claims.expires_ms) == claims


def test_it_is_the_library_s_token() -> None:
    """What we write the library reads by itself, and what it writes, compressed, we read."""
    assert serializer().loads(signer().sign(GOOD)) == SAID
    theirs = serializer().dumps(SAID)
    assert theirs.startswith(".")
    assert signer().unsign(theirs, now_ms=NOW) == GOOD


AS_WRITTEN = json.dumps(SAID, separators=(",", ":"))
SIGNS = st.sampled_from(["", *'{}":,.+-_019 aé\\\n\x00\u0663', "0000", "12345678", "1e3", '"n":1,'])


def read(text: str, before: bytes = b"") -> Claims | str:
    """The claims of a payload that we signed, or the code with which it is refused."""
    token = serializer().make_signer().sign(before + base64_encode(text)).decode()
    try:
        return signer().unsign(token, now_ms=NOW)
    except Rejection as rejection:
        return rejection.code


def read_by_the_library(text: str) -> Claims | str:
    """The same, without a look at whether it is as we write it."""
    try:
        return _claims(serializer().load_payload(base64_encode(text)))
    except BadData:
        return "token_malformed"
    except Rejection as rejection:
        return rejection.code


@given(st.integers(0, len(AS_WRITTEN)), st.integers(0, 2), SIGNS)
@settings(max_examples=500)
def test_a_payload_is_read_at_once_as_the_library_reads_it(at: int, gone: int, sign: str) -> None:
    """With a sign more, less or changed anywhere: the same claims, or refused alike."""
    text = AS_WRITTEN[:at] + sign + AS_WRITTEN[at + gone :]
    assert _as_written(base64_encode(text)) in (None, read_by_the_library(text))


def test_what_we_write_is_read_at_once() -> None:
    """Without a search of any JSON; but not if it says of itself that it is compressed."""
    assert _as_written(base64_encode(AS_WRITTEN)) == read(AS_WRITTEN) == GOOD
    assert _as_written(base64_encode(AS_WRITTEN + " ")) is None
    assert read(AS_WRITTEN + " ") == GOOD
    assert read(AS_WRITTEN, b".") == "token_malformed"


def test_a_token_fits_into_a_header_and_a_url() -> None:
    """Letters, digits and four signs; nothing to quote, nothing to escape."""
    assert set(signer().sign(GOOD)) <= {*BASE64URL, "."}


@given(CLAIMS, CLAIMS)
def test_other_claims_give_another_token(one: Claims, other: Claims) -> None:
    """No two turns share a token."""
    assert (signer().sign(one) == signer().sign(other)) == (one == other)


def test_what_others_signed_is_forged() -> None:
    """Another tenant, key, salt or purpose: none of them can speak for us."""
    token = signer().sign(GOOD)
    assert code_of(token) is None
    assert code_of(token, signer(tenant="other")) == "token_forged"
    assert code_of(token, signer(OLD)) == "token_forged"
    assert code_of(serializer().dumps(SAID)) is None
    assert code_of(serializer(salt="keyturn.one-time-token.v2.main").dumps(SAID)) == "token_forged"
    assert code_of(serializer(salt="itsdangerous").dumps(SAID)) == "token_forged"
    assert code_of(serializer(key=KEY.swapcase()).dumps(SAID)) == "token_forged"


def test_the_defaults_of_the_library_are_not_used() -> None:
    """SHA-1 and plain concatenation are refused, alone or together; the library takes its own."""
    sha1 = URLSafeSerializer(KEY, salt=SALT)
    assert sha1.loads(sha1.dumps(SAID)) == SAID
    assert code_of(str(sha1.dumps(SAID))) == "token_malformed"
    assert code_of(serializer(key_derivation="hmac").dumps(SAID)) == "token_malformed"
    assert code_of(serializer(digest_method=hashlib.sha256).dumps(SAID)) == "token_forged"


def test_every_flipped_bit_is_noticed() -> None:
    """All bits of all characters, one at a time, the last character's too."""
    token = signer().sign(GOOD)
    for at, character in enumerate(token):
        for bit in range(8):
            flipped = token[:at] + chr(ord(character) ^ 1 << bit) + token[at + 1 :]
            assert code_of(flipped) in ("token_forged", "token_malformed"), (at, bit)


@given(CLAIMS, st.data())
@settings(max_examples=200)
def test_cut_lengthened_and_mixed_tokens_are_refused(claims: Claims, data: st.DataObject) -> None:
    """Whatever is made of two good tokens, only the two themselves are honoured."""
    one, other = signer().sign(claims), signer().sign(GOOD)
    cut = data.draw(st.integers(0, len(one)))
    elsewhere = data.draw(st.integers(0, len(other)))
    made = one[:cut] + other[elsewhere:]
    if made not in (one, other):
        assert code_of(made, now_ms=claims.issued_ms) in ("token_forged", "token_malformed")


MORE = ["=", "==", "===", "\n", " ", "\t", "\r\n", "\x00", ".", ",", "A", "%3D", "\u200b"]


def test_a_token_has_one_spelling() -> None:
    """Another last character, padding, blanks: refused, though the library honours several."""
    token = signer().sign(GOOD)
    respelled = [token[:-1] + last for last in BASE64URL if last != token[-1]]
    respelled += [token + more for more in MORE]
    respelled += [" " + token, "." + token, token.replace(".", "..", 1), f'"{token}"']
    assert {code_of(other) for other in respelled} <= {"token_forged", "token_malformed"}
    honoured = [other for other in respelled if taken(other)]
    assert len(honoured) >= 5, "the control: the signature alone does not fix the spelling"


def taken(token: str) -> bool:
    """Whether the library by itself honours a token."""
    return bool(serializer().loads_unsafe(token)[0])


def test_text_that_is_no_token_is_malformed() -> None:
    """Nothing, nonsense and other people's tokens."""
    jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."
    for text in ("", ".", "..", "a.b", "keyturn", "null", jwt, "é" * 40, "\ud800", "a" * 200):
        assert code_of(text) == "token_malformed", text


@pytest.mark.parametrize("length", [MAX_LENGTH + 1, 1_000_000])
def test_a_long_text_is_malformed_whatever_it_is(length: int) -> None:
    """Even one that we signed: past 512 characters nothing is looked at."""
    claims = Claims(noise(length), GOOD.turn, NOW, NOW, NOW + TTL, GOOD.fingerprint)
    token = signer().sign(claims)
    assert len(token) > length * 3 // 4
    assert taken(token), "the control: the library honours it"
    assert code_of(token) == "token_malformed"
    assert code_of("A" * length) == "token_malformed"
    assert code_of("." * length) == "token_malformed"


def noise(length: int) -> str:
    """Text that does not compress well."""
    return hashlib.shake_128(b"noise").hexdigest(length)


def test_the_newest_key_signs_and_all_verify() -> None:
    """Keys are oldest first: after a rotation the old tokens are good, the new ones are new."""
    both = signer(OLD, KEY)
    assert both.sign(GOOD) == signer(KEY).sign(GOOD)
    assert code_of(signer(OLD).sign(GOOD), both) is None
    assert code_of(signer(KEY).sign(GOOD), both) is None
    assert code_of(both.sign(GOOD), signer(OLD)) == "token_forged"


def test_a_key_that_was_removed_is_forgotten() -> None:
    """Once the old key is gone its tokens are forgeries."""
    assert code_of(signer(OLD).sign(GOOD), signer(KEY)) == "token_forged"
    assert code_of(signer(OLD).sign(GOOD), signer(KEY, OLD)) is None


@pytest.mark.parametrize(
    ("late_ms", "code"),
    [
        (-TTL, None),
        (0, None),
        (1, None),
        (LEEWAY_MS, None),
        (LEEWAY_MS + 1, "token_expired"),
        (10**12, "token_expired"),
    ],
)
def test_a_token_expires_half_a_minute_late(late_ms: int, code: str | None) -> None:
    """Exactly 30 s after its time it is honoured, a millisecond later it is not."""
    assert LEEWAY_MS == 30_000
    assert code_of(signer().sign(GOOD), now_ms=GOOD.expires_ms + late_ms) == code


@pytest.mark.parametrize(
    ("early_ms", "code"),
    [
        (0, None),
        (LEEWAY_MS, None),
        (LEEWAY_MS + 1, "chain_unknown"),
        (10**9, "chain_unknown"),
    ],
)
def test_a_token_from_the_future_is_of_no_chain_we_know(early_ms: int, code: str | None) -> None:
    """Clocks may differ by 30 s; more than that means that the store has lost time."""
    assert code_of(signer().sign(GOOD), now_ms=GOOD.issued_ms - early_ms) == code


@given(CLAIMS, TIMES)
def test_an_honoured_token_is_always_in_its_time(claims: Claims, now_ms: int) -> None:
    """Issued before and not expired, each give or take the leeway."""
    in_time = claims.issued_ms - LEEWAY_MS <= now_ms <= claims.expires_ms + LEEWAY_MS
    assert (code_of(signer().sign(claims), now_ms=now_ms) is None) == in_time


WRONG: list[Any] = [None, True, False, 1.0, 1.5, "1", "", "a b", "é", [], [1], {}, {"a": 1}]
WRONG_NUMBERS = [*WRONG, 0, -1, 2**53, 10**30, "x" * 22]
WRONG_NAMES = [each for each in WRONG if each != "1"]
WRONG_NAMES += [1, "a:b", "a\n", "{tag}", "x" * 21 + "\x00"]


@pytest.mark.parametrize("name", ["n", "b", "i", "e"])
@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
def test_a_number_is_a_number_even_if_we_signed_it(name: str, value: object) -> None:
    """A whole one above zero that Lua can count: no string, no bool and no float."""
    assert code_of(serializer().dumps(SAID)) is None
    assert code_of(serializer().dumps({**SAID, name: value})) == "token_malformed"


@pytest.mark.parametrize("name", ["c", "f"])
@pytest.mark.parametrize("value", WRONG_NAMES, ids=repr)
def test_a_name_is_a_name_even_if_we_signed_it(name: str, value: object) -> None:
    """Of the letters that our hashes have: it becomes part of a key of Redis."""
    assert code_of(serializer().dumps({**SAID, name: value})) == "token_malformed"


def test_without_looking_at_types_a_float_would_reach_redis() -> None:
    """The control: taken as it comes, 3.0 passes for turn 3 and is written `3.0` into a call."""
    said = json.loads(json.dumps({**SAID, "n": 3.0}))
    naive = Claims(said["c"], said["n"], said["b"], said["i"], said["e"], said["f"])
    assert naive == GOOD
    assert str(naive.turn) != str(GOOD.turn)
    assert code_of(serializer().dumps(said)) == "token_malformed"


@pytest.mark.parametrize("payload", [None, [], "text", 5, {}, {"c": "x"}, [1, 2, 3], {"n": 1}])
def test_another_payload_is_malformed_even_if_we_signed_it(payload: object) -> None:
    """Anything but our six claims."""
    assert code_of(serializer().dumps(payload)) == "token_malformed"


def test_a_signed_payload_that_is_no_json_is_malformed() -> None:
    """And one that claims to be compressed and is not."""
    sign = serializer().make_signer(SALT).sign
    for payload in (b"AAAA", b"bm90IGpzb24", b".AAAA", b".bm90IHpsaWI"):
        assert code_of(sign(payload).decode()) == "token_malformed"
