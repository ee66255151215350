"""Upstream misbehaves: whatever it says, the visitor gets an answer or a refusal of ours.

After each case another visitor takes a good turn at the same upstream, and must get their own.
"""

import asyncio
import gzip
from collections.abc import Callable
from typing import Final

from attacks.attacker import RESPONSES, Attacker
from attacks.case import Case, Harm, Outcome, any_of, has_header, posts_hold, tells
from attacks.rogue import Forever, Keep, Reply, Step, events, stream, whole
from attacks.wire import Answer
from tests.attacks.canaries import OPERATORS

KEY: Final = OPERATORS["operator's key"]
GONE: Final = "502 upstream_unavailable"
REJECTED: Final = "502 upstream_rejected"
SAID: Final = "a word of upstream's own"
FORGED: Final = "a-token-that-upstream-made-up"

Say = Callable[[Attacker], Reply]


def fails_softly(_: Case, outcome: Outcome) -> str | None:
    """A stream that went wrong ends without an error frame, or as if it were well."""
    body = outcome.answers[0].body
    if b"[DONE]" in body:
        return "a broken stream ends with [DONE]"
    return None if b'"error"' in body else "a broken stream ends without an error"


def not_their_own(_: Case, outcome: Outcome) -> str | None:
    """The next visitor is told something else than their own answer."""
    mark = f"{outcome.attacker.mark}-next".encode()
    return None if mark in outcome.answers[-1].body else "the next visitor got something else"


def follows(_: Case, outcome: Outcome) -> str | None:
    """More was asked than the two turns."""
    return f"{len(outcome.posts)} requests went out" if len(outcome.posts) > 2 else None


def says(
    name: str,
    sends: str,
    say: Say | Reply,
    back: str = GONE,
    *,
    streamed: bool = True,
    harm: Harm = follows,
    also: tuple[Harm, ...] = (),
    control: bool = False,
    responses: bool = False,
    peers: bool = False,
    pause: float = 0,
) -> Case:
    """Upstream answers one turn so, and the next one of another visitor well."""

    async def attack(a: Attacker) -> list[Answer]:
        a.will_say(*(say(a) if callable(say) else say))
        body = a.asks(stream=streamed) if responses else a.body(stream=streamed)
        first = await a.send(a.turn(body, path=RESPONSES if responses else "/v1/chat/completions"))
        await asyncio.sleep(pause)
        after = a.another(mark=f"{a.mark}-next")
        a.rogue.replies.pop(a.mark)
        return first + await after.send(after.turn(after.body(stream=streamed)))

    harms = (not_their_own, *also)
    said = {"harm": harm, "also": harms, "control": control, "peers": peers, "where": "strict"}
    return Case(name, sends, attack, (back, "200"), posts=2, admitted=2, **said)  # type: ignore[arg-type]


def away(status: str) -> Say:
    """A redirect to the attacker's own server."""

    def say(a: Attacker) -> Reply:
        location = f"Location: http://127.0.0.1:{a.rogue.port}/stolen"
        return [whole(b"{}", "application/json", status, location), Keep()]

    return say


def refuses(status: str, code: str = "x", *more: str) -> Reply:
    """An error that holds what the visitor must not see."""
    body = f'{{"error":{{"message":"{SAID}: {KEY}, org-operator","code":"{code}"}}}}'
    return [whole(body.encode(), "application/json", status, *more), Keep()]


def streams(*pieces: bytes) -> Reply:
    """A stream of these pieces."""
    return [stream(b"".join(pieces)), Keep()]


def begins(*steps: Step) -> Reply:
    """A stream whose end is that of its connection."""
    return [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *steps]


