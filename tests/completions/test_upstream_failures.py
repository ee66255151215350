"""An upstream that breaks before the first byte: one POST, one row of the table, a next turn."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.completions.rows import SECRET, UNAVAILABLE, error, must_be, read
from tests.stage import Server, at_rest, eventually, visiting
from tests.wire import END, WHOLE, ByHand, Call, asking, event

WORDS = json.dumps(WHOLE).encode()


async def _silent(call: Call) -> None:
    """Read the request and say nothing."""


async def _hang_up(call: Call) -> None:
    call.close()


async def _reset(call: Call) -> None:
    call.cut()


async def _not_http(call: Call) -> None:
    await call.say_raw(b"220 mail.example ESMTP " + SECRET.encode() + b"\r\n")


async def _endless_head(call: Call) -> None:
    await call.say_raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n")


async def _half_a_head(call: Call) -> None:
    await call.say_raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")


async def _page(call: Call) -> None:
    await call.whole("200 OK", "text/html", b"<html>" + SECRET.encode())


async def _compressed(call: Call) -> None:
    kind = "text/event-stream" if json.loads(call.body)["stream"] else "application/json"
    body = gzip.compress(END if json.loads(call.body)["stream"] else WORDS)
    await call.whole("200 OK", kind, body, "Content-Encoding: gzip")


async def _wrong_kind(call: Call) -> None:
    if json.loads(call.body)["stream"]:
        await call.whole("200 OK", "application/json", WORDS)
    else:
        await call.whole("200 OK", "text/event-stream", event("one") + END)


async def _error_that_hangs(call: Call) -> None:
    await call.begin("500 Internal Server Error", "application/json")
    await call.say(b'{"error":{"message":"' + SECRET.encode())


async def _error_that_breaks(call: Call) -> None:
    await _error_that_hangs(call)
    call.cut()


Fail = Callable[[Call], Any]
FAILURES: list[tuple[Fail, tuple[int, str]]] = [
    (_silent, (504, "upstream_timeout")),
    (_half_a_head, (504, "upstream_timeout")),
    (_hang_up, UNAVAILABLE),
    (_reset, UNAVAILABLE),
    (_not_http, UNAVAILABLE),
    (_endless_head, UNAVAILABLE),
    (_page, UNAVAILABLE),
    (_compressed, UNAVAILABLE),
    (_wrong_kind, UNAVAILABLE),
    (_error_that_hangs, UNAVAILABLE),
    (_error_that_breaks, UNAVAILABLE),
]


async def _whole_no_json(call: Call) -> None:
    await call.whole("200 OK", "application/json", b"{" + SECRET.encode())


async def _whole_no_object(call: Call) -> None:
    await call.whole("200 OK", "application/json", b'["' + SECRET.encode() + b'"]')


async def _whole_error(call: Call) -> None:
    await call.whole("200 OK", "application/json", json.dumps(error()).encode())


async def _whole_too_deep(call: Call) -> None:
    await call.whole("200 OK", "application/json", b"[" * 200_000)


async def _whole_cut(call: Call) -> None:
    await call.begin(kind="application/json")
    await call.say(WORDS[:9])
    call.cut()


async def _whole_hangs(call: Call) -> None:
    await call.begin(kind="application/json")
    await call.say(WORDS[:9])


async def _whole_breaks_http(call: Call) -> None:
    await call.begin(kind="application/json")
    await call.say(WORDS[:9])
    await call.say_raw(b"no chunk\r\n")


async def _whole_endless(call: Call) -> None:
    await call.begin(kind="application/json")
    for _ in range(17):
        await call.say(b" " * (1 << 20))


WHOLE_FAILURES: list[tuple[Fail, tuple[int, str]]] = [
    (_whole_no_json, UNAVAILABLE),
    (_whole_no_object, UNAVAILABLE),
    (_whole_error, UNAVAILABLE),
    (_whole_too_deep, UNAVAILABLE),
    (_whole_cut, UNAVAILABLE),
    (_whole_hangs, (504, "upstream_timeout")),
    (_whole_breaks_http, UNAVAILABLE),
    (_whole_endless, UNAVAILABLE),
]


@pytest.mark.parametrize(
    ("stream", "fail", "row"),
    [(stream, *case) for stream in (True, False) for case in FAILURES]
    + [(False, *case) for case in WHOLE_FAILURES],
)
async def test_a_failure_is_its_row_of_the_table(
    impatient: Server, hand: ByHand, stream: bool, fail: Fail, row: tuple[int, str]
) -> None:
    """Whatever upstream breaks before the first byte, it is asked once, and the chain goes on."""
    async with visiting(impatient) as visitor:
        async with asking(visitor, stream=stream) as asked:
            call = await hand.call()
            await fail(call)
            answer = await read(asked)
            assert await call.closed(0.5)
        await must_be(row, answer)
        await eventually(lambda: at_rest(impatient))
        visitor.token = answer.token
        async with asking(visitor, stream=False) as asked:
            await (await hand.call()).whole("200 OK", "application/json", WORDS)
            assert (await read(asked)).body == WORDS
    assert hand.posts == 2
