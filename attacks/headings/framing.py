"""Request smuggling and framing: where one request ends and the next begins, said in two ways.

Behind most of these stands a second, complete first turn: who reads the frame otherwise than a
proxy in front would, answers it. So the harm is a POST upstream, or an answer too many.
"""

from collections.abc import Callable

from attacks.attacker import CHAT, Attacker
from attacks.case import Case, Harm, Outcome, any_of, passes, reaches_upstream, tells
from attacks.wire import QUIET, Answer, request

BAD = "400"
Build = Callable[[Attacker], bytes]


def framed(
    name: str,
    sends: str,
    build: Build,
    *back: str,
    posts: int = 0,
    admitted: int | None = None,
    control: bool = False,
    peers: bool = True,
    harm: Harm = reaches_upstream,
) -> Case:
    """These bytes on a connection of their own; nothing of it is admitted unless said otherwise."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.listen(build(a))

    said = {"posts": posts, "admitted": posts if admitted is None else admitted, "harm": harm}
    whole = {**said, "untouched": not posts, "control": control, "peers": peers}
    return Case(name, sends, attack, back or (BAD,), **whole)  # type: ignore[arg-type]


def two_frames(*lines: tuple[str, str], size: int | None = 5) -> Build:
    """A turn whose body ends at once by its chunks, and a hidden turn behind it."""

    def build(a: Attacker) -> bytes:
        length = None if size is None else str(size)
        front = a.turn(b"", Content_Length=length, Connection="keep-alive", more=lines)
        return front + b"0\r\n\r\n" + a.turn()

    return build


def chunked(body: Callable[[bytes], bytes], **changed: object) -> Build:
    """A good turn whose chunks are written by hand, and a hidden turn behind it."""

    def build(a: Attacker) -> bytes:
        said = {"Content_Length": None, "Transfer_Encoding": "chunked", **changed}
        front = a.turn(b"", Connection="keep-alive", **said)  # type: ignore[arg-type]
        return front + body(a.body()) + a.turn()

    return build


def chunk(body: bytes, head: bytes = b"%x", end: bytes = b"\r\n") -> bytes:
    """The body as one chunk with such a head, and the last one."""
    return head % len(body) + b"\r\n" + body + end + b"0\r\n\r\n"


def length(value: str, *more: tuple[str, str]) -> Build:
    """A good turn with such a Content-Length, and a hidden turn behind it."""
    return lambda a: a.turn(Content_Length=value, Connection="keep-alive", more=more) + a.turn()


def line(value: bytes) -> Build:
    """A good turn with such a line among its headers."""

    def build(a: Attacker) -> bytes:
        return a.turn().replace(b"\r\n\r\n", b"\r\n" + value + b"\r\n\r\n", 1)

    return build


def started(value: bytes) -> Build:
    """A good turn that begins with such a line."""
    return lambda a: value + b"\r\n" + a.turn().split(b"\r\n", 1)[1]


def bare_lines(a: Attacker) -> bytes:
    """Line feeds alone."""
    return a.turn().replace(b"\r\n", b"\n")


def bare_returns(a: Attacker) -> bytes:
    """Carriage returns alone between headers."""
    return a.turn().replace(b"\r\nKeyturn", b"\rKeyturn")


def trailers(a: Attacker) -> bytes:
    """A turn that shows who it is in its trailers, where no header should be taken from."""
    said = {"Keyturn_Timestamp": None, "Keyturn_Fingerprint": None, "Content_Length": None}
    front = a.turn(b"", Transfer_Encoding="chunked", **said)
    fields = a.turn().split(b"\r\n\r\n")[0].split(b"\r\n")
    shown = b"\r\n".join(field for field in fields if field.startswith(b"Keyturn"))
    return front + chunk(a.body())[:-2] + shown + b"\r\n\r\n"


def token_in_trailers(a: Attacker) -> bytes:
    """A good turn with the token of nobody, and more, in its trailers: they are not looked at."""
    front = a.turn(b"", Transfer_Encoding="chunked", Content_Length=None)
    return front + chunk(a.body())[:-2] + b"Authorization: Bearer x\r\nOrigin: https://evil\r\n\r\n"


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
    asks = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABk"}
    head = a.turn(body, **asks)[: -len(body)]  # type: ignore[arg-type]
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


TE = ("Transfer-Encoding", "chunked")
TWO = [
    framed("Content-Length and chunks", "both; a hidden turn behind", two_frames(TE), control=True),
    framed(
        "the same, chunks first",
        "Transfer-Encoding before Content-Length",
        lambda a: chunked(lambda body: b"0\r\n\r\n", Content_Length="5")(a),
    ),
    framed("chunked in capitals", "both, CHUNKED", two_frames(("Transfer-Encoding", "CHUNKED"))),
    framed("chunked, twice", "both, Transfer-Encoding said twice", two_frames(TE, TE)),
    framed("identity, chunked", "both", two_frames(("Transfer-Encoding", "identity, chunked"))),
    framed(
        "chunked, identity",
        "chunked is not the last",
        two_frames(("Transfer-Encoding", "chunked, identity"), size=None),
    ),
    framed("xchunked", "an unknown coding", two_frames(("Transfer-Encoding", "xchunked"))),
    framed(
        "gzip, chunked",
        "an empty body, said to be packed, and a turn behind it: two requests",
        two_frames(("Transfer-Encoding", "gzip, chunked"), size=None),
        "400 malformed_json",
        "200",
        posts=1,
        peers=False,
    ),
    framed("a quoted coding", '"chunked"', two_frames(("Transfer-Encoding", '"chunked"'))),
    framed("a vertical tab", "\\x0bchunked", two_frames(("Transfer-Encoding", "\x0bchunked"))),
    framed(
        "a blank before the colon",
        "Transfer-Encoding : chunked",
        two_frames(("Transfer-Encoding ", "chunked")),
    ),
    framed(
        "a folded coding",
        "Transfer-Encoding, line end, blank, chunked",
        two_frames(("Transfer-Encoding", "\r\n chunked")),
    ),
    framed(
        "an underscore",
        "Transfer_Encoding: chunked, not the header at all, and a turn behind it",
        two_frames(("Transfer_Encoding", "chunked")),
        "422 invalid_request",
        "200",
        posts=1,
        peers=False,
    ),
    framed(
        "chunks in HTTP/1.0",
        "where there are none",
        lambda a: (
            a.turn(b"", version="HTTP/1.0", more=[TE], Content_Length="5") + b"0\r\n\r\n" + a.turn()
        ),
    ),
]
LENGTHS = [
    framed(
        "two lengths, equal",
        "Content-Length twice",
        lambda a: a.turn(more=[("Content-Length", str(len(a.body())))]),
    ),
    framed(
        "two lengths, different",
        "the second one is 0",
        lambda a: a.turn(more=[("Content-Length", "0")]) + a.turn(),
    ),
    framed("two lengths in one", "5, 5", length("5, 5")),
    framed("+5", "a length with a sign", length("+5")),
    framed("-1", "a negative length", length("-1")),
    framed("0x10", "a length in hex", length("0x10")),
    framed("5e1", "a length with an exponent", length("5e1")),
    framed("5 0", "a length with a blank inside", length("5 0")),
    framed("٥", "an Arabic digit", length("٥")),
    framed("an empty length", "Content-Length:", length("")),
    framed("2^64 + 5", "a length that overflows", length(str((1 << 64) + 5))),
    framed(
        "a length in an underscore",
        "Content_Length: 0, not the header at all",
        lambda a: a.turn(more=[("Content_Length", "0")]),
        "200",
        posts=1,
    ),
]
LINES = [
    framed("line feeds alone", "no carriage returns", bare_lines, control=True),
    framed("carriage returns alone", "between two headers", bare_returns, peers=False),
    framed("a folded header", "X-A: b, line end, blank, c", line(b"X-A: b\r\n c"), control=True),
    framed(
        "a blank first",
        "before the first header",
        lambda a: a.turn().replace(b"\r\nHost", b"\r\n Host", 1),
    ),
    framed("no colon", "a line that is no header", line(b"X-A")),
    framed("no name", ": b", line(b": b")),
    framed("a blank before a colon", "X-A : b", line(b"X-A : b")),
    framed("a blank in a name", "X A: b", line(b"X A: b")),
    framed("a NUL in a name", "X-\\0A: b", line(b"X-\0A: b")),
    framed("a NUL in a value", "X-A: b\\0", line(b"X-A: b\0")),
    framed("a carriage return in a value", "X-A: b\\rc", line(b"X-A: b\rc")),
    framed("an escape in a value", "X-A: \\x1b[2J", line(b"X-A: \x1b[2J")),
    framed("a name that is no ASCII", "X-Ä: b", line("X-Ä: b".encode())),
]
CHUNKS = [
    framed(
        "a chunk of 2^64",
        "10000000000000000, which may wrap to 0",
        chunked(lambda b: b"1" + b"0" * 16 + b"\r\n" + b),
    ),
    framed("a negative chunk", "-5", chunked(lambda b: b"-5\r\n" + b)),
    framed("a chunk with a sign", "+5", chunked(lambda b: chunk(b, b"+%x"))),
    framed("a chunk in 0x", "0x10", chunked(lambda b: chunk(b, b"0x%x"))),
    framed("a chunk with an underscore", "1_0", chunked(lambda b: chunk(b, b"0_%x"))),
    framed("a chunk with no size", "an empty line for a size", chunked(lambda b: b"\r\n" + b)),
    framed(
        "no end of a chunk", "two chunks with nothing between", chunked(lambda b: chunk(b, end=b""))
    ),
    framed("another end of a chunk", "XX for the line end", chunked(lambda b: chunk(b, end=b"XX"))),
    framed(
        "a line feed for an end", "a chunk that ends in \\n", chunked(lambda b: chunk(b, end=b"\n"))
    ),
    framed(
        "a line feed behind a size", "5\\n", chunked(lambda b: chunk(b).replace(b"\r\n", b"\n", 1))
    ),
    framed("an extension with a line feed", "5;a=b\\nX", chunked(lambda b: chunk(b, b"%x;a=b\nX"))),
    framed(
        "an extension of 200 kB",
        "5;aaa…",
        lambda a: (
            a.turn(b"", Content_Length=None, more=[TE]) + chunk(a.body(), b"%x;" + b"a" * 200_000)
        ),
        "431 headers_too_large",
    ),
    framed(
        "headers in trailers",
        "Keyturn-Timestamp and -Fingerprint behind the body",
        trailers,
        "400 timestamp_missing",
        peers=False,
    ),
    framed(
        "more in trailers",
        "Authorization and Origin behind the body of a good turn: not looked at",
        token_in_trailers,
        "200",
        posts=1,
    ),
]
STARTS = [
    framed("HTTP/0.9", "GET /v1/models", lambda a: b"GET /v1/models\r\n\r\n", harm=passes(0)),
    framed(
        "HTTP/2",
        "the preface of HTTP/2",
        lambda a: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + a.turn(),
        harm=any_of(reaches_upstream, passes(0)),
    ),
    framed("HTTP/3.0", "a good turn that says so", started(f"POST {CHAT} HTTP/3.0".encode())),
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

CASES = [*TWO, *LENGTHS, *LINES, *CHUNKS, *STARTS, *CARRIED, *HOSTS]
