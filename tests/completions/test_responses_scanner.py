"""What leaves a scanned stream of Responses, what fails it, and what is learnt from it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.grammars import ChatScanner, ResponsesScanner, scanner_for
from tests.completions.chat_stream import cut, learnt, sent
from tests.completions.responses_stream import (
    BEGUN,
    CALL,
    DONE,
    FAILED,
    FLAT,
    NESTED,
    STREAMS,
    USAGE,
    ZERO,
    delta,
    ended,
    event,
    numbered,
)

HELLO = delta("Hello")
START = numbered(*BEGUN)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_whole_stream_leaves_as_it_came_and_is_learnt_from(kind: str) -> None:
    """Every kind of answer: its bytes, its deltas, its usage, and the number that comes next."""
    events, deltas, size = STREAMS[kind]
    scanner = ResponsesScanner()
    assert [scanner.feed(each) for each in events] == events
    assert learnt(scanner) == {
        **{"usage": USAGE, "usage_is_final": True, "deltas": deltas, "text_bytes": size},
        **{"finished": True, "done": True, "failed": False, "broken": False, "error_code": None},
        **{"next_number": len(events), "waiting": 0},
    }


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_line_ends_make_no_difference(kind: str, line_end: bytes) -> None:
    """The same is learnt whichever of the three ends the lines, byte by byte."""
    body = b"".join(STREAMS[kind][0])
    plain, other = ResponsesScanner(), ResponsesScanner()
    changed = body.replace(b"\n", line_end)
    assert sent(plain, [body]) == body
    assert sent(other, cut(changed, range(len(changed)))) == changed
    assert learnt(other) == learnt(plain)


def test_names_of_events_are_not_needed() -> None:
    """Some servers send data alone; what counts is the type that the data says."""
    body = b"".join(STREAMS["function call"][0])
    nameless = b"".join(line for line in body.splitlines(True) if not line.startswith(b"event:"))
    named, other = ResponsesScanner(), ResponsesScanner()
    assert sent(named, [body]) == body
    assert sent(other, [nameless]) == nameless
    assert learnt(other) == learnt(named)


def test_the_end_is_the_event_that_says_so() -> None:
    """A stream is done with response.completed or .incomplete; [DONE] ends nothing and passes."""
    for how in ("completed", "incomplete"):
        scanner = ResponsesScanner()
        assert scanner.feed(DONE) == DONE
        assert scanner.feed(HELLO) == HELLO
        assert (scanner.finished, scanner.done) == (False, False)
        scanner.feed(ended(how))
        assert (scanner.finished, scanner.done) == (True, True)
        assert scanner.feed(DONE) == DONE
        assert (scanner.done, scanner.failed, scanner.usage_is_final) == (True, False, True)


@pytest.mark.parametrize(
    ("events", "usage", "final"),
    [
        ([ended()], USAGE, True),
        ([ended("incomplete")], USAGE, True),
        ([ended(usage=ZERO)], ZERO, True),
        ([ended(usage=None)], None, False),
        ([ended(usage=[USAGE])], None, False),
        ([ended(), ended(usage=None)], USAGE, False),
        ([event("response.in_progress", response={"usage": USAGE})], None, False),
        ([event("response.completed", usage=USAGE)], None, False),
        ([event("response.completed", response=[USAGE])], None, False),
        ([event("response.failed", response={"usage": USAGE})], USAGE, False),
        ([event("response.failed", response={"usage": None})], None, False),
        ([FLAT], None, False),
        ([], None, False),
    ],
)
def test_usage_is_a_bill_only_where_the_response_ended(
    events: list[bytes], usage: Any, final: bool
) -> None:
    """What a failed response used is known, and is not taken for the whole of it."""
    scanner = ResponsesScanner()
    sent(scanner, [HELLO, *events])
    assert (scanner.usage, scanner.usage_is_final) == (usage, final)


@pytest.mark.parametrize(
    ("data", "deltas", "size"),
    [
        (delta("ab"), 1, 2),
        (delta("é", "refusal"), 1, 2),
        (delta("€", "reasoning_text"), 1, 3),
        (delta("{}", "function_call_arguments"), 1, 2),
        (delta("x", "a_kind_of_tomorrow"), 1, 1),
        (delta("digest", "reasoning_summary_text"), 0, 6),
        (delta(""), 0, 0),
        (delta(None), 0, 0),
        (delta(["x"]), 0, 0),
        (event("response.output_text.delta"), 0, 0),
        (event("response.output_text.done", text="again"), 0, 0),
        (event("response.output_item.added", item=CALL), 1, len("call_77look")),
        (event("response.output_item.done", item=CALL), 0, 0),
        (event("response.output_item.added", item=None), 0, 0),
        (event("response.output_item.added", item={"call_id": 7, "name": ["x"]}), 0, 0),
        (b'data: {"type":"response.output_text.delta","delta":"\\ud800"}\n\n', 1, 3),
    ],
)
def test_output_text_is_counted_in_bytes(data: bytes, deltas: int, size: int) -> None:
    """Each kind of text counts once, as it comes; a summary of thoughts is bytes and no delta."""
    scanner = ResponsesScanner()
    assert scanner.feed(data) == data
    assert (scanner.deltas, scanner.text_bytes) == (deltas, size)


@pytest.mark.parametrize(
    ("answer", "usage", "size"),
    [
        ({"output": [{"content": [{"text": "é"}, {"refusal": "no"}]}], "usage": USAGE}, USAGE, 4),
        ({"output": [{**CALL, "arguments": "{}"}]}, None, len("call_77look{}")),
        ({"output": [{"type": "reasoning", "content": [{"text": "Hm"}]}]}, None, 2),
        ({"output": [{"type": "reasoning", "summary": [{"text": "Hm"}]}]}, None, 2),
        ({"output": [{"content": "x"}, "x", 7], "usage": 7}, None, 0),
        ({"output": "x", "usage": ZERO}, ZERO, 0),
        ({}, None, 0),
    ],
)
def test_an_answer_in_one_piece_is_learnt_from_too(
    answer: dict[str, Any], usage: Any, size: int
) -> None:
    """Its text stands in its items, its usage is final, and it may lack either."""
    scanner = ResponsesScanner()
    scanner.take_whole(answer)
    assert (scanner.usage, scanner.usage_is_final) == (usage, usage is not None)
    assert (scanner.text_bytes, scanner.deltas) == (size, int(size > 0))


@pytest.mark.parametrize(
    ("events", "number"),
    [
        ([], 0),
        (START, 2),
        ([b": comment\n\n", *START, b"id: 1\n\n"], 2),
        ([HELLO, HELLO], 2),
        ([delta("a", number=7)], 8),
        ([delta("a", number=7), HELLO], 9),
        ([*START, FAILED], 2),
        ([*START, FLAT], 2),
        ([*START, NESTED], 2),
        ([event("response.created", 4), event("x", sequence_number="9")], 6),
    ],
)
def test_the_next_number_follows_the_last_event_that_left(events: list[bytes], number: int) -> None:
    """Counted where upstream does not say it; an event that never left takes none."""
    scanner = ResponsesScanner()
    sent(scanner, events)
    assert scanner.next_number == number


@pytest.mark.parametrize(
    ("failure", "broken", "code"),
    [
        (FAILED, False, "server_error"),
        (FLAT, False, "server_error"),
        (NESTED, False, "boom"),
        (event("error"), False, None),
        (event("error", code=7, error={"code": ["x"]}), False, None),
        (b"event: error\n\n", False, None),
        (b"event: error\ndata: overloaded\n\n", False, None),
        (b'data: {"error":{"message":"of another API","code":"boom"}}\n\n', False, "boom"),
        (b'data: {"error":"overloaded"}\n\n', False, None),
        (event("response.output_text.delta", delta="x", error={}), False, None),
        (b"data: <html>\n\n", True, None),
        (b"event: response.output_text.delta\ndata: {\n\n", True, None),
        (b"event: ping\ndata: no JSON\n\n", True, None),
        (b"data: []\n\n", True, None),
        (b"data: null\n\n", True, None),
        (b"data:\n\n", True, None),
        (b'data: {"a": "\xff"}\n\n', True, None),
        (b"data: " + b'{"a":' * 100_000 + b"\n\n", True, None),
    ],
)
def test_a_failure_ends_the_stream_after_the_whole_events_before_it(
    failure: bytes, broken: bool, code: str | None
) -> None:
    """It does not leave itself, nothing behind it is read, and upstream's code for it is kept."""
    for pieces in ([HELLO + failure + ended()], [HELLO, failure, ended()]):
        scanner = ResponsesScanner()
        assert sent(scanner, pieces) == HELLO
        assert (scanner.failed, scanner.broken, scanner.deltas) == (True, broken, 1)
        assert (scanner.usage, scanner.done, scanner.waiting) == (None, False, 0)
        assert scanner.error_code == code


