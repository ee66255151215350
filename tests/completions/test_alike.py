"""Events that differ from one before in a value or two are told by their bytes, never wrongly."""

import json
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions.alike import Alike
from completions.grammars import ChatScanner, ResponsesScanner
from completions.scanner import Scanner
from tests.completions.chat_stream import DONE, STREAM, cut, event, learnt, sent
from tests.completions.responses_stream import STREAMS

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class ReadChat(ChatScanner):
    """A scanner that reads every event."""

    def _usual_events(self, data: bytes) -> tuple[bytes, bytes]:
        return b"", data


class ReadResponses(ResponsesScanner):
    """The same of Responses."""

    def _usual_events(self, data: bytes) -> tuple[bytes, bytes]:
        return b"", data


class CountedChat(ChatScanner):
    """A scanner that counts the messages that it reads."""

    read = 0

    def _message_leaves(self, name: bytes, data: bytes) -> bool:
        self.read += 1
        return super()._message_leaves(name, data)


class CountedResponses(ResponsesScanner):
    """The same of Responses."""

    read = 0

    def _message_leaves(self, name: bytes, data: bytes) -> bool:
        self.read += 1
        return super()._message_leaves(name, data)


# What may stand where a plain text is expected, as it stands in the bytes.
TEXT = (
    st.text(max_size=6)
    .map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1].encode())
    .filter(lambda text: b"\n" not in text)
)
CHEATS = st.sampled_from(
    [
        b"",
        b"\\n",
        b'\\"',
        b"\\",
        b"\\u00e4",
        b"\\ud800",
        b'"',
        b"\x00",
        b"\t",
        b"\r",
        b"\x7f",
        b"\xff",
        b"\xc3",
        b"\xa4",
        b"\xed\xa0\x80",
        b'"},"finish_reason":"stop"}],"x":[{"y":{"z":"',
        b'","content":"longer than that',
        b'","refusal":"no',
        b'","reasoning":"hm',
        b'","tool_calls":[{"id":"call_1"}],"a":"',
        b'"}}],"usage":{"total_tokens":1},"a":[{"b":{"c":"',
        b'"}}],"error":{"code":"boom"},"a":[{"b":{"c":"',
        b'"}}],"choices":[],"a":[{"b":{"c":"',
        b'","delta":"twice","a":"',
        b'","type":"response.completed","a":"',
        b'","type":"response.reasoning_summary_text.delta","a":"',
        b'","sequence_number":7,"a":"',
        b'","obfuscation":"b',
        b'","a":"content","b":"',
        b'", "content" : "c',
    ]
)
TEXTS = st.one_of(TEXT, TEXT, CHEATS)
# What each text stands in; what is left open besides is a number, or OpenAI's random text.
CHATS = (
    b'{"id":"c","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}',
    b'{"choices": [{"delta": {"content": "%s"}}], "usage": null, "obfuscation": "%o"}',
    b'{"obfuscation":"%o","choices":[{"delta":{"content":"%s","refusal":null}}]}',
    b'{"choices":[{"delta":{"content":"%s"},"finish_reason":"stop"}]}',
    b'{"choices":[{"delta":{"content":"%s"}}],"usage":{"total_tokens":%n}}',
    b'{"choices":[{"delta":{"content":"%s"}},{"delta":{"content":"b"}}]}',
    b'{"choices":[{"delta":{"role":"assistant","reasoning":"hm","content":"%s"}}]}',
    b'{"choices":[{"delta":{"content":"a"}}],"content":"%s"}',
    b'{"content":"%s","choices":[{"delta":{"refusal":"a"}}]}',
    b'{"choices":[{"delta":{"\\u0063ontent":"%s"}}]}',
    b'{"choices":[{"delta":{"content":"%s","tool_calls":[{"id":"call_%n"}]}}]}',
    b'{"choices":[{"delta":{"content":"%s"}}],"error":false}',
    b'{"choices":[{"delta":{"content":"%s"}}],"error":"%o"}',
    b'{"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"%s"}}]}',
    b"[DONE]",
)
RESPONSES = (
    b'{"type":"response.output_text.delta","sequence_number":%n,"delta":"%s"}',
    b'{"type":"response.output_text.delta","delta":"%s","sequence_number": %n}',
    b'{"type":"response.output_text.delta","delta": "%s","obfuscation":"%o","logprobs":[]}',
    b'{"type":"response.refusal.delta","sequence_number":"%o","delta":"%s"}',
    b'{"type":"response.output_text.delta","sequence_number":%n,"sequence_number":%n,"delta":"%s"}',
    b'{"type":"response.output_text.delta","a":{"sequence_number":%n},"delta":"%s"}',
    b'{"type":"response.output_text.delta","a":{"delta":"%s"},"delta":"b"}',
    b'{"type":"response.output_text.delta","a":{"delta":"%s"}}',
    b'{"type":"response.reasoning_summary_text.delta","sequence_number":%n,"delta":"%s"}',
    b'{"type":"response.output_text.done","sequence_number":%n,"delta":"%s"}',
    b'{"type":"response.output_text.delta","error":"%o","delta":"%s"}',
    b'{"type":"response.completed","response":{"usage":{"a":%n}},"delta":"%s"}',
)
SPELT = (b"3", b"17", b"0", b"-1", b"07", b"1.0", b"2.0", b"1e3", b"true", b"null", b"", b"1 ")
NUMBERS = (*SPELT, b"1" * 15, b"2" * 16, b"22" + b"3" * 14, b"9" * 5000)
NAMES = st.sampled_from([b"", b"", b"", b"event: response.output_text.delta\n", b"event: own\n"])


