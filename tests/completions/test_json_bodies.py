"""Reading JSON strictly: what a body is before it is a request."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.body import load_json, read_json, texts_of
from completions.text import unsafe_character
from security.errors import InvalidRequest
from tests.completions.request_stage import body, refusal, sent

LEVELS = 64


def with_number(text: bytes) -> bytes:
    """A body in which a number stands as written."""
    return body(temperature=0.125).replace(b"0.125", text)


def with_content(text: bytes) -> bytes:
    """A body whose message is written like this between its quotes."""
    return body().replace(b"hello", text)


MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "cut": body()[:-1],
    "more": body() + b"{}",
    "comma": b'{"messages":[],}',
    "quotes": b"{'messages':[]}",
    "comment": b'{"messages":[]} // hi',
    "form": b"messages=hi&model=x",
    "BOM": b"\xef\xbb\xbf" + body(),
    "UTF-16": body().decode().encode("utf-16"),
    "UTF-16 without a mark": body().decode().encode("utf-16-le"),
    "UTF-32": body().decode().encode("utf-32-be"),
    "Latin-1": with_content(b"gr\xfc\xdfe"),
    "overlong": with_content(b"\xc0\xaf"),
    "surrogate in UTF-8": with_content(b"\xed\xa0\x80"),
    "past the last": with_content(b"\xf4\x90\x80\x80"),
    "raw line feed": with_content(b"a\nb"),
    "raw NUL": with_content(b"a\x00b"),
    "wrong escape": with_content(b"\\x41"),
    **{
        f"number {text.decode()}": with_number(text) for text in (b"NaN", b"Infinity", b"-Infinity")
    },
    **{f"number {text.decode()}": with_number(text) for text in (b"1e999", b"-1e999", b"1E400")},
    **{
        f"number {text.decode()}": with_number(text)
        for text in (b"+1", b"01", b".5", b"0x1", b"1.")
    },
    "number of 5000 digits": with_number(b"9" * 5000),
    "twice": body().replace(b'{"messages"', b'{"messages":[],"messages"'),
    "twice, spelled otherwise": body().replace(b'{"messages"', b'{"m\\u0065ssages":[],"messages"'),
    "twice within": body().replace(b'"role"', b'"role":"system","role"'),
    "100000 open lists": b"[" * 100_000,
    "100000 open objects": b'{"a":' * 100_000,
    "100000 levels": b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_json_is_malformed(raw: bytes) -> None:
    """One code for all, and never an exception or a guess."""
    assert refusal(raw).code == "malformed_json"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("empty", "The body is no JSON from line 1, column 1 on."),
        ("BOM", "The body is no JSON from line 1, column 1 on."),
        ("comma", "The body is no JSON from line 1, column 16 on."),
        ("UTF-16", "The body is not UTF-8."),
        ("Latin-1", "The body is not UTF-8."),
        ("number NaN", "The body holds NaN or Infinity, which JSON does not know."),
        ("number 1e999", "The body holds a number that is too large."),
        ("number of 5000 digits", "The body holds a number of too many digits."),
        ("twice within", "The body says a name twice in one object."),
        ("100000 levels", "The body is nested deeper than 64 levels."),
    ],
)
def test_what_is_wrong_with_the_json_is_told(name: str, told: str) -> None:
    """By what it is and where, and never by what stands there."""
    assert refusal(MALFORMED[name]).detail == told


def test_the_standard_library_alone_would_take_many() -> None:
    """The control: `json.loads` reads another encoding, NaN, and the last of two names."""
    taken = [name for name, raw in MALFORMED.items() if reads(raw)]
    assert {"BOM", "UTF-16", "number NaN", "number 1e999", "twice", "twice within"} <= {*taken}


def reads(raw: bytes) -> bool:
    """Whether the standard library finds JSON in it."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes raise anything but a rejection."""
    try:
        value = read_json(raw)
    except InvalidRequest:
        value = None
    assert value is None or json.loads(raw) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """Every number, name and order."""
    found = load_json(json.dumps(value).encode())
    assert repr(found) == repr(value)


def nested(levels: int, opening: str, closing: str) -> bytes:
    """A body of so many levels, the last four of its schema."""
    inside = opening * (levels - 4) + "1" + closing * (levels - 4)
    form = '{"name":"n","schema":{"a":' + inside + "}}"
    schema = '{"type":"json_schema","json_schema":' + form + "}"
    return body(response_format=0).replace(b" 0}", f" {schema}}}".encode())


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_limited_long_before_python_gives_up(opening: str, closing: str) -> None:
    """64 levels pass, and can be written again; one more is refused and says so."""
    assert sent(nested(LEVELS, opening, closing))
    for levels in (LEVELS + 1, 200, 500, 900):
        rejection = refusal(nested(levels, opening, closing))
        assert rejection.code == "invalid_request"
        assert rejection.detail == "The body is nested deeper than 64 levels."


def named(count: int) -> bytes:
    """A body that holds an object of so many names."""
    return body(metadata={str(number): 0 for number in range(count)})


