"""What is carried in a frame, and what is no HTTP/1.1 at all: first lines, upgrades, hosts."""

from typing import Any

from attacks.attacker import CHAT, Attacker
from attacks.case import Case, Harm, Outcome, any_of, passes, reaches_upstream, tells
from attacks.headings.framing import BAD, Build, framed
from attacks.wire import QUIET, Answer, request


def started(value: bytes) -> Build:
    """A good turn that begins with such a line."""
    return lambda a: value + b"\r\n" + a.turn().split(b"\r\n", 1)[1]


def without_a_frame(a: Attacker) -> bytes:
    """A POST that says no length: it has no body, and what follows is a request of its own."""
    return a.turn(b"", Content_Length=None, Connection="keep-alive") + a.turn()


def inside_the_body(a: Attacker) -> bytes:
    """A turn whose body is itself a request: it is a body."""
    return a.turn(a.turn())


def get_with_a_body(a: Attacker) -> bytes:
    """A GET whose body is a turn: a body, too."""
    return a.turn(a.turn(), method="GET", path="/api/health", Connection="close")


def many(a: Attacker) -> bytes:
    """Forty good first turns in one write."""
    return a.turn(Connection="keep-alive") * 40


async def upgrade_with_a_body(a: Attacker) -> list[Answer]:
    """A turn that asks for an upgrade, then, in a packet of its own, its body: a whole turn."""
    return await a.send(*upgrading(a, a.turn()), quiet=QUIET)


async def good_upgrade(a: Attacker) -> list[Answer]:
    """As Java's own client sends each of its turns."""
    return await a.send(*upgrading(a, a.body()), quiet=QUIET)


def upgrading(a: Attacker, body: bytes) -> tuple[bytes, bytes]:
    """Head and body of a turn that asks for HTTP/2."""
    asks: dict[str, Any] = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2_Settings": "AAMAAABk",
    }
    head = a.turn(body, **asks)[: -len(body)]
    return head, body


def thousand_upgrades(a: Attacker) -> bytes:
    """As many heads that ask for an upgrade, in one write."""
    return b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" * 1000


def answered(most: int) -> Harm:
    """More answers than there may be."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        count = len(outcome.answers)
        return f"{count} answers came back" if count > most else None

    return harm


STARTS = [
    framed("HTTP/0.9", "GET /v1/models", lambda a: b"GET /v1/models\r\n\r\n", harm=passes(0)),
    framed(
        "HTTP/2",
        "the preface of HTTP/2",
        lambda a: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + a.turn(),
        harm=any_of(reaches_upstream, passes(0)),
    ),
    framed(
        "HTTP/3.0",
        "a good turn that says so",
        started(f"POST {CHAT} HTTP/3.0".encode()),
        peers=False,
    ),
    framed("http/1.1", "in small letters", started(f"POST {CHAT} http/1.1".encode())),
    framed(
        "HTTP/1.1 and more",
        "a word behind the version",
        started(f"POST {CHAT} HTTP/1.1 x".encode()),
    ),
    framed(
        "a tab in the first line", "POST, tab, path", started(f"POST\t{CHAT} HTTP/1.1".encode())
    ),
    framed("a small method", "post", started(f"post {CHAT} HTTP/1.1".encode()), BAD),
    framed(
        "a NUL in the path",
        "/v1/chat/completions\\0",
        started(CHAT.join(("POST ", "\0 HTTP/1.1")).encode()),
    ),
    framed("a raw byte in the path", "\\xff", started(f"POST {CHAT}".encode() + b"\xff HTTP/1.1")),
    framed(
        "TLS",
        "a ClientHello",
        lambda a: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n",
    ),
    framed("Redis", "*1, PING, FLUSHALL", lambda a: b"*1\r\n$8\r\nFLUSHALL\r\n\r\n"),
    framed("noise", "256 bytes", lambda a: bytes(range(256)) + b"\r\n\r\n"),
]
CARRIED = [
    framed(
        "another host in the target",
        "POST http://evil.example/v1/chat/completions: this server all the same, by the same gate",
        lambda a: a.turn(path=f"http://evil.example{CHAT}"),
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "CONNECT",
        "CONNECT evil.example:443",
        lambda a: a.turn(b"", method="CONNECT", path="evil.example:443"),
    ),
    Case(
        "an upgrade with a body",
        "Upgrade: h2c, and a whole turn as the body, in a packet of its own",
        upgrade_with_a_body,
        ("400 malformed_json",),
        untouched=True,
        peers=True,
    ),
    Case(
        "an upgrade, well meant",
        "Upgrade: h2c on a good turn, the body in a packet of its own",
        good_upgrade,
        ("200",),
        posts=1,
        admitted=1,
    ),
    framed(
        "a thousand upgrades",
        "in one write: one is answered, sixteen may wait",
        thousand_upgrades,
        "200",
        peers=False,
        harm=answered(1),
    ),
    framed(
        "a WebSocket",
        "an upgrade of the health page: ignored",
        lambda a: request(
            "GET",
            "/api/health",
            [
                ("Host", "x"),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
                ("Sec-WebSocket-Version", "13"),
            ],
        ),
        "200",
        peers=False,
    ),
    framed(
        "100-continue",
        "a good turn that waits for nothing",
        lambda a: a.turn(Expect="100-continue"),
        "100",
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "another expectation",
        "Expect: the-unexpected",
        lambda a: a.turn(Expect="the-unexpected"),
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "no frame",
        "a POST without a length, a good turn behind it: two requests",
        without_a_frame,
        "400 malformed_json",
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "a request as a body",
        "a turn inside the body of a turn",
        inside_the_body,
        "400 malformed_json",
    ),
    framed(
        "a request as a body of a GET",
        "GET /api/health with a turn for a body",
        get_with_a_body,
        "200",
        harm=any_of(reaches_upstream, answered(1)),
    ),
    framed(
        "forty in one write",
        "good first turns, pipelined, where sixteen may wait: the first one is answered, no more",
        many,
        "200",
        posts=1,
        peers=False,
    ),
]
HOSTS = [
    framed(
        "no host",
        "a good turn without Host",
        lambda a: a.turn(Host=None),
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "two hosts",
        "Host twice",
        lambda a: a.turn(Host=["keyturn.example", "evil.example"]),
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "a host with a path",
        "Host: x/../v1/models?",
        lambda a: a.turn(Host="x/../v1/models?"),
        "200",
        posts=1,
        peers=False,
        harm=tells("owned_by"),
    ),
    framed(
        "a path in a header",
        "X-Original-URL and X-Rewrite-URL on GET /api/health",
        lambda a: a.turn(
            b"",
            method="GET",
            path="/api/health",
            more=[("X-Original-URL", CHAT), ("X-Rewrite-URL", "/debug")],
        ),
        "200",
    ),
]

CASES = [*STARTS, *CARRIED, *HOSTS]