@st.composite
def bodies(draw: st.DrawFn, shapes: Sequence[bytes]) -> bytes:
    """A stream of few shapes, so that most events are like one before."""
    used = draw(st.lists(st.tuples(NAMES, st.sampled_from(shapes)), min_size=1, max_size=3))
    body = b""
    for name, shape in draw(st.lists(st.sampled_from(used), max_size=12)):
        said = shape.replace(b"%n", draw(st.sampled_from(NUMBERS))).replace(b"%o", draw(TEXTS))
        body += name + event(said.replace(b"%s", draw(TEXTS)))
    return body


def must_agree(quick: Scanner, reader: Scanner, pieces: list[bytes]) -> None:
    """Both let the same leave and learn the same, after each piece."""
    for piece in pieces:
        assert quick.feed(piece) == reader.feed(piece)
        assert learnt(quick) == learnt(reader)


PLACES = st.lists(st.integers(0, 2000), max_size=6)
HELLO, LONGER = (
    event(b'{"choices":[{"delta":{"content":"%s"}}]}' % text) for text in (b"a", b"\xc3\xa4bc")
)


@PATIENT
@given(bodies(CHATS), PLACES, st.booleans())
@example(HELLO * 2 + LONGER.replace(b"bc", b'b"},"finish_reason":"stop","a":{"b":"c'), [], True)
@example(HELLO * 2 + LONGER.replace(b"\xc3", b""), [], True)
@example(HELLO * 2 + LONGER.replace(b"b", b"\\"), [], True)
def test_no_chat_chunk_is_taken_for_what_it_is_not(
    body: bytes, places: list[int], keep_usage: bool
) -> None:
    """Whatever stands where a text is expected, all is learnt as by reading every chunk."""
    quick, reader = (each(keep_usage=keep_usage) for each in (ChatScanner, ReadChat))
    must_agree(quick, reader, cut(body, places))


@PATIENT
@given(bodies(RESPONSES), PLACES)
def test_no_event_of_a_response_is_taken_for_what_it_is_not(body: bytes, places: list[int]) -> None:
    """The same of Responses, with the numbers of the events."""
    must_agree(ResponsesScanner(), ReadResponses(), cut(body, places))


def filled(shape: bytes, number: bytes, text: bytes) -> bytes:
    """An event in which no text cheats; the random one is a number too."""
    return event(shape.replace(b"%n", number).replace(b"%o", number).replace(b"%s", text))


def new_scanners(chats: bool) -> tuple[Scanner, Scanner]:
    """One of the server's, and one that reads every event."""
    if chats:
        return ChatScanner(keep_usage=True), ReadChat(keep_usage=True)
    return ResponsesScanner(), ReadResponses()


@pytest.mark.parametrize("before", [*CHATS, *RESPONSES])
def test_every_shape_is_told_right_behind_every_other(before: bytes) -> None:
    """What was learnt from one event is not taken for what the next one says."""
    for shape in CHATS if before in CHATS else RESPONSES:
        quick, reader = new_scanners(before in CHATS)
        texts = [filled(shape, b"7", text) for text in (b"a", b"", b"b", b"cd")]
        must_agree(quick, reader, [filled(before, b"3", b"a"), *texts])


@pytest.mark.parametrize("shape", [shape for shape in RESPONSES if b"%n" in shape])
def test_every_number_is_told_right_behind_every_other(shape: bytes) -> None:
    """The number that comes next is right, however numbers are written."""
    for numbers in product(NUMBERS, NUMBERS):
        pieces = [filled(shape, number, b"a") for number in (*numbers, *numbers)]
        must_agree(ResponsesScanner(), ReadResponses(), pieces)


FILLINGS = (b"ab", b"", b"c", b"def")


