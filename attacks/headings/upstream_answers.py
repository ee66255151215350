"""Upstream misbehaves, in what it answers: statuses and bodies."""

from typing import Final

from attacks.attacker import Attacker
from attacks.case import any_of, has_header, tells
from attacks.headings.upstream import FORGED, KEY, LEAKS, SAID, good, says
from attacks.rogue import Forever, Keep, Reply, whole

REJECTED: Final = "502 upstream_rejected"
JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED: Final = JSON + b"Transfer-Encoding: chunked\r\n\r\n"


def refuses(status: str, code: str = "x", *more: str) -> Reply:
    """An error that holds what the visitor must not see."""
    body = f'{{"error":{{"message":"{SAID}: {KEY}, org-operator","code":"{code}"}}}}'
    return [whole(body.encode(), "application/json", status, *more), Keep()]


def poisoned(a: Attacker) -> Reply:
    """A good answer and, in one write, another one that nobody asked for."""
    return [whole(b'{"choices":[],"id":"1"}') + whole(b'{"id":"poison"}'), Keep()]


def poisoned_later(a: Attacker) -> Reply:
    """A good answer, and a moment later another one that nobody asked for."""
    return [whole(b'{"choices":[],"id":"1"}'), 0.1, whole(b'{"id":"poison"}'), Keep()]


STATUSES = [
    says(
        "the key, said back",
        "401 with the operator's key in its text",
        refuses("401 Unauthorized"),
        REJECTED,
        harm=LEAKS,
        control=True,
        peers=True,
    ),
    says(
        "400 with a text",
        "the operator's key and organisation",
        refuses("400 Bad Request"),
        REJECTED,
        harm=LEAKS,
        peers=True,
    ),
    says(
        "400, too long",
        "context_length_exceeded",
        refuses("400 Bad Request", "context_length_exceeded"),
        "400 upstream_rejected",
        harm=LEAKS,
    ),
    says(
        "403 with a text",
        "the operator's key and organisation",
        refuses("403 Forbidden"),
        REJECTED,
        harm=LEAKS,
    ),
    says(
        "404 with a text",
        "the operator's key and organisation",
        refuses("404 Not Found"),
        REJECTED,
        harm=LEAKS,
    ),
    says(
        "429, wait for years",
        "Retry-After: 99999999999",
        refuses("429 Too Many", "x", "Retry-After: 99999999999"),
        "503 upstream_rate_limited",
        harm=any_of(LEAKS, tells("retry-after: 9")),
    ),
    says(
        "429, wait a word",
        "Retry-After: tomorrow",
        refuses("429 Too Many", "x", "Retry-After: tomorrow"),
        "503 upstream_rate_limited",
        harm=tells("tomorrow"),
    ),
    says(
        "500 with a text",
        "the operator's key and organisation",
        refuses("500 Oops"),
        harm=LEAKS,
        peers=True,
    ),
    says(
        "503 with a page",
        "HTML",
        [whole(b"<h1>org-operator</h1>", "text/html", "503 Oops"), Keep()],
        harm=tells("org-operator"),
    ),
    says(
        "an endless error",
        "500, and words for ever",
        [b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n", Forever(b"x" * 65536)],
    ),
    says("204", "nothing", [b"HTTP/1.1 204 No Content\r\n\r\n", Keep()]),
    says("206", "a part", [whole(b"{}", "application/json", "206 Partial Content"), Keep()]),
    says("304", "nothing new", [b"HTTP/1.1 304 Not Modified\r\n\r\n", Keep()]),
    says(
        "101",
        "another protocol",
        [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi"],
    ),
    says("999", "a status that is none", [whole(b"{}", "application/json", "999 What"), Keep()]),
    says("no HTTP", "SSH-2.0-OpenSSH", [b"SSH-2.0-OpenSSH_9.2\r\n"]),
    says("HTTP/9.9", "another version", [b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"]),
    says("not a word", "it hangs up", [b""]),
    says("half a head", "it hangs up", [b"HTTP/1.1 200 OK\r\nContent-Ty"]),
    says(
        "hints first",
        "103, then a good answer",
        lambda a: [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *good(a)],
        "200",
        harm=has_header("link"),
    ),
]
BODIES = [
    says("no JSON", "half an object", [whole(b'{"choices":['), Keep()], streamed=False),
    says("a list", "[]", [whole(b"[]"), Keep()], streamed=False),
    says("100,000 lists", "[[[[…", [whole(b"[" * 100_000), Keep()], streamed=False),
    says(
        "an error with 200",
        "and the key in it",
        [whole(f'{{"error":{{"message":"{SAID} {KEY}"}}}}'.encode()), Keep()],
        streamed=False,
        harm=LEAKS,
        control=True,
        peers=True,
    ),
    says(
        "JSON without an end",
        "for ever",
        [JSON + b"\r\n", Forever(b" " * 65536)],
        streamed=False,
    ),
    says(
        "less than was said",
        "10 of 1,000 bytes",
        [JSON + b'Content-Length: 1000\r\n\r\n{"choices"'],
        streamed=False,
    ),
    says(
        "more than was said",
        "a second answer behind it: the next visitor's would be another's",
        poisoned,
        "200",
        streamed=False,
        harm=tells("poison"),
    ),
    says(
        "an answer to nobody",
        "a moment later, on the kept connection",
        poisoned_later,
        "200",
        streamed=False,
        harm=tells("poison"),
        pause=0.3,
        control=True,
    ),
    says(
        "a broken chunk",
        "ZZ for a size",
        [CHUNKED + b"ZZ\r\n{}\r\n0\r\n\r\n"],
        streamed=False,
    ),
    says(
        "a token in its trailers",
        "Keyturn-Token behind the last chunk",
        [CHUNKED + b"2\r\n{}\r\n0\r\nKeyturn-Token: " + FORGED.encode() + b"\r\n\r\n"],
        "200",
        streamed=False,
        harm=tells(FORGED),
    ),
]
CASES = [*STATUSES, *BODIES]
