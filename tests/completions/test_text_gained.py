"""How much longer a text may become where upstream writes it in normal form C first."""

import sys
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions.text import most_gained
from tests.completions.request_stage import asked

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALL = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
MARKS = [char for char in ALL if unicodedata.combining(char)]
HANGUL = [chr(point) for point in range(0xAC00, 0xD7A4)]  # composed of what no mark comes between
COMPOSED = [
    char
    for char in sorted(set(ALL) - set(HANGUL))
    if unicodedata.is_normalized("NFC", char) and unicodedata.normalize("NFD", char) != char
]


def gained(text: str) -> int:
    """The bytes that this text gains in normal form C."""
    return len(unicodedata.normalize("NFC", text).encode()) - len(text.encode())


def test_no_character_gains_more_than_is_counted() -> None:
    """Neither alone nor as a mark on a letter that has others: all of Unicode is tried."""
    assert [char for char in ALL if gained(char) > most_gained(char.encode())] == []
    pairs = (letter + mark for letter in COMPOSED for mark in MARKS)
    assert [pair for pair in pairs if gained(pair) > most_gained(pair.encode())] == []


@PATIENT
@given(st.text(st.sampled_from(COMPOSED + MARKS) | st.characters(codec="utf-8"), max_size=40))
@example("\u01da\u1dc5\u0323")
def test_no_text_gains_more_than_is_counted(text: str) -> None:
    """Marks in any order on any letters are put in order without gaining more."""
    assert gained(text) <= most_gained(text.encode())


@pytest.mark.parametrize(("text", "most"), [("\U0001d160", 8), ("\u01d6\u0323", 4), ("\ufb2c", 6)])
def test_some_texts_gain(text: str, most: int) -> None:
    """The control: their bytes alone would be too few; three times as many are enough."""
    assert 0 < gained(text) <= most_gained(text.encode()) == most


@pytest.mark.parametrize(
    "text", ["plain", "grüße", "naïve", "한국어", "日本語", "สวัสดี", "नमस्ते", "שלום", "🙂"]
)
def test_usual_texts_are_not_said_to_gain(text: str) -> None:
    """What people write costs no more for it."""
    assert most_gained(text.encode()) == 0


def test_the_worst_case_counts_what_a_text_gains() -> None:
    """All that upstream reads of the body, each byte a token; the bytes sent would be too few."""
    request = asked(messages=[{"role": "user", "content": "\U0001d160" * 50}])
    body = request.upstream(request.worst.max_output).decode()
    read = len(unicodedata.normalize("NFC", body).encode())
    assert request.worst.prompt_pico_usd // request.price.input == read + 16 + 64
    assert read > len(body.encode()) + 16 + 64