@pytest.mark.parametrize("odd", [None, b"\\n", b'"', b"\xc3\xa4", b"\xff", b"x" * 300])
@pytest.mark.parametrize("shape", [*CHATS, *RESPONSES])
def test_a_run_is_told_as_its_events_are(shape: bytes, odd: bytes | None) -> None:
    """Many in one feed, one of them odd, or longer than an event may be; and one cut off."""
    events = [filled(shape, b"3", text) for text in FILLINGS * 3]
    if odd is not None:
        events[5] = filled(shape, b"3", odd)
    for limit, before in product((1 << 20, 300), (0, 1)):
        quick, reader = new_scanners(shape in CHATS)
        quick._limit = reader._limit = limit
        many = b"".join(events[before:]) + events[1][:-9]
        must_agree(quick, reader, [*events[:before], many, events[1][-9:]])


@pytest.mark.parametrize(
    ("text", "run", "values"),
    [
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":""}', b'{"a":"z"}'], [b"y", b"", b"z"]),
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":"z"} ', b'{"a":"z"}'], [b"y"]),
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":"z', b""], [b"y"]),
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":"}'], [b"y"]),
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":"\xc3\xa4"}'], []),
        (b'{"a":"x"}', [b'{"a":"y"}', b'{"a":"\\n"}'], []),
        (b'{"a":"x"}', [b'{"b":"y"}', b'{"a":"y"}'], []),
        (b'{"a":3}', [b'{"a":1}', b'{"a":2}'], []),
        (b'{"a":"x","b":"x"}', [b'{"a":"y","b":"z"}'], []),
    ],
)
def test_a_run_is_as_long_as_its_texts_are_alike(
    text: bytes, run: list[bytes], values: list[bytes]
) -> None:
    """It ends before the first that is not; one that may not be leaves all to be told singly."""
    alike = Alike.of(text, b"a", b"b")
    assert alike is not None
    assert alike.run(run) == values


@PATIENT
@given(bodies(CHATS))
def test_each_event_by_itself_and_all_at_once_come_to_the_same(body: bytes) -> None:
    """A feed of many events is told as many feeds of one."""
    single, whole = ChatScanner(keep_usage=True), ChatScanner(keep_usage=True)
    events = [part + b"\n\n" for part in body.split(b"\n\n")[:-1]]
    assert sent(single, events) == whole.feed(body)
    assert learnt(single) == learnt(whole)


def test_deltas_are_told_without_being_read() -> None:
    """The control: of fifty words only the first is read, and what differs otherwise."""
    scanner = CountedChat(keep_usage=False)
    words = [HELLO.replace(b'"a"', b'"%d"' % number) for number in range(50)]
    assert sent(scanner, [*words, *STREAM[3:]]) == b"".join(words) + STREAM[3] + DONE
    assert (scanner.deltas, scanner.read) == (50, 1 + 3)


def test_deltas_of_a_response_are_told_without_being_read() -> None:
    """The same of Responses: the second delta of the one text, whose number is another."""
    scanner = CountedResponses()
    events, deltas, size = STREAMS["text"]
    sent(scanner, events)
    assert (scanner.deltas, scanner.text_bytes) == (deltas, size)
    assert (scanner.next_number, scanner.read) == (len(events), len(events) - 1)


@pytest.mark.parametrize(
    ("text", "other", "values"),
    [
        (b'{"a":"x","b":1}', b'{"a":"","b":23}', {b"a": b"", b"b": b"23"}),
        (b'{"b": 1, "a": "x"}', b'{"b": 0, "a": "\xc3\xa4"}', {b"b": b"0", b"a": b"\xc3\xa4"}),
        (b'{"a":"x","b":null}', b'{"a":"y","b":null}', {b"a": b"y"}),
        (b'{"a":"x","b":null}', b'{"a":"y","b":1}', None),
        (b'{"a":"x","b":1}', b'{"a":"x","b":01}', None),
        (b'{"a":"x","b":1}', b'{"a":"x","b":1.5}', None),
        (b'{"a":"x","b":1}', b'{"a":"x","b":}', None),
        (b'{"a":"x","b":1}', b'{"a":"x","b":1} ', None),
        (b'{"a":"x"}', b'{"a":"x","a":"y"}', None),
        (b'{"a":"x"}', b'{"a":"\\n"}', None),
        (b'{"a":"x"}', b'{"a":"\n"}', None),
        (b'{"a":"x"}', b'{"a":"\xed\xa0\x80"}', None),
        (b'{"a":"x"}', b'{"a":"y', None),
        (b'{"a":"x"}', b"", None),
    ],
)
def test_values_are_told_only_where_nothing_else_differs(
    text: bytes, other: bytes, values: dict[bytes, bytes] | None
) -> None:
    """A value of another kind, or bytes that are no JSON, are not alike."""
    alike = Alike.of(text, b"a", b"b")
    assert alike is not None
    assert alike.values(other) == values


@pytest.mark.parametrize(
    "text", [b'{"a":"x","a":"y"}', b'{"a":"x","b":"a"}', b'{"\\u0061":"x"}', b'{"a":"\\n"}']
)
def test_a_name_that_may_stand_twice_tells_nothing(text: bytes) -> None:
    """Which of two values counts, only a reader knows."""
    assert Alike.of(text, b"a") is None
