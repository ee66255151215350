"""The bounds of a request: its head, its body, its time and its type, over raw sockets.

What is too much is told in an answer that the client can read to its end, however much more it
was about to send, and never costs the token.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from multidict import CIMultiDict

from patience import Patience
from tests.in_loop import serving_app
from tests.stage import (
    CHAT,
    RESPONSES,
    Answer,
    Server,
    Upstream,
    Visitor,
    commands,
    head,
    send_raw,
    serving,
    settings_with,
    visiting,
)

PAGE = "https://page.example"
LIMIT = 4000  # bytes of a body, in these tests


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """A server with a small body and little patience."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
    patience = Patience(body=0.4)
    async with serving(settings_with(**urls, max_body_bytes=LIMIT), patience) as server:
        yield server


def whole(size: int) -> bytes:
    """A good body of exactly this size."""
    start, end = b'{"messages":[{"role":"user","content":"', b'"}]}'
    return start + b"x" * (size - len(start) - len(end)) + end


def start_of(visitor: Visitor, **more: str) -> bytes:
    """The head of a turn whose framing is said in `more` (underscores stand for hyphens)."""
    return head("POST", visitor.path, visitor.headers(Origin=PAGE, Connection="close", **more))


def chunked(*pieces: bytes) -> bytes:
    """Pieces as chunks of a body, without its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def require_readable(answer: Answer, status: int, code: str) -> None:
    """The problem, whole, with CORS and with the token kept."""
    assert (answer.status, answer.json["code"], answer.json["chain"]) == (status, code, "kept")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("by", ["one header", "many headers", "query"])
async def test_a_head_over_16_kib_is_refused_so_that_the_page_can_read_it(
    visitor: Visitor, redis_url: str, by: str
) -> None:
    """431 with CORS, whatever the head is full of, and Redis is not asked."""
    many = {f"X-{n}": "x" * 100 for n in range(200)}
    more = {"one header": {"X-Big": "x" * 17_000}, "many headers": many, "query": {}}[by]
    path = CHAT + ("?" + "q" * 17_000 if by == "query" else "")
    before = commands(redis_url)
    answer = await visitor.post(whole(99), visitor.headers(Origin=PAGE) | more, path)
    require_readable(answer, 431, "headers_too_large")
    assert commands(redis_url) == before


async def test_a_head_of_just_under_16_kib_is_read(visitor: Visitor) -> None:
    """The bound is the bound: a large head below it is served."""
    answer = await visitor.post(whole(99), visitor.headers(X_Big="x" * 15_500))
    assert answer.status == 200


async def test_a_body_is_allowed_up_to_its_limit_and_not_a_byte_more(visitor: Visitor) -> None:
    """Exactly MAX_BODY_BYTES passes; the next byte is refused, naming the limit."""
    assert (await visitor.post(whole(LIMIT), visitor.headers())).status == 200
    answer = await visitor.post(whole(LIMIT + 1), visitor.headers(Origin=PAGE))
    require_readable(answer, 413, "payload_too_large")
    assert str(LIMIT) in answer.json["detail"]


@pytest.mark.parametrize("beyond", [1, 2_000_000])
async def test_a_chunked_body_is_counted(server: Server, visitor: Visitor, beyond: int) -> None:
    """A body that tells no length is cut off at the limit, and the refusal can still be read."""
    body = chunked(*[b"x" * 1000] * 4, b"x" * beyond) + b"0\r\n\r\n"
    answer = await send_raw(server, start_of(visitor, Transfer_Encoding="chunked"), body)
    require_readable(answer, 413, "payload_too_large")
    assert answer.headers["Connection"] == "close"


async def test_a_chunked_body_within_the_limit_is_served(server: Server, visitor: Visitor) -> None:
    """No length need be told, and a body may come in any pieces."""
    body = chunked(*[whole(100)[at : at + 1] for at in range(100)]) + b"0\r\n\r\n"
    answer = await send_raw(server, start_of(visitor, Transfer_Encoding="chunked"), body)
    assert answer.status == 200


@pytest.mark.parametrize("sent", [0, 3_000_000])
async def test_a_length_beyond_the_limit_is_refused_unread(
    redis_url: str, upstream: Upstream, sent: int
) -> None:
    """Nobody waits for gigabytes that were only announced, and who sends them can read why."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, max_body_bytes=LIMIT
    )
    patience = Patience(body=15)  # so that a wait for it would be seen on the slowest machine
    async with serving(settings, patience) as server, visiting(server) as visitor:
        began = time.monotonic()
        start = start_of(visitor, Content_Length="9999999999")
        require_readable(await send_raw(server, start, b"x" * sent), 413, "payload_too_large")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(("told", "code"), [("9", "malformed_json"), ("100", None)])
async def test_a_length_that_lies_is_not_believed(
    server: Server, visitor: Visitor, upstream: Upstream, told: str, code: str | None
) -> None:
    """Too short a length cuts the body there; what follows is never taken for part of it."""
    await visitor.say()
    raw = start_of(visitor, Content_Length=told) + whole(100) + b"x" * 50
    answer = await send_raw(server, raw)
    assert answer.code == code
    assert len(await upstream.books()) == (1 if code else 2)


