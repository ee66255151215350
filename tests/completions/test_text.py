"""What a visitor's text may not carry, checked against the definition written out plainly."""

import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions.text import clean, may_be_unsafe, unsafe_character

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tags(text: str) -> str:
    """The text in invisible tag characters."""
    return "".join(chr(0xE0000 + ord(character)) for character in text)


BASE, END = "\U0001f3f4", "\U000e007f"
SCOTLAND = BASE + tags("gbsct") + END

GOOD = [
    "",
    "plain\ttext\r\nwith lines\n",
    "<script>alert('x')</script> \"quotes\" & &amp; ' OR 1=1 -- %s{} ../../ {{7*7}} `rm -rf`",
    "def f(x):\n\treturn {'a': x ** 2}  # \\x00 \\u0007",
    "👩‍👩‍👧‍👦 👍🏽 ❤️‍🔥 🏳️‍🌈 🇩🇪 1️⃣ 🏴 🏴‍☠️",
    SCOTLAND,
    f"a{SCOTLAND}{SCOTLAND}b{BASE}{SCOTLAND}",
    BASE + tags("usca") + END,
    # ruff: noqa: RUF001 - scripts that only look alike
    "مرحبا \u200fבעולם\u200e \u202bعربي\u202c \u2067עברית\u2069 \u061c",
    "می\u200cخواهم क्\u200dष \u00ad \ufeff \u2028\u2029\u00a0",
    "Z\u0351\u036b\u0343a\u0300 \ue000\U000f0000\U0010fffd \ufffd \ufffc \U000e0100\u17b4",
]

BAD = [
    ("\x00", "U+0000"),
    ("\x07", "U+0007"),
    ("\x0b", "U+000B"),
    ("\x1b", "U+001B"),
    ("\x7f", "U+007F"),
    ("\x85", "U+0085"),
    ("\x9f", "U+009F"),
    ("\ud800", "U+D800"),
    ("\udfff", "U+DFFF"),
    ("\ufdd0", "U+FDD0"),
    ("\ufffe", "U+FFFE"),
    ("\U0001ffff", "U+1FFFF"),
    ("\U0010fffe", "U+10FFFE"),
    ("\U000e0001", "U+E0001"),
    ("\U000e0041", "U+E0041"),
    ("\U000e007f", "U+E007F"),
]

# Texts made of the pieces that matter, so that flags and near-flags are met often.
PIECES = st.lists(
    st.sampled_from(
        [
            *(character for character, _ in BAD),
            BASE,
            END,
            SCOTLAND,
            "\ufe0f",
            "\u200d",
            "a",
            "\n",
            *tags("gb7 ~A"),
            tags("gbsct"),
        ]
    )
).map("".join)
ANY_TEXT = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=())), PIECES, st.text("ab\n\x07\x7f")
)


def is_unsafe_by_itself(code: int) -> bool:
    """The definition of one character, written out."""
    if chr(code) in "\t\n\r":
        return False
    noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    tag = 0xE0000 <= code <= 0xE007F
    return noncharacter or tag or unicodedata.category(chr(code)) in {"Cc", "Cs"}


def plainly_cleaned(text: str) -> str:
    """The definition of a text, one character after the other."""
    kept, at = "", 0
    while at < len(text):
        end = text.find(END, at)
        region = text[at + 1 : end] if text[at] == BASE and end > 0 else ""
        spelled = "".join(chr(ord(tag) & 0x7F) for tag in region if ord(tag) >= 0xE0000)
        is_flag = 3 <= len(region) <= 6 and tags(spelled) == region
        if is_flag and all(letter in "0123456789abcdefghijklmnopqrstuvwxyz" for letter in spelled):
            kept, at = kept + text[at : end + 1], end + 1
        else:
            kept, at = kept + ("" if is_unsafe_by_itself(ord(text[at])) else text[at]), at + 1
    return kept


def test_every_code_point_by_itself_is_judged_by_the_definition() -> None:
    """All 1,114,112 code points, one by one, by both functions."""
    for code in range(0x110000):
        unsafe = is_unsafe_by_itself(code)
        assert unsafe_character(chr(code)) == (f"U+{code:04X}" if unsafe else None)
        assert clean(chr(code)) == ("" if unsafe else chr(code))


def test_bytes_tell_of_every_unsafe_character_that_there_may_be_one() -> None:
    """All that JSON can hold; and the control: of what people write they do not."""
    texts = (chr(code) for code in range(0x20, 0x110000) if not 0xD800 <= code < 0xE000)
    for text in filter(unsafe_character, texts):
        assert may_be_unsafe(text.encode())
        assert may_be_unsafe(f"ü{text}".encode())
    for usual in ("plain", "grüße", "naïve", "한국어", "日本語", "สวัสดี", "नमस्ते", "שלום", "😀 – ❤️"):
        assert not may_be_unsafe(usual.encode())


@pytest.mark.parametrize("text", GOOD)
def test_honest_text_passes_as_it_is(text: str) -> None:
    """Code, markup, emoji, joiners and marks of direction arrive identical."""
    assert unsafe_character(text) is None
    assert clean(text) == text


@pytest.mark.parametrize(("character", "name"), BAD)
def test_an_unsafe_character_is_named_and_removed(character: str, name: str) -> None:
    """Wherever it stands, and only it."""
    for before, after in [("", ""), ("a", "b"), (SCOTLAND, SCOTLAND), ("👩‍👧\n", "é")]:
        text = before + character + after
        assert unsafe_character(text) == name
        assert clean(text) == before + after


def test_the_first_of_several_is_named() -> None:
    """A whole flag before it is passed over."""
    assert unsafe_character(f"ok {SCOTLAND}{BASE} \x9f \x00") == "U+009F"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (tags("hidden words"), ""),
        ("a" + tags("gbsct") + END, "a"),
        (BASE + tags("gbsct"), BASE),
        (BASE + END, BASE),
        (BASE + tags("gb") + END, BASE),
        (BASE + tags("abcdefg") + END, BASE),
        (BASE + tags("GBSCT") + END, BASE),
        (BASE + tags("gb sc") + END, BASE),
        (BASE + "\ufe0f" + tags("gbsct") + END, BASE + "\ufe0f"),
        (BASE + "\x00" + tags("gbsct") + END, BASE),
        (BASE + tags("gb") + "\x00" + tags("sct") + END, BASE),
        (SCOTLAND + tags("x") + END, SCOTLAND),
        (BASE + tags("gbs") + SCOTLAND, BASE + SCOTLAND),
        ("\ud83d\ude00", ""),
    ],
)
def test_tags_hide_nothing_outside_a_whole_flag(text: str, left: str) -> None:
    """Broken, too short, too long or joined by a removal: no tag is left over."""
    assert unsafe_character(text) is not None
    assert clean(text) == left


@PATIENT
@given(ANY_TEXT)
@example(BASE + "\x00" + tags("gbsct") + END)
@example(BASE + BASE + tags("gbsct") + END + tags("gbsct"))
def test_clean_text_is_safe_and_stays_as_it_is(text: str) -> None:
    """Removing joins nothing to something unsafe, and a second time removes nothing."""
    once = clean(text)
    assert unsafe_character(once) is None
    assert clean(once) == once


@PATIENT
@given(ANY_TEXT)
def test_both_functions_share_the_definition(text: str) -> None:
    """A text is refused exactly if cleaning would change it, and cleaning does what is written."""
    assert clean(text) == plainly_cleaned(text)
    assert (unsafe_character(text) is None) == (clean(text) == text)
