"""Names for visitors that say nothing about them."""

import base64
import hashlib
import hmac
import re
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from security.keyed_hash import KeyedHash, Label, derive_key

LABELS: tuple[Label, ...] = get_args(Label)
KEY = bytes(range(32))


@given(st.sampled_from(LABELS), st.binary(max_size=200))
def test_every_hash_is_22_characters_for_a_key_of_redis(label: Label, data: bytes) -> None:
    """Short, of one length, and without a character that Redis or a log would mind."""
    found = KeyedHash(KEY)(label, data)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", found)
    assert found == KeyedHash(KEY)(label, data)


@given(st.sampled_from(LABELS), st.binary(max_size=100))
def test_a_hash_is_hmac_sha256_cut_to_128_bits(label: Label, data: bytes) -> None:
    """What is stored today is found again tomorrow: the construction is part of the contract."""
    whole = hmac.new(KEY, label.encode() + b"\0" + data, hashlib.sha256).digest()
    assert KeyedHash(KEY)(label, data) == base64.urlsafe_b64encode(whole[:16]).decode()[:22]


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_purposes_keys_and_inputs_are_kept_apart(one: bytes, other: bytes) -> None:
    """The same bytes under another label or key, or other bytes, have another hash."""
    hashed, elsewhere = KeyedHash(KEY), KeyedHash(KEY[::-1])
    names = {(label, data): hashed(label, data) for label in LABELS for data in (one, other)}
    assert len(set(names.values())) == len(names)
    assert not set(names.values()) & {elsewhere(label, one) for label in LABELS}


def test_without_the_key_an_address_is_not_found() -> None:
    """A thief of Redis who knows the construction cannot look up an address; unkeyed, he can."""
    stored = KeyedHash(KEY)("addr", b"203.0.113.9/32")
    unkeyed = digest(b"203.0.113.9/32")
    guesses = [f"203.0.113.{last}/32".encode() for last in range(256)]
    assert unkeyed in {digest(guess) for guess in guesses}
    assert stored not in {digest(guess) for guess in guesses}
    assert stored not in {KeyedHash(b"")("addr", guess) for guess in guesses}


def digest(data: bytes) -> str:
    """The same construction without a key."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"addr\0" + data).digest()[:16]).decode()[:22]


def hkdf(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 as RFC 5869 writes it, in full."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    found, block = b"", b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.new(extracted, block + info + bytes([count]), hashlib.sha256).digest()
        found += block
    return found[:length]


def test_the_derived_key_is_hkdf_by_the_book() -> None:
    """Checked against an HKDF that gives the first test vector of RFC 5869."""
    vector = hkdf(b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), length=42)
    assert vector.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    for secret in ("a secret of the operator", "пароль", "x" * 300):
        expected = hkdf(secret.encode(), salt=b"keyturn", info=b"identity", length=32)
        assert derive_key(secret) == expected


def test_hashes_outlive_a_change_of_the_code() -> None:
    """Pinned: were they to change, every budget, limit and chain would be forgotten at once."""
    assert derive_key("a secret").hex()[:16] == "896ca170eddf7c01"
    assert KeyedHash(KEY)("addr", b"203.0.113.9/32") == "E3utmuTGcEL1-q3e4F2IoQ"


def test_the_names_of_the_last_visitors_are_kept_and_no_more() -> None:
    """A visitor who comes again is hashed once; of those who are gone nothing stays for long."""
    hashed = KeyedHash(KEY)
    for number in range(5000):
        hashed.of_prefix(f"2001:db8:{number:x}::/48")
    again = "2001:db8:1387::/48"
    assert hashed.of_prefix(again) == hashed("addr", again.encode()) != KeyedHash(b"")("addr", b"")
    kept = hashed.of_prefix.cache_info()
    assert (kept.hits, kept.currsize) == (1, 1024)