def event(text: str) -> bytes:
    """One delta."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


def good(a: Attacker, *more: str) -> Reply:
    """A good answer, with these header lines."""
    return [stream(events(a.mark), *more), Keep()]


def poisoned(a: Attacker) -> Reply:
    """A good answer and, in one write, another one that nobody asked for."""
    return [whole(b'{"choices":[],"id":"1"}') + whole(b'{"id":"poison"}'), Keep()]


def poisoned_later(a: Attacker) -> Reply:
    """A good answer, and a moment later another one that nobody asked for."""
    return [whole(b'{"choices":[],"id":"1"}'), 0.1, whole(b'{"id":"poison"}'), Keep()]


LEAKS: Final = tells(SAID, KEY, KEY[:14], "org-operator")
DONE: Final = b"data: [DONE]\n\n"
SPLIT: Final = ("X-A: b\rX-Evil: 1", "X-B: c\nX-Evil: 1", "X-Evil: 2")

REDIRECTS = [
    says(f"a redirect, {status[:3]}", "to the attacker's own server", away(status), control=status[:3] == "307", peers=True)
    for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
]
HEADERS = [
    says(
        "Set-Cookie",
        "a cookie: not passed on, and not sent with the next turn",
        lambda a: good(a, "Set-Cookie: session=evil; Path=/"),
        "200",
        harm=any_of(has_header("set-cookie"), posts_hold(lambda post: "cookie" in post["headers"], "a cookie was kept")),
        control=True,
        peers=True,
    ),
    says("a token of its own", "Keyturn-Token", lambda a: good(a, f"Keyturn-Token: {FORGED}"), "200", harm=tells(FORGED), control=True),
    says(
        "CORS of its own",
        "Access-Control-Allow-Origin: *, Allow-Credentials: true",
        lambda a: good(a, "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"),
        "200",
        harm=has_header("access-control-allow-credentials"),
        control=True,
        peers=True,
    ),
    says(
        "everything that a head can say",
        "Server, Location, Refresh, Link, CSP, Alt-Svc, openai-organization, x-request-id",
        lambda a: good(a, "Server: evil", "Location: /x", "Refresh: 0; url=/x", "Link: </x>", "Alt-Svc: h3", "openai-organization: org-operator", "x-request-id: upstreams-own"),
        "200",
        harm=any_of(has_header("server", "location", "refresh", "link", "alt-svc", "openai-organization"), tells("upstreams-own")),
        control=True,
        peers=True,
    ),
    says("a split head", "line ends inside a header", lambda a: good(a, *SPLIT), GONE, harm=has_header("x-evil")),
    says("a header of 1 MB", "X-A: aaa…", lambda a: good(a, "X-A: " + "a" * 1_000_000)),
    says("3,000 headers", "X-1 to X-3000", lambda a: good(a, *(f"X-{n}: {'a' * 40}" for n in range(3000)))),
    says("a head without an end", "the same header for ever", [b"HTTP/1.1 200 OK\r\n", Forever(b"X-A: b\r\n" * 1000)]),
]
KINDS = [
    says("a page for a stream", "text/html with a script", [whole(b"<script>alert(1)</script>", "text/html"), Keep()], harm=tells("<script>"), control=True, peers=True),
    says("JSON for a stream", "application/json", [whole(b'{"choices":[]}'), Keep()]),
    says("a stream for JSON", "text/event-stream", lambda a: good(a), streamed=False),
    says("no type", "without Content-Type", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Keep()]),
    says("a packed stream", "Content-Encoding: gzip", lambda a: [whole(gzip.compress(events(a.mark)), "text/event-stream", "200 OK", "Content-Encoding: gzip"), Keep()]),
    says("packed JSON", "Content-Encoding: gzip", [whole(gzip.compress(b'{"choices":[]}'), "application/json", "200 OK", "Content-Encoding: gzip"), Keep()], streamed=False),
    says("a zip bomb", "gigabytes, packed", [whole(gzip.compress(b"x" * (1 << 24)), "application/json", "200 OK", "Content-Encoding: gzip"), Keep()], streamed=False),
]
STATUSES = [
    says("the key, said back", "401 with the operator's key in its text", refuses("401 Unauthorized"), REJECTED, harm=LEAKS, control=True, peers=True),
    says("400 with a text", "the operator's key and organisation", refuses("400 Bad Request"), REJECTED, harm=LEAKS, peers=True),
    says("400, too long", "context_length_exceeded", refuses("400 Bad Request", "context_length_exceeded"), "400 upstream_rejected", harm=LEAKS),
    says("403 with a text", "the operator's key and organisation", refuses("403 Forbidden"), REJECTED, harm=LEAKS),
    says("404 with a text", "the operator's key and organisation", refuses("404 Not Found"), REJECTED, harm=LEAKS),
    says("429, wait for years", "Retry-After: 99999999999", refuses("429 Too Many", "x", "Retry-After: 99999999999"), "503 upstream_rate_limited", harm=any_of(LEAKS, tells("retry-after: 9"))),
    says("429, wait a word", "Retry-After: tomorrow", refuses("429 Too Many", "x", "Retry-After: tomorrow"), "503 upstream_rate_limited", harm=tells("tomorrow")),
    says("500 with a text", "the operator's key and organisation", refuses("500 Oops"), harm=LEAKS, peers=True),
    says("503 with a page", "HTML", [whole(b"<h1>org-operator</h1>", "text/html", "503 Oops"), Keep()], harm=tells("org-operator")),
    says("an endless error", "500, and words for ever", [b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n", Forever(b"x" * 65536)]),
    says("204", "nothing", [b"HTTP/1.1 204 No Content\r\n\r\n", Keep()]),
    says("206", "a part", [whole(b"{}", "application/json", "206 Partial Content"), Keep()]),
    says("304", "nothing new", [b"HTTP/1.1 304 Not Modified\r\n\r\n", Keep()]),
    says("101", "another protocol", [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi"]),
    says("999", "a status that is none", [whole(b"{}", "application/json", "999 What"), Keep()]),
    says("no HTTP", "SSH-2.0-OpenSSH", [b"SSH-2.0-OpenSSH_9.2\r\n"]),
    says("HTTP/9.9", "another version", [b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"]),
    says("not a word", "it hangs up", [b""]),
    says("half a head", "it hangs up", [b"HTTP/1.1 200 OK\r\nContent-Ty"]),
    says("hints first", "103, then a good answer", lambda a: [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *good(a)], "200", harm=has_header("link")),
]
BODIES = [
    says("no JSON", "half an object", [whole(b'{"choices":['), Keep()], streamed=False),
    says("a list", "[]", [whole(b"[]"), Keep()], streamed=False),
    says("100,000 lists", "[[[[…", [whole(b"[" * 100_000), Keep()], streamed=False),
    says("an error with 200", "and the key in it", [whole(f'{{"error":{{"message":"{SAID} {KEY}"}}}}'.encode()), Keep()], streamed=False, harm=LEAKS, control=True, peers=True),
    says("JSON without an end", "for ever", [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", Forever(b" " * 65536)], streamed=False),
    says("less than was said", "10 of 1,000 bytes", [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"choices\""], streamed=False),
    says("more than was said", "a second answer behind it: the next visitor's would be another's", poisoned, "200", streamed=False, harm=tells("poison")),
    says("an answer to nobody", "a moment later, on the kept connection", poisoned_later, "200", streamed=False, harm=tells("poison"), pause=0.3, control=True),
    says("a broken chunk", "ZZ for a size", [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n"], streamed=False),
    says("a token in its trailers", "Keyturn-Token behind the last chunk", [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nKeyturn-Token: " + FORGED.encode() + b"\r\n\r\n"], "200", streamed=False, harm=tells(FORGED)),
]
SOFTLY = {"harm": fails_softly}
STREAMS = [
    says("an error in the middle", "with the key in it: replaced by ours", streams(event("a"), f'data: {{"error":{{"message":"{SAID} {KEY}"}}}}\n\n'.encode()), "200", harm=LEAKS, also=(fails_softly,), control=True, peers=True),
    says("an error in the middle, Responses", "with the key in it", streams(f'event: error\ndata: {{"type":"error","error":{{"message":"{SAID} {KEY}"}}}}\n\n'.encode()), "200", harm=LEAKS, also=(fails_softly,), responses=True),
    says("a failed response", "response.failed with the key in it", streams(f'event: response.failed\ndata: {{"type":"response.failed","response":{{"status":"failed","error":{{"message":"{SAID} {KEY}"}}}}}}\n\n'.encode()), "200", harm=LEAKS, also=(fails_softly,), responses=True),
    says("a stream that stops", "one delta, no end", begins(event("a")), "200", harm=fails_softly, control=True),
    says("an empty stream", "no event at all", streams(b""), "200", harm=fails_softly),
    says("comments only", "and then the end", streams(b": hi\n\n" * 9), "200", harm=fails_softly),
    says("an event of 3 MB", "without a border", streams(b"data: " + b"x" * 3_000_000), "200", harm=fails_softly),
    says("an event without an end", "for ever", begins(b"data: ", Forever(b"x" * 65536)), "200", harm=fails_softly),
    says("events without an end", "deltas for ever, whatever limit was asked for", begins(Forever(event("x"))), "200", harm=fails_softly),
    says("no events", "a page in a stream", streams(b"<html>" * 9), "200", harm=fails_softly),
    says("[DONE] in a text", "inside a delta: it stays there", lambda a: streams(event("\\n\\ndata: [DONE]\\n\\n"), events("x")), "200"),
    says("more behind [DONE]", "the key, behind the end", streams(events("x"), f"data: {KEY}\n\n".encode()), "200", harm=tells(KEY), control=True),
    says("invalid UTF-8", "FF FE in a delta", streams(event("a").replace(b'"a"', b'"\xff\xfe"'), events("x")), "200", harm=has_header("x-evil")),
    says("a length that is too long", "100 of 1,000 bytes of a stream", [stream(events("x")).replace(b"Content-Length: ", b"Content-Length: 9")[:-60]], "200", harm=fails_softly),
]


def charged(_: Case, outcome: Outcome) -> str | None:
    """What was spent fell, or did not rise, for two answers."""
    return f"{outcome.spent} µUSD were spent" if outcome.spent < 2 else None


USAGES = [
    says(f"usage of {name}", "in the last chunk: it is not taken for what was spent", lambda a, usage=usage: streams(events(a.mark, usage=usage)), "200", also=(charged,))  # type: ignore[misc]
    for name, usage in (
        ("less than nothing", {"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}),
        ("words", {"prompt_tokens": "7", "completion_tokens": "lots"}),
        ("halves", {"prompt_tokens": 0.5, "completion_tokens": 0.5}),
        ("a list", [1, 2]),
        ("truth", {"prompt_tokens": True, "completion_tokens": False}),
        ("all cached, and more", {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**6}}),
    )
]

CASES = [*REDIRECTS, *HEADERS, *KINDS, *STATUSES, *BODIES, *STREAMS, *USAGES]
