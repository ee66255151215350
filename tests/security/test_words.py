"""How the keys and arguments of a script are packed."""

from typing import Final

import pytest

from security.budget import DayTotal
from security.scripts import NO_TURN, Visitor, admission, admission_form
from security.words import Form, Words, packed
from tests.security.ledger_stage import LIMITS

KEYS: Final = ("k:{t}:all", "k:{t}:%(who)s", "k:{t}:%(day)s:%(who)s")
ARGV: Final = ("%(rid)s", 1800, "%(day)s", "", "%(who)s")


def test_a_word_stands_behind_its_length_in_bytes() -> None:
    """Numbers are written out, and a letter of two bytes counts as two."""
    assert packed(("GET", "grüße", -5)) == "$3\r\nGET\r\n$7\r\ngrüße\r\n$2\r\n-5\r\n"


def test_keys_are_counted_before_them() -> None:
    """As EVALSHA wants it: how many are keys, the keys, the arguments."""
    words = Words(["a", "b"], ["c", 7])
    assert words.count == 5
    assert words.packed({}) == packed((2, "a", "b", "c", 7))


@pytest.mark.parametrize("who", ["", "a", "b", "somebody", "jemand größeres", "%(rid)s", "%d"])
@pytest.mark.parametrize("day", ["7", "20000"])
def test_a_form_is_packed_as_its_words_are(who: str, day: str) -> None:
    """Whatever the names are and however long: the template of these lengths is of no others."""
    form = Form(KEYS, ARGV)
    for rid in ("one", "two", "three"):
        names = {"who": who, "day": day, "rid": rid}
        keys = ["k:{t}:all", f"k:{{t}}:{who}", f"k:{{t}}:{day}:{who}"]
        plain = Words(keys, [rid, 1800, day, "", who])
        assert (form.keys(names), form.count) == (keys, plain.count)
        assert form.packed(names) == plain.packed({})


def test_the_form_of_an_admission_has_a_place_for_each_name() -> None:
    """Nothing that a call says is left out, and nothing asked for is missing."""
    seen = DayTotal("epoch-name", 77_001, 88_002)
    names = admission("turn", "a-rid", Visitor("narrow-one", "wide-one"), NO_TURN, 19_999, seen)
    form = admission_form("p:", LIMITS)
    words = [*form.keys(names), *form.argv(names)]
    assert len(words) == 17 + 35
    for each in ("a-rid", "narrow-one", "wide-one", "19999", "epoch-name", "77001", "88002"):
        assert any(each in str(word) for word in words), each
    assert "%(" not in form.packed(names)