async def test_the_bounds_are_those_of_both_apis(
    server: Server, visitor: Visitor, upstream: Upstream
) -> None:
    """Head, body, time and type of a response's request: refused in the same way, and kept."""
    visitor.path = RESPONSES
    await visitor.say()
    start, page = start_of(visitor, Content_Length="100"), {"Origin": PAGE}
    body, big = visitor.body(), visitor.body("x" * LIMIT)
    for answer, status, code in (
        (await visitor.post(body, visitor.headers(X_Big="x" * 17_000, **page)), 431, "headers_too"),
        (await visitor.post(big, visitor.headers(**page)), 413, "payload_too_large"),
        (await send_raw(server, start, b'{"inp'), 408, "request_timeout"),
        (
            await visitor.post(body, visitor.headers(Content_Type="text/plain", **page)),
            415,
            "unsup",
        ),
        (await visitor.post(body, visitor.headers(Content_Encoding="gzip", **page)), 415, "unsup"),
    ):
        assert (answer.status, str(answer.code).startswith(code)) == (status, True)
        require_readable(answer, status, str(answer.code))
    assert len(await upstream.books()) == 1
    assert (await visitor.say()).status == 200


async def test_a_request_framed_in_two_ways_is_not_served(
    server: Server, visitor: Visitor, upstream: Upstream
) -> None:
    """A length beside chunks is how requests are smuggled: nothing of it reaches upstream."""
    lines = start_of(visitor, Content_Length="5", Transfer_Encoding="chunked")
    answer = await send_raw(server, lines, chunked(whole(100)) + b"0\r\n\r\n")
    assert answer.status == 400
    assert await upstream.books() == []


async def test_a_body_that_does_not_come_is_not_waited_for(
    server: Server, visitor: Visitor
) -> None:
    """The deadline is for the whole body: a drip of bytes does not put it off."""
    stuck = await send_raw(server, start_of(visitor, Content_Length="100"), b'{"mess')
    require_readable(stuck, 408, "request_timeout")
    began = time.monotonic()
    require_readable(await drip(server, visitor), 408, "request_timeout")
    assert time.monotonic() - began < 5, "a byte more put it off"


async def drip(server: Server, visitor: Visitor) -> Answer:
    """Send a byte every 50 ms until there is an answer."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(start_of(visitor, Content_Length="3999"))
    answer: asyncio.Task[bytes] = asyncio.create_task(reader.read())
    while not (await asyncio.wait({answer}, timeout=0.05))[0]:
        writer.write(b"x")
    writer.close()
    lines, _, body = answer.result().partition(b"\r\n\r\n")
    status, *headers = lines.decode().split("\r\n")
    said: Any = CIMultiDict(line.partition(": ")[::2] for line in headers)
    return Answer(int(status.split()[1]), said, body)


async def test_a_refusal_of_a_large_body_ends_the_connection_cleanly(
    server: Server, visitor: Visitor
) -> None:
    """The client reads the answer and then the end, not a reset that may take the answer along."""
    start = start_of(visitor, Content_Length="600000")
    assert await asyncio.to_thread(fate, server.url, start, b"x" * 600_000) == "ended"
    async with serving_app(refuse_unread) as naive:
        assert await asyncio.to_thread(fate, naive, start, b"x" * 600_000) == "reset", "the control"


async def refuse_unread(_scope: Any, _receive: Any, send: Any) -> None:
    """An app that refuses what it did not read, and closes."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body"})


def fate(url: str, *pieces: bytes) -> str:
    """Send all this, and say how the connection ended."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        try:
            for piece in pieces:
                peer.sendall(piece)
            while peer.recv(65536):
                pass
        except ConnectionError:
            return "reset"
        return "ended"


async def test_a_visitor_goes_on_after_a_refusal(visitor: Visitor, upstream: Upstream) -> None:
    """Refusals that read the body, and those that did not, leave the visitor able to go on."""
    await visitor.say()
    for raw in (b"{", whole(LIMIT + 500), whole(900_000), b"[]"):
        answer = await visitor.post(raw, visitor.headers())
        assert answer.code in ("malformed_json", "payload_too_large", "invalid_request")
        assert (await visitor.say()).status == 200
    assert len(await upstream.books()) == 5


@pytest.mark.parametrize(
    "said",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
async def test_json_in_utf_8_is_taken_however_it_is_spelled(visitor: Visitor, said: str) -> None:
    """The media type has no case, and a charset may be said if it is the only one there is."""
    assert (await visitor.say(headers={"Content_Type": said})).status == 200


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "text/plain",
        "application/jsonp",
        "application/problem+json",
        "application/json, text/plain",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; q=1",
        "application/json; boundary=x",
        "multipart/form-data; boundary=x",
    ],
)
async def test_any_other_type_is_refused(
    visitor: Visitor, upstream: Upstream, said: str | None
) -> None:
    """What a page may send without a preflight, above all, is no chat."""
    answer = await visitor.say(headers={"Content_Type": said, "Origin": PAGE})
    require_readable(answer, 415, "unsupported_media_type")
    assert await upstream.books() == []


@pytest.mark.parametrize("said", ["gzip", "br", "deflate", "identity", "", "gzip, br"])
async def test_an_encoded_body_is_refused(visitor: Visitor, said: str) -> None:
    """No Content-Encoding is undone: a small body cannot unfold into a large one."""
    answer = await visitor.say(headers={"Content_Encoding": said, "Origin": PAGE})
    require_readable(answer, 415, "unsupported_media_type")
