"""Upstream misbehaves: whatever it says, the visitor gets an answer or a refusal of ours.

After each case another visitor takes a good turn at the same upstream, and must get their own.
"""

import asyncio
import gzip
from collections.abc import Callable
from typing import Any, Final

from attacks.attacker import RESPONSES, Attacker
from attacks.case import Case, Harm, Outcome, any_of, has_header, posts_hold, tells
from attacks.rogue import Forever, Keep, Reply, events, stream, whole
from attacks.wire import Answer
from tests.attacks.canaries import OPERATORS

KEY: Final = OPERATORS["operator's key"]
GONE: Final = "502 upstream_unavailable"
REJECTED: Final = "502 upstream_rejected"
SAID: Final = "a word of upstream's own"
FORGED: Final = "a-token-that-upstream-made-up"

Say = Callable[[Attacker], Reply]


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
    said: dict[str, Any] = {
        "harm": harm,
        "also": harms,
        "control": control,
        "peers": peers,
        "where": "strict",
    }
    return Case(name, sends, attack, (back, "200"), posts=2, admitted=2, **said)


def away(status: str) -> Say:
    """A redirect to the attacker's own server."""

    def say(a: Attacker) -> Reply:
        location = f"Location: http://127.0.0.1:{a.rogue.port}/stolen"
        return [whole(b"{}", "application/json", status, location), Keep()]

    return say


def good(a: Attacker, *more: str) -> Reply:
    """A good answer, with these header lines."""
    return [stream(events(a.mark), *more), Keep()]


LEAKS: Final = tells(KEY, KEY[:14], "org-operator", SAID)
SPLIT: Final = ("X-A: b\rX-Evil: 1", "X-B: c\nX-Evil: 1", "X-Evil: 2")

REDIRECTS = [
    says(
        f"a redirect, {status[:3]}",
        "to the attacker's own server",
        away(status),
        control=status[:3] == "307",
        peers=True,
    )
    for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
]
HEADERS = [
    says(
        "Set-Cookie",
        "a cookie: not passed on, and not sent with the next turn",
        lambda a: good(a, "Set-Cookie: session=evil; Path=/"),
        "200",
        harm=any_of(
            has_header("set-cookie"),
            posts_hold(lambda post: "cookie" in post["headers"], "a cookie was kept"),
        ),
        control=True,
        peers=True,
    ),
    says(
        "a token of its own",
        "Keyturn-Token",
        lambda a: good(a, f"Keyturn-Token: {FORGED}"),
        "200",
        harm=tells(FORGED),
        control=True,
    ),
    says(
        "CORS of its own",
        "Access-Control-Allow-Origin: *, Allow-Credentials: true",
        lambda a: good(
            a, "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"
        ),
        "200",
        harm=has_header("access-control-allow-credentials"),
        control=True,
        peers=True,
    ),
    says(
        "everything that a head can say",
        "Server, Location, Refresh, Link, CSP, Alt-Svc, openai-organization, x-request-id",
        lambda a: good(
            a,
            "Server: evil",
            "Location: /x",
            "Refresh: 0; url=/x",
            "Link: </x>",
            "Alt-Svc: h3",
            "openai-organization: org-operator",
            "x-request-id: upstreams-own",
        ),
        "200",
        harm=any_of(
            has_header("server", "location", "refresh", "link", "alt-svc", "openai-organization"),
            tells("upstreams-own"),
        ),
        control=True,
        peers=True,
    ),
    says(
        "a split head",
        "line ends inside a header",
        lambda a: good(a, *SPLIT),
        GONE,
        harm=has_header("x-evil"),
    ),
    says("a header of 1 MB", "X-A: aaa…", lambda a: good(a, "X-A: " + "a" * 1_000_000)),
    says(
        "3,000 headers",
        "X-1 to X-3000",
        lambda a: good(a, *(f"X-{n}: {'a' * 40}" for n in range(3000))),
    ),
    says(
        "a head without an end",
        "the same header for ever",
        [b"HTTP/1.1 200 OK\r\n", Forever(b"X-A: b\r\n" * 1000)],
    ),
]
KINDS = [
    says(
        "a page for a stream",
        "text/html with a script",
        [whole(b"<script>alert(1)</script>", "text/html"), Keep()],
        harm=tells("<script>"),
        control=True,
        peers=True,
    ),
    says("JSON for a stream", "application/json", [whole(b'{"choices":[]}'), Keep()]),
    says("a stream for JSON", "text/event-stream", lambda a: good(a), streamed=False),
    says(
        "no type",
        "without Content-Type",
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Keep()],
    ),
    says(
        "a packed stream",
        "Content-Encoding: gzip",
        lambda a: [
            whole(
                gzip.compress(events(a.mark)),
                "text/event-stream",
                "200 OK",
                "Content-Encoding: gzip",
            ),
            Keep(),
        ],
    ),
    says(
        "packed JSON",
        "Content-Encoding: gzip",
        [
            whole(
                gzip.compress(b'{"choices":[]}'),
                "application/json",
                "200 OK",
                "Content-Encoding: gzip",
            ),
            Keep(),
        ],
        streamed=False,
    ),
    says(
        "a zip bomb",
        "gigabytes, packed",
        [
            whole(
                gzip.compress(b"x" * (1 << 24)),
                "application/json",
                "200 OK",
                "Content-Encoding: gzip",
            ),
            Keep(),
        ],
        streamed=False,
    ),
]
CASES = [*REDIRECTS, *HEADERS, *KINDS]
