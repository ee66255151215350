"""Upstream misbehaves in the middle of a stream, or in what it says that it cost."""

import json
from typing import Any, Final

from attacks.case import Case, Outcome, has_header, tells
from attacks.headings.upstream import KEY, LEAKS, SAID, Say, says
from attacks.rogue import Forever, Keep, Reply, Step, events, stream

ERROR: Final = {"message": f"{SAID} {KEY}", "code": "x"}


def responses_event(kind: str, **said: Any) -> bytes:
    """An event of Responses."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode()


def fails_softly(_: Case, outcome: Outcome) -> str | None:
    """A stream that went wrong ends without an error frame, or as if it were well."""
    body = outcome.answers[0].body
    if outcome.answers[0].status != 200:
        return None
    if b"[DONE]" in body:
        return "a broken stream ends with [DONE]"
    return None if b'"error"' in body else "a broken stream ends without an error"


def streams(*pieces: bytes) -> Reply:
    """A stream of these pieces."""
    return [stream(b"".join(pieces)), Keep()]


def begins(*steps: Step) -> Reply:
    """A stream whose end is that of its connection."""
    return [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *steps]


def event(text: str) -> bytes:
    """One delta."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


STREAMS = [
    says(
        "an error in the middle",
        "with the key in it: replaced by ours",
        streams(event("a"), f'data: {{"error":{{"message":"{SAID} {KEY}"}}}}\n\n'.encode()),
        "200",
        harm=LEAKS,
        also=(fails_softly,),
        control=True,
        peers=True,
    ),
    says(
        "an error in the middle, Responses",
        "with the key in it",
        streams(responses_event("error", error=ERROR)),
        "200",
        harm=LEAKS,
        also=(fails_softly,),
        responses=True,
    ),
    says(
        "a failed response",
        "response.failed with the key in it",
        streams(responses_event("response.failed", response={"status": "failed", "error": ERROR})),
        "200",
        harm=LEAKS,
        also=(fails_softly,),
        responses=True,
    ),
    says(
        "a stream that stops",
        "one delta, no end",
        begins(event("a")),
        "200",
        harm=fails_softly,
        control=True,
    ),
    says("an empty stream", "no event at all", streams(b""), "200", harm=fails_softly),
    says("comments only", "and then the end", streams(b": hi\n\n" * 9), "200", harm=fails_softly),
    says(
        "an event of 3 MB",
        "without a border",
        streams(b"data: " + b"x" * 3_000_000),
        "200",
        harm=fails_softly,
    ),
    says(
        "an event without an end",
        "for ever",
        begins(b"data: ", Forever(b"x" * 65536)),
        "200",
        harm=fails_softly,
    ),
    says(
        "events without an end",
        "deltas for ever, whatever limit was asked for",
        begins(Forever(event("x"))),
        "200",
        harm=fails_softly,
    ),
    says("no events", "a page in a stream", streams(b"<html>" * 9), "200", harm=fails_softly),
    says(
        "[DONE] in a text",
        "inside a delta: it stays there",
        lambda a: streams(event("\\n\\ndata: [DONE]\\n\\n"), events("x")),
        "200",
    ),
    says(
        "more behind [DONE]",
        "the key, behind the end",
        streams(events("x"), f"data: {KEY}\n\n".encode()),
        "200",
        harm=tells(KEY),
        control=True,
    ),
    says(
        "invalid UTF-8",
        "FF FE in a delta",
        streams(event("a").replace(b'"a"', b'"\xff\xfe"'), events("x")),
        "200",
        harm=has_header("x-evil"),
    ),
    says(
        "a length that is too long",
        "100 of 1,000 bytes of a stream",
        [stream(events("x")).replace(b"Content-Length: ", b"Content-Length: 9")[:-60]],
        "200",
        harm=fails_softly,
    ),
]


def charged(_: Case, outcome: Outcome) -> str | None:
    """What was spent fell, or did not rise, for two answers."""
    return f"{outcome.spent} µUSD were spent" if outcome.spent < 2 else None


def used(usage: Any) -> Say:
    """A good answer that tells such a usage."""
    return lambda a: streams(events(a.mark, usage=usage))


USAGES = [
    says(
        f"usage of {name}",
        "in the last chunk: it is not taken for what was spent",
        used(usage),
        "200",
        also=(charged,),
    )
    for name, usage in (
        ("less than nothing", {"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}),
        ("words", {"prompt_tokens": "7", "completion_tokens": "lots"}),
        ("halves", {"prompt_tokens": 0.5, "completion_tokens": 0.5}),
        ("10^30 tokens", {"prompt_tokens": 10**30, "completion_tokens": 10**30}),
        ("a list", [1, 2]),
        ("truth", {"prompt_tokens": True, "completion_tokens": False}),
        (
            "all cached, and more",
            {
                "prompt_tokens": 7,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 10**6},
            },
        ),
    )
]

CASES = [*STREAMS, *USAGES]