@pytest.mark.parametrize(
    "passes",
    [
        *(b": comment\n\n", b"event: own\n\n", b"id: 1\n\n", b"\n", b"\r\n\r\n", DONE),
        *(b"event: ping\ndata: {}\n\n", b'data: {"type": null, "error": null}\n\n'),
        event("keepalive", 5),
        event("response.of.tomorrow", 5, text="not output", error=None),
        event("response.completed", 5, response={"error": None, "usage": None}),
    ],
)
def test_comments_and_foreign_events_pass_unchanged(passes: bytes) -> None:
    """An event of a type that nobody knows yet is passed on and not counted."""
    for pieces in ([passes + HELLO], [passes, HELLO], [HELLO, passes]):
        scanner = ResponsesScanner()
        assert sent(scanner, pieces) == b"".join(pieces)
        assert (scanner.failed, scanner.deltas, scanner.text_bytes) == (False, 1, 5)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_beyond_the_limit_breaks_the_stream(end: bytes) -> None:
    """The limit holds here as it does for chats, in one feed and byte by byte."""
    fits = HELLO.replace(b"\n\n", end)
    size = len(fits) - len(end) // 2
    for limit, broken in [(size, False), (size - 1, True)]:
        for pieces in ([fits], cut(fits, range(len(fits)))):
            scanner = ResponsesScanner(limit=limit)
            assert sent(scanner, pieces) == (b"" if broken else fits)
            assert (scanner.failed, scanner.broken) == (broken, broken)


WORDS = st.sampled_from(["type", "response", "usage", "item", "delta", "name", "sequence_number"])
KINDS = st.sampled_from(["response.completed", "response.output_item.added", "response.x.delta"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
)


@given(st.dictionaries(WORDS, JSON))
def test_objects_of_any_shape_pass_unchanged(value: dict[str, Any]) -> None:
    """What is not understood is not counted and not stopped, and never raises."""
    data, scanner = b"data: " + json.dumps(value).encode() + b"\n\n", ResponsesScanner()
    assert scanner.feed(data) == data
    assert not scanner.failed


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"{}"])))
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    """What leaves is always the beginning of what came."""
    assert b"".join(pieces).startswith(sent(ResponsesScanner(), pieces))


def test_each_api_has_its_scanner() -> None:
    """By the address at upstream's; only chats have a chunk of usage to hold back."""
    for keep_usage in (True, False):
        assert isinstance(scanner_for("responses", keep_usage=keep_usage), ResponsesScanner)
        assert isinstance(scanner_for("chat/completions", keep_usage=keep_usage), ChatScanner)
