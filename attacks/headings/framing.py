"""Request smuggling and framing: where one request ends and the next begins, said in two ways.

Behind most of these stands a second, complete first turn: who reads the frame otherwise than a
proxy in front would, answers it. So the harm is a POST upstream, or an answer too many.
"""

from collections.abc import Callable
from typing import Any

from attacks.attacker import Attacker
from attacks.case import Case, Harm, reaches_upstream
from attacks.wire import Answer

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

    said: dict[str, Any] = {
        "posts": posts,
        "admitted": posts if admitted is None else admitted,
        "harm": harm,
    }
    whole: dict[str, Any] = {**said, "untouched": not posts, "control": control, "peers": peers}
    return Case(name, sends, attack, back or (BAD,), **whole)


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
        said: dict[str, Any] = {"Content_Length": None, "Transfer_Encoding": "chunked", **changed}
        front = a.turn(b"", Connection="keep-alive", **said)
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


def bare_lines(a: Attacker) -> bytes:
    """Line feeds alone."""
    return a.turn().replace(b"\r\n", b"\n")


def bare_returns(a: Attacker) -> bytes:
    """Carriage returns alone between headers."""
    return a.turn().replace(b"\r\nKeyturn", b"\rKeyturn")


def trailers(a: Attacker) -> bytes:
    """A turn that shows who it is in its trailers, where no header should be taken from."""
    said: dict[str, Any] = {
        "Keyturn_Timestamp": None,
        "Keyturn_Fingerprint": None,
        "Content_Length": None,
    }
    front = a.turn(b"", Transfer_Encoding="chunked", **said)
    fields = a.turn().split(b"\r\n\r\n")[0].split(b"\r\n")
    shown = b"\r\n".join(field for field in fields if field.startswith(b"Keyturn"))
    return front + chunk(a.body())[:-2] + shown + b"\r\n\r\n"


def token_in_trailers(a: Attacker) -> bytes:
    """A good turn with the token of nobody, and more, in its trailers: they are not looked at."""
    front = a.turn(b"", Transfer_Encoding="chunked", Content_Length=None)
    return front + chunk(a.body())[:-2] + b"Authorization: Bearer x\r\nOrigin: https://evil\r\n\r\n"


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
        peers=False,
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
    framed("line feeds alone", "no carriage returns", bare_lines, control=True, peers=False),
    framed("carriage returns alone", "between two headers", bare_returns, peers=False),
    framed(
        "a folded header",
        "X-A: b, line end, blank, c",
        line(b"X-A: b\r\n c"),
        control=True,
        peers=False,
    ),
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
    framed("an escape in a value", "X-A: \\x1b[2J", line(b"X-A: \x1b[2J"), peers=False),
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
CASES = [*TWO, *LENGTHS, *LINES, *CHUNKS]
