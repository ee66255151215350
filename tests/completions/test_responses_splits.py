"""However a stream of Responses is split, the same leaves and the same is learnt."""

import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions.grammars import ResponsesScanner
from tests.completions.chat_stream import cut, learnt, sent
from tests.completions.responses_stream import (
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
)

# On a fresh machine the first text waits for the tables of Unicode to be built.
PATIENT = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=8) | st.sampled_from(["\n\ndata: [DONE]\n\n", "\r", "\u2028", "a, b"])
NUMBER = st.none() | st.integers(0, 9)
EVENTS = st.one_of(
    st.builds(delta, TEXT, st.sampled_from(["output_text", "refusal", "reasoning_text"]), NUMBER),
    st.builds(ended, st.sampled_from(["completed", "incomplete"]), NUMBER),
    st.builds(ended, usage=st.sampled_from([None, ZERO])),
    st.sampled_from([event("response.output_item.added", 3, item=CALL), event("own"), DONE]),
    st.sampled_from([b": comment\n\n", b"id: 7\n\n", b"\n", b"event: own\n\n"]),
    st.builds(delta, TEXT).map(lambda data: data.partition(b"\n")[2]),  # without its name
)
FAILURES = [FAILED, FLAT, NESTED, b"event: error\n\n", b"data: no JSON\n\n", b"data: [1]\n\n"]
BODIES = st.tuples(
    st.lists(EVENTS, max_size=6).map(b"".join),
    st.sampled_from([b"", b"", *FAILURES]),
    st.lists(EVENTS, max_size=1).map(b"".join),
    st.sampled_from([b"", b"data: {", b": half"]),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
).map(lambda parts: b"".join(parts[:-1]).replace(b"\n", parts[-1]))
PLACES = st.lists(st.integers(0, 2000), max_size=12)


def expected(body: bytes) -> tuple[bytes, dict[str, Any]]:
    """What a whole body must come to, read event by event, for those that `BODIES` makes."""
    line_end = next((end for end in (b"\r\n", b"\r", b"\n") if end in body), b"\n")
    result: dict[str, Any] = {"usage": None, "deltas": 0, "text_bytes": 0, "next_number": 0}
    result |= dict.fromkeys(("finished", "done", "failed", "broken", "usage_is_final"), False)
    result |= {"error_code": None, "waiting": 0}
    *lines, rest = body.split(line_end)
    leaves, raw, fields = b"", b"", {b"event": b"", b"data": b""}
    for line in lines:
        raw += line + line_end
        if line:
            field, _, value = line.partition(b": ")
            fields[field] = value
            continue
        if not take(fields[b"event"], fields[b"data"], result):
            return leaves, result
        leaves, raw, fields = leaves + raw, b"", {b"event": b"", b"data": b""}
    return leaves, result | {"waiting": len(raw) + len(rest)}


def take(name: bytes, data: bytes, result: dict[str, Any]) -> bool:
    """Add what an event says to the result, and tell whether it leaves."""
    said = json.loads(data) if data.startswith(b"{") else {}
    if name == b"error" or said.get("type") == "response.failed":
        error = said.get("response", said).get("error") or said
        result |= {"failed": True, "error_code": error.get("code")}
        result["usage_is_final"] &= name == b"error"
        return False
    if not data or data == b"[DONE]":
        return True
    if not said:
        result |= {"failed": True, "broken": True}
        return False
    count(said, result)
    return True


def count(said: dict[str, Any], result: dict[str, Any]) -> None:
    """Add what a good event says."""
    kind = said["type"]
    if kind in ("response.completed", "response.incomplete"):
        told = said["response"]["usage"] is not None
        result["usage"] = said["response"]["usage"] or result["usage"]
        result |= {"finished": True, "done": True, "usage_is_final": told}
    item = said["item"] if kind == "response.output_item.added" else {}
    text = str(said.get("delta", "")) + item.get("call_id", "") + item.get("name", "")
    result["text_bytes"] += len(text.encode("utf-8", "surrogatepass"))
    result["deltas"] += bool(text)
    result["next_number"] = said.get("sequence_number", result["next_number"]) + 1


@PATIENT
@given(BODIES, PLACES)
@example(b"".join(STREAMS["text"][0]).replace(b"\n", b"\r\n"), list(range(9000)))
@example(b"".join(STREAMS["function call"][0]) + FAILED, list(range(9000)))
def test_no_split_changes_what_leaves_or_what_is_learnt(body: bytes, places: list[int]) -> None:
    """Any pieces come to what the body says as a whole, and a failing event never leaves."""
    scanner = ResponsesScanner()
    leaves, result = expected(body)
    assert sent(scanner, cut(body, places)) == leaves
    assert learnt(scanner) == result


@PATIENT
@given(BODIES)
def test_nothing_waits_longer_than_it_must(body: bytes) -> None:
    """Fed byte by byte, all whole events have left after each byte."""
    scanner, left = ResponsesScanner(), b""
    for end in range(1, len(body) + 1):
        left += scanner.feed(body[end - 1 : end])
        if body[end - 1 : end + 1] != b"\r\n":  # whose second half may come late
            assert left == expected(body[:end])[0]


def test_every_whole_stream_is_read_in_the_same_way() -> None:
    """The reader of these tests agrees with the tables of the others, so both can be wrong only
    together."""
    for events, deltas, size in STREAMS.values():
        if b"summary" not in b"".join(events):
            leaves, result = expected(b"".join(events))
            assert leaves == b"".join(events)
            assert (result["deltas"], result["text_bytes"]) == (deltas, size)
            assert (result["usage"], result["next_number"]) == (USAGE, len(events))
