"""Check 2: what a fingerprint looks like, and that a token stays with its browser."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import Rejection
from security.fingerprint import require_match, require_well_formed

LETTERS = string.ascii_letters + string.digits + "._~-"
GOOD = st.text(LETTERS, min_size=16, max_size=128)
HASHES = st.text(string.ascii_letters + string.digits + "-_", min_size=22, max_size=22)

MALFORMED = [
    "",
    "a" * 15,
    "a" * 129,
    "a" * 100_000,
    "a" * 16 + "\n",
    "a" * 16 + "\x00",
    " " + "a" * 16,
    "a" * 8 + " " + "a" * 8,
    "a" * 16 + "é",
    "ａ" * 16,  # noqa: RUF001  # letters, but not ASCII
    "\xe4" * 16,
    "a" * 16 + ":" + "b" * 16,
    "{" + "a" * 16 + "}",
]


@given(GOOD)
def test_a_fingerprint_is_taken_as_it_is(shown: str) -> None:
    """16 to 128 of the allowed characters mean nothing to us and are not changed."""
    assert require_well_formed(shown) == shown


def test_a_fingerprint_must_be_shown() -> None:
    """None shown is a mistake of its own."""
    with pytest.raises(Rejection, match=r"^fingerprint_missing$"):
        require_well_formed(None)


@pytest.mark.parametrize("shown", MALFORMED)
def test_anything_else_is_malformed(shown: str) -> None:
    """Too short, too long, or a character that is not on the list."""
    with pytest.raises(Rejection, match=r"^fingerprint_malformed$"):
        require_well_formed(shown)


def test_a_dollar_sign_would_let_a_line_end_through() -> None:
    """The control: the same pattern, matched up to `$`, takes a fingerprint with a line feed."""
    naive = re.compile(r"^[A-Za-z0-9._~-]{16,128}$")
    assert [shown for shown in MALFORMED if naive.match(shown)] == ["a" * 16 + "\n"]


@given(HASHES)
def test_the_fingerprint_that_was_sealed_matches(sealed: str) -> None:
    """Equal hashes pass."""
    require_match(sealed, sealed=sealed)


@given(HASHES, HASHES)
def test_any_other_fingerprint_does_not_match(shown: str, sealed: str) -> None:
    """Hashes that differ anywhere, or in length only, are refused."""
    for other in (shown, sealed[:-1], sealed + "A", sealed.swapcase() + "x", ""):
        if other != sealed:
            with pytest.raises(Rejection, match=r"^fingerprint_mismatch$"):
                require_match(other, sealed=sealed)