def test_an_object_has_a_thousand_names_at_most() -> None:
    """Each unknown name costs an error of its own: a body of nothing else took seconds."""
    assert sent(named(1000))
    rejection = refusal(named(1001))
    assert rejection.code == "invalid_request"
    assert rejection.detail == "An object has 1001 names; at most 1000 are allowed."
    assert len(json.loads(named(1001))["metadata"]) == 1001, "the control: JSON has no limit"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (rb"\u0000", "U+0000"),
        (rb"\u0007", "U+0007"),
        (rb"\u001b[31m", "U+001B"),
        (rb"\u007f", "U+007F"),
        (b"\x7f", "U+007F"),
        (rb"\u0085", "U+0085"),
        (rb"\ud800", "U+D800"),
        (rb"\udc00\ud800", "U+DC00"),
        (rb"\ufffe", "U+FFFE"),
        ("\U000e0041".encode(), "U+E0041"),
        (rb"\udb40\udc41", "U+E0041"),
    ],
)
def test_text_that_cannot_be_seen_is_refused_wherever_it_stands(written: bytes, name: str) -> None:
    """In a message, a name of an object, a parameter that is not sent: the character is named."""
    places = [
        with_content(b"before " + written + b" after"),
        body(user=0).replace(b" 0}", b'"' + written + b'"}'),
        body(metadata=0).replace(b" 0}", b' {"' + written + b'":"x"}}'),
        body(stop=[0]).replace(b"[0]", b'["' + written + b'"]'),
        body(response_format=0).replace(
            b" 0}",
            b'{"type":"json_schema","json_schema":{"name":"n","schema":{"a":[{"'
            + written
            + b'":1}]}}}}',
        ),
    ]
    for raw in places:
        rejection = refusal(raw)
        assert rejection.code == "invalid_request"
        assert rejection.detail == f"The body holds the character {name}, which is not allowed."


def test_two_texts_are_not_taken_for_one() -> None:
    """Half a pair of surrogates, or a flag without its tags, is not completed by its neighbour."""
    flag, tags = "\U0001f3f4", "".join(chr(0xE0000 + ord(tag)) for tag in "gbsct") + "\U000e007f"
    assert sent(stop=[flag + tags])
    assert refusal(stop=[flag, tags]).detail
    assert refusal(body(stop=0).replace(b" 0}", rb'["\ud83d","\ude00"]}')).detail


PLAIN = ["a", "ü", "\u00a0", "日", "😀", "\U0001f3f4", "[{", "}]"]
BAD = ["\x7f", "\x85", "\ufdd0", "\ufffe", "\U0001ffff", "\U000e0067", "\U000e007f"]
ESCAPES = [r"\\", r"\"", r"\n", r"\/", r"\b", r"\f", r"\u0041", r"\u001F", r"\\u0007"]
HALVES = [r"\uD83c\udff4", r"\uDB40\uDC67", r"\uD83c", r"\uDC67", "\U0001f3f4\U000e0067"]
SPELLED = st.lists(st.sampled_from(PLAIN + BAD + ESCAPES + HALVES), max_size=8).map("".join)


@given(st.lists(SPELLED, min_size=3, max_size=3), st.sampled_from(["", "\n", "\t"]))
def test_unsafe_text_is_found_however_it_is_spelled(texts: list[str], space: str) -> None:
    """As if each text were looked at by itself, after its escapes were read."""
    name, first, second = (f'"{text}"' for text in texts)
    raw = f'{{"0":{space}{first},{name}:[{second}]}}'.encode()
    unsafe = [bad for text in texts_of(load_json(raw)) if (bad := unsafe_character(text))]
    if not unsafe:
        assert read_json(raw) == json.loads(raw)
        return
    with pytest.raises(InvalidRequest) as refused:
        read_json(raw)
    assert (
        refused.value.detail == f"The body holds the character {unsafe[0]}, which is not allowed."
    )


def test_text_that_can_be_seen_passes() -> None:
    """Tabs, lines, emoji written as two escapes, a flag of a region, marks of direction."""
    scotland = "\U0001f3f4" + "".join(chr(0xE0000 + ord(tag)) for tag in "gbsct") + "\U000e007f"
    for text in ("a\tb\r\nc", "😀", scotland, "\u200d\u200f\u2067", "<b>&amp;", "\ue000"):
        for ascii_only in (True, False):
            messages = [{"role": "user", "content": text}]
            raw = json.dumps({"messages": messages}, ensure_ascii=ascii_only).encode()
            assert sent(raw)["messages"] == messages


@given(JSON | st.dictionaries(st.text(max_size=3), st.lists(st.text(max_size=3))))
def test_every_text_of_a_value_is_found(value: Any) -> None:
    """Names and values, at every level: as many as there are strings in the JSON."""
    strings: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        strings.extend(name for name, _ in pairs)
        strings.extend(each for _, each in pairs if isinstance(each, str))
        for _, each in pairs:
            strings.extend(item for item in flat(each) if isinstance(item, str))
        return dict(pairs)

    json.loads(json.dumps(value), object_pairs_hook=note)
    assert sorted(texts_of(value)) == sorted(strings)


def flat(value: Any) -> list[Any]:
    """What lies in a list and in lists within it."""
    if not isinstance(value, list):
        return []
    return [*value, *(item for inner in value for item in flat(inner))]
