"""What leaves a scanned stream, what fails it, and what is learnt from it."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completions.grammars import ChatScanner
from tests.completions.chat_stream import (
    DONE,
    HELLO,
    ONLY_USAGE,
    STREAM,
    USAGE,
    ZERO,
    chunk,
    cut,
    event,
    learnt,
    says,
    sent,
)

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_an_event_leaves_in_the_feed_that_ends_it() -> None:
    """The usual event leaves at once; the rest of a feed waits for its own end."""
    scanner = ChatScanner(keep_usage=False)
    assert [scanner.feed(piece) for piece in STREAM[:4]] == list(STREAM[:4])
    assert scanner.feed(HELLO + HELLO[:9]) == HELLO
    assert scanner.waiting == 9
    assert scanner.feed(HELLO[9:-1]) == b""
    assert scanner.feed(b"\n" + HELLO) == HELLO + HELLO


def test_a_usage_only_chunk_leaves_only_if_it_was_asked_for() -> None:
    """It is read either way; no other chunk is held back, whatever it carries."""
    body = b"".join(STREAM)
    asked, unasked = ChatScanner(keep_usage=True), ChatScanner(keep_usage=False)
    assert (asked.feed(body), asked.usage) == (body, USAGE)
    assert (unasked.feed(body), unasked.usage) == (body.replace(ONLY_USAGE, b""), USAGE)
    others = event(chunk(choices=[], prompt_filter_results=[], usage=None)) + event(b"{}")
    others += event(chunk(usage=USAGE)) + event(chunk(choices=[{"delta": {}}], usage=ZERO))
    assert (unasked.feed(others), unasked.usage) == (others, ZERO)


def test_a_stream_is_learnt_from() -> None:
    """The attributes of a whole, ordinary stream."""
    scanner = ChatScanner(keep_usage=False)
    sent(scanner, STREAM)
    assert learnt(scanner) == {
        **{"usage": USAGE, "usage_is_final": True},
        **{"deltas": 2, "text_bytes": len("Hello wörld 👋".encode())},
        **{"finished": True, "done": True, "failed": False, "broken": False, "waiting": 0},
        "error_code": None,
    }


ENDING = chunk(choices=[{"delta": {"content": "!"}, "finish_reason": "stop"}], usage=USAGE)
RUNNING = chunk(choices=[{"delta": {"content": "!"}}], usage=USAGE)


@pytest.mark.parametrize(
    ("pieces", "final"),
    [
        ([HELLO, event(says("stop")), ONLY_USAGE], True),
        ([HELLO, event(ENDING)], True),
        ([HELLO, event(RUNNING), event(RUNNING)], False),
        ([HELLO, event(RUNNING), event(says("stop"))], False),
        ([HELLO, event(RUNNING), event(says("stop")), ONLY_USAGE], True),
        ([HELLO, ONLY_USAGE], False),
        ([HELLO, ONLY_USAGE, DONE], True),
        ([HELLO, event(says("stop")), DONE], False),
        ([DONE], False),
    ],
)
def test_usage_is_final_when_nothing_is_written_after_it(pieces: list[bytes], final: bool) -> None:
    """Some servers tell what was used so far with every chunk: only the last word is a bill."""
    scanner = ChatScanner(keep_usage=False)
    sent(scanner, pieces)
    assert scanner.usage_is_final is final


@pytest.mark.parametrize(
    ("said", "usage", "size", "finished"),
    [
        ({"choices": [{"message": {"content": "é"}, "finish_reason": "stop"}]}, None, 2, True),
        ({"choices": [{"message": {"content": "ab"}}], "usage": USAGE}, USAGE, 2, False),
        ({"choices": [{"delta": {"content": "ab"}}], "usage": ZERO}, ZERO, 0, False),
        ({"choices": "none", "usage": 7}, None, 0, False),
        ({}, None, 0, False),
    ],
)
def test_an_answer_in_one_piece_is_learnt_from_too(
    said: dict[str, Any], usage: dict[str, int] | None, size: int, finished: bool
) -> None:
    """Its text stands in messages, its usage is final, and it may lack either."""
    scanner = ChatScanner(keep_usage=False)
    scanner.take_whole(said)
    assert (scanner.usage, scanner.usage_is_final) == (usage, usage is not None)
    assert (scanner.text_bytes, scanner.deltas) == (size, int(size > 0))
    assert scanner.finished is finished


@pytest.mark.parametrize(
    ("delta", "size"),
    [
        ({"content": "ab"}, 2),
        ({"refusal": "é"}, 2),
        ({"reasoning_content": "€"}, 3),
        ({"reasoning": "👋"}, 4),
        ({"reasoning": "same", "reasoning_content": "same"}, 4),
        ({"reasoning": "one", "reasoning_content": "other", "content": "!"}, 9),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": {}}]}, 3),
        ({"content": "\ud800"}, 3),
        ({"tool_calls": [{"id": "call_7", "function": {"name": "f", "arguments": ""}}]}, 7),
        ({"content": "", "refusal": None, "tool_calls": None}, 0),
        ({"content": ["x"], "reasoning": 7, "tool_calls": ["x", {"function": "x"}]}, 0),
        ({"role": "assistant"}, 0),
    ],
)
def test_output_text_is_counted_in_bytes(delta: dict[str, Any], size: int) -> None:
    """Every kind of text counts, also a lone surrogate; an event without text is no delta."""
    scanner = ChatScanner(keep_usage=False)
    data = event(json.dumps({"choices": [{"delta": delta}]}).encode())
    assert scanner.feed(data) == data
    assert (scanner.text_bytes, scanner.deltas) == (size, int(size > 0))


def test_several_choices_in_one_event_are_one_delta() -> None:
    """Their text adds up."""
    scanner = ChatScanner(keep_usage=False)
    scanner.feed(event(chunk(choices=[{"delta": {"content": "ab"}}] * 3)))
    assert (scanner.text_bytes, scanner.deltas) == (6, 1)


WORDS = st.sampled_from(
    ["choices", "delta", "content", "tool_calls", "function", "name", "usage", "finish_reason"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
)


@PATIENT
@given(st.dictionaries(WORDS, JSON))
def test_objects_of_any_shape_pass_unchanged(said: dict[str, Any]) -> None:
    """What is not understood is not counted and not stopped."""
    data, scanner = event(json.dumps(said).encode()), ChatScanner(keep_usage=True)
    assert scanner.feed(data) == data
    assert not scanner.failed
    usage = said.get("usage")
    assert scanner.usage == (usage if isinstance(usage, dict) else None)


@PATIENT
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"{}"])))
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    """What leaves is always the beginning of what came."""
    assert b"".join(pieces).startswith(sent(ChatScanner(keep_usage=True), pieces))


@pytest.mark.parametrize(
    ("failure", "broken"),
    [
        (event(chunk(error={"message": "overloaded"})), False),
        (event(chunk(error="overloaded", choices=[])), False),
        (event(chunk(error={})), False),
        (b"event: error\ndata: overloaded\n\n", False),
        (b"event: error\n\n", False),
        (b"event: own\n" + event(chunk(error="overloaded")), False),
        (event(b"<html>"), True),
        (event(b""), True),
        (event(b"[]"), True),
        (event(b"null"), True),
        (event(b" [DONE]"), True),
        (b'data: {"a": 1\ndata: 2}\n\n', True),
        (event(b'{"choices":'), True),
        (event(b'{"a": "\xff"}'), True),
        (event('{"a": 1}'.encode("utf-16-le")), True),
        (event(b'{"a":' * 100_000), True),
        (event(b'{"a": ' + b"9" * 5000 + b"}"), True),
        (b"event: message\n" + event(b"no"), True),
    ],
)
def test_a_failure_ends_the_stream_after_the_whole_events_before_it(
    failure: bytes, broken: bool
) -> None:
    """It does not leave itself, and nothing behind it is read."""
    for pieces in ([HELLO + failure + ONLY_USAGE], [HELLO, failure, ONLY_USAGE + DONE]):
        scanner = ChatScanner(keep_usage=True)
        assert sent(scanner, pieces) == HELLO
        assert (scanner.failed, scanner.broken, scanner.deltas) == (True, broken, 1)
        assert (scanner.usage, scanner.done, scanner.waiting) == (None, False, 0)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (
            event(chunk(error={"message": "no", "code": "rate_limit_exceeded"})),
            "rate_limit_exceeded",
        ),
        (b'event: error\ndata: {"message":"no","code":"boom"}\n\n', "boom"),
        (event(chunk(error={"code": 429})), None),
        (event(chunk(error="overloaded")), None),
        (event(b"<html>"), None),
    ],
)
def test_what_upstream_calls_an_error_is_kept(failure: bytes, code: str | None) -> None:
    """So that whoever tells the visitor may know whose fault it was."""
    scanner = ChatScanner(keep_usage=True)
    sent(scanner, [HELLO, failure])
    assert (scanner.failed, scanner.error_code) == (True, code)


def test_an_error_frame_may_still_tell_the_usage() -> None:
    """What was charged is known even if the stream fails."""
    scanner = ChatScanner(keep_usage=True)
    assert scanner.feed(event(chunk(error="cut", usage=USAGE))) == b""
    assert (scanner.failed, scanner.usage) == (True, USAGE)


@pytest.mark.parametrize(
    "passes",
    [
        *(b": comment\n\n", b"event: own\ndata: no json\n\n", b"event: own\n\n", b"id: 1\n\n"),
        *(b"\n", b"\r", b"\r\n\r\n", b"data\n: c\n\n"[4:], b"Data: no field\n\n", b" data: x\n\n"),
        *(event(chunk(error=None)), event(chunk(error=False)), b"data: [DONE] \n\n"),
        *(b"data: {}\r: comment\n\n", b"data: {}\r: comment\n\r\n"),
    ],
)
def test_comments_and_foreign_events_pass_unchanged(passes: bytes) -> None:
    """Only an unnamed event's data has to be a chunk."""
    for pieces in ([passes + HELLO], [passes, HELLO], [HELLO, passes]):
        scanner = ChatScanner(keep_usage=False)
        assert sent(scanner, pieces) == b"".join(pieces)
        assert not scanner.failed


