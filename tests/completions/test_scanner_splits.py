"""However a stream's bytes are split, the same leaves and the same is learnt."""

import json
import re
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions.grammars import ChatScanner
from tests.completions.chat_stream import (
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


class Naive:
    """The control: looks at each feed as if events never were split between two."""

    def feed(self, data: bytes) -> bytes:
        """Return the feed's events but those with usage only."""
        events = data.split(b"\n\n")
        return b"\n\n".join(one for one in events if b'"choices": []' not in one)


def expected(body: bytes, *, keep_usage: bool) -> tuple[bytes, dict[str, Any]]:
    """What a whole body must come to, read line by line, for the events that `BODIES` makes."""
    result = {"usage": None, "deltas": 0, "text_bytes": 0, "finished": False, "done": False}
    result |= {"failed": False, "broken": False, "usage_is_final": False, "error_code": None}
    leaves, raw, fields = b"", body[: len(BOM)] if body.startswith(BOM) else b"", {b"data": b""}
    rest = body[len(raw) :]
    while line := re.match(rb"([^\r\n]*)(\r\n|\r|\n)", rest):
        rest, raw = rest[line.end() :], raw + line[0]
        if line[1]:
            field, _, value = line[1].partition(b":")
            value = value.removeprefix(b" ")
            fields[field] = fields[field] + value + b"\n" if field == b"data" else value
            continue
        name, data, dropped = fields.get(b"event", b""), fields[b"data"][:-1], False
        said = said_in(data)
        if name == b"error" or (said and "error" in said):
            return leaves, result | {"failed": True, "waiting": 0}
        if said:
            dropped = "usage" in said and not said["choices"] and not keep_usage
            count(said, result)
        elif data.startswith(b"[DONE]"):
            result |= {"done": True, "usage_is_final": result["usage"] is not None}
        elif data and name in {b"", b"message"}:
            return leaves, result | {"failed": True, "broken": True, "waiting": 0}
        leaves, raw, fields = leaves + (b"" if dropped else raw), b"", {b"data": b""}
    return leaves, result | {"waiting": len(raw) + len(rest)}


def said_in(data: bytes) -> dict[str, Any]:
    """The object in the data, empty if there is none."""
    try:
        value = json.loads(data.decode())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def count(said: dict[str, Any], result: dict[str, Any]) -> None:
    """Add what a chunk says to the result."""
    text = "".join(choice["delta"].get("content") or "" for choice in said["choices"])
    size = len(text.encode("utf-8", "surrogatepass"))
    result["usage"] = said.get("usage", result["usage"])
    result["text_bytes"] += size
    result["deltas"] += bool(size)
    result["finished"] |= any(choice["finish_reason"] for choice in said["choices"])
    if "usage" in said:
        result["usage_is_final"] = result["finished"]


LONE_SURROGATE = rb'{"choices": [{"delta": {"content": "\ud800"}, "finish_reason": null}]}'
BOM = b"\xef\xbb\xbf"
TEXT = st.text(max_size=8) | st.sampled_from(["\n\ndata: [DONE]\n\n", "\r", "\u2028", "a, b"])
CHUNKS = st.one_of(
    TEXT.map(lambda text: says(content=text)),
    TEXT.map(lambda text: chunk(choices=[{"delta": {"content": text}, "finish_reason": "stop"}])),
    st.sampled_from([says(role="assistant", content=None), b"[DONE]", says("length")]),
    st.sampled_from([chunk(choices=[], usage=USAGE), chunk(choices=[], usage=ZERO)]),
    st.sampled_from(
        [chunk(choices=[]), LONE_SURROGATE, says(content="x").replace(b", ", b",\n", 1)]
    ),
)
FAILURES = st.sampled_from([chunk(error={"message": "no"}), b"no json", b"[1]", b"{", b"\xff"])
DATA_FIELD = st.sampled_from([b"data: ", b"data:"])
OTHER_LINES = st.sampled_from(
    [b": comment", b":", b"id: 7", b"retry: 10", b"event: message", b"event:", b"event: own"]
)
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def events(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> bytes:
    """One event, in any of the spellings that the grammar has."""
    others = draw(st.lists(OTHER_LINES, max_size=2))
    field, line_end = draw(DATA_FIELD), draw(LINE_END)
    lines = [field + line for line in draw(data).split(b"\n")] if draw(st.integers(0, 5)) else []
    return b"".join(line + line_end for line in [*others, *lines]) + draw(LINE_END)


BODIES = st.tuples(
    st.sampled_from([b"", b"", BOM]),
    st.lists(st.one_of(events(CHUNKS), CHUNKS.map(event)), max_size=6).map(b"".join),
    st.just(b"") | events(FAILURES) | st.just(b"event: error\ndata: {}\n\n"),
    st.lists(events(CHUNKS), max_size=1).map(b"".join),
    st.sampled_from([b"", b"data: {", b"data: [DONE]\n", b": half"]),
).map(b"".join)
PLACES = st.lists(st.integers(0, 2000), max_size=12)


@PATIENT
@given(BODIES, PLACES, st.booleans())
@example(b": a\r\r\n\n", [5], True)
@example(b": a\r\r: b\n\n", [8], True)
@example(b"".join(STREAM).replace(b"\n", b"\r\n"), list(range(2000)), False)
def test_no_split_changes_what_leaves_or_what_is_learnt(
    body: bytes, places: list[int], keep_usage: bool
) -> None:
    """Any pieces come to what the body says as a whole."""
    scanner = ChatScanner(keep_usage=keep_usage)
    leaves, result = expected(body, keep_usage=keep_usage)
    assert sent(scanner, cut(body, places)) == leaves
    assert learnt(scanner) == result


@PATIENT
@given(BODIES, st.booleans())
@example(BOM + b"\n\r\n: a\r\r\n", True)
def test_nothing_waits_longer_than_it_must(body: bytes, keep_usage: bool) -> None:
    """Fed byte by byte, all whole events have left after each byte."""
    scanner, left = ChatScanner(keep_usage=keep_usage), b""
    for end in range(1, len(body) + 1):
        left += scanner.feed(body[end - 1 : end])
        assert left == expected(body[:end], keep_usage=keep_usage)[0]


def test_a_naive_scanner_fails_where_this_one_does_not() -> None:
    """The control agrees on whole events and differs on a split, so the promises can fail."""
    body = b"".join(STREAM)
    wanted = body.replace(ONLY_USAGE, b"")
    halves = cut(body, [body.index(ONLY_USAGE) + 9])
    assert sent(Naive(), [body]) == sent(ChatScanner(keep_usage=False), [body]) == wanted
    assert sent(ChatScanner(keep_usage=False), halves) == wanted
    assert sent(Naive(), halves) != wanted