def test_what_waits_belongs_to_the_event_that_follows() -> None:
    """A feed that looks like an event is the end of one if something waits before it."""
    scanner = ChatScanner(keep_usage=False)
    assert [scanner.feed(piece) for piece in (b": c\n", HELLO)] == [b"", b": c\n" + HELLO]
    assert [scanner.feed(piece) for piece in (b"event: error\n", HELLO)] == [b"", b""]
    assert scanner.failed


def test_a_byte_order_mark_is_one_at_the_start_only() -> None:
    """Later it is part of a field's name, which nobody knows."""
    mark = b"\xef\xbb\xbf"
    assert sent(ChatScanner(keep_usage=False), [mark + ONLY_USAGE]) == b""
    for start in (HELLO, HELLO * 2, b"\n"):
        scanner = ChatScanner(keep_usage=False)
        pieces = [start, mark + ONLY_USAGE, mark + b"\n", b"\n"]
        assert [scanner.feed(piece) for piece in pieces] == [*pieces[:2], b"", mark + b"\n\n"]


def test_the_line_feed_of_a_split_line_end_goes_the_way_of_its_event() -> None:
    """An event ended by \\r leaves at once, and a late \\n is left out if the event was."""
    scanner = ChatScanner(keep_usage=False)
    hello, usage = (text.replace(b"\n", b"\r\n") for text in (HELLO, ONLY_USAGE))
    assert [scanner.feed(piece) for piece in (hello[:-1], b"\n")] == [hello[:-1], b"\n"]
    assert [scanner.feed(piece) for piece in (usage[:-1], b"\n" + HELLO)] == [b"", HELLO]
    assert [scanner.feed(piece) for piece in (hello[:-1], b"\n", b"\n")][1:] == [b"\n", b"\n"]
    assert [scanner.feed(piece) for piece in (usage[:-1], HELLO, b"\n")] == [b"", HELLO, b"\n"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_beyond_the_limit_breaks_the_stream(end: bytes) -> None:
    """The limit holds for all before the blank line, in one feed and byte by byte."""
    fits = HELLO[:-2] + end
    for limit, broken in [(len(fits.rstrip()) + len(end) // 2, False), (len(fits.rstrip()), True)]:
        whole, single = [b"\n", fits, b": x"], [b"\n", *cut(fits, range(999)), b": x"]
        for pieces in ([b"".join(whole)], whole, single):
            scanner = ChatScanner(keep_usage=False, limit=limit)
            assert sent(scanner, pieces) == (b"\n" if broken else b"\n" + fits)
            assert (scanner.failed, scanner.broken) == (broken, broken)
            assert scanner.waiting == (0 if broken else 3)
