"""An upstream that costs next to nothing: Chat Completions by a bare protocol; run as a process.

`python -m bench.swift_upstream` listens on a free port of 127.0.0.1, prints "ready <port>", and
ends with whoever holds its stdin. A message says how to answer, as `script_of` reads it: so many
chunks, after so many ms, so many ms apart. Chunks that are apart carry the time at which they were
written; those that are not leave in one piece, written beforehand. `GET /books` tells how many
requests came, how many are open, and how many timed chunks were written until when.
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import uvloop

SCRIPT: Final = re.compile(rb"play (\d+) chunks after (\d+) ms, (\d+) ms apart")
FAILURE: Final = "play a failure"
STAMP: Final = re.compile(rb"at (\d{19}) ")
AT_ONCE: Final = 1000  # chunks that are written beforehand, or before one looks up again

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_COMMON: Final = {"id": "chatcmpl-CgvYyNBrC0F2Kx8mS5wT1dJ9uEzQ3", "created": 1764234000}
_USAGE: Final = {"prompt_tokens": 120, "completion_tokens": 50, "total_tokens": 170}


@dataclass
class Books:
    """What was asked so far."""

    requests: int = 0
    open: int = 0
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """How to answer."""

    stream: bool
    chunks: int
    first_ms: int
    gap_ms: int


def text_of(chunks: int, first_ms: int, gap_ms: int) -> str:
    """The message that is answered so."""
    return f"play {chunks} chunks after {first_ms} ms, {gap_ms} ms apart"


def script_of(body: bytes) -> Script | None:
    """What a body asks for; None for a failure."""
    if FAILURE.encode() in body:
        return None
    found = SCRIPT.findall(body)
    numbers = map(int, found[-1]) if found else (1, 0, 0)
    return Script(re.search(rb'"stream": ?true', body) is not None, *numbers)


class Conversation(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._loop = asyncio.get_running_loop()
        self._heard = b""
        self._timer: asyncio.TimerHandle | None = None
        self._left: Iterator[bytes] = iter(())
        self._answering = self._paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._end()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_rest()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, rest = self._heard.partition(_HEAD_END)
        if not end:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) >= size:
            self._heard = rest[size:]
            self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET "):
            told = {**vars(self._books), "at_ns": time.monotonic_ns()}
            self._transport.write(_whole(200, told))
            return
        self._books.requests += 1
        self._books.open += 1
        self._answering = True
        script = script_of(body)
        if script and script.first_ms:
            self._timer = self._loop.call_later(script.first_ms / 1000, self._begin, script)
        else:
            self._begin(script)

    def _begin(self, script: Script | None) -> None:
        if script is None:
            self._transport.write(_whole(500, {"error": {"message": "as you wished"}}))
            self._end()
        elif not script.stream:
            self._transport.write(_completion(script.chunks))
            self._end()
        elif script.gap_ms:
            self._transport.write(_STREAM_HEAD)
            self._beat(script, self._loop.time(), 0)
        elif script.chunks <= AT_ONCE:
            self._transport.write(_burst(script.chunks))
            self._end()
        else:
            self._left = _flood(script.chunks)
            self._write_rest()

    def _beat(self, script: Script, began: float, number: int) -> None:
        """Write a chunk and set the time of the next by the beat, not by this one's delay."""
        if number == script.chunks:
            self._transport.write(_STREAM_END)
            self._end()
            return
        self._books.chunks += 1
        self._transport.write(_chunk(f"at {time.monotonic_ns():019} "))
        number += 1
        due = began + number * script.gap_ms / 1000
        self._timer = self._loop.call_at(due, self._beat, script, began, number)

    def _write_rest(self) -> None:
        while not self._paused and (piece := next(self._left, None)):
            self._transport.write(piece)
            if piece.endswith(_STREAM_END):
                self._end()

    def _end(self) -> None:
        self._books.open -= self._answering
        self._answering = False


def _whole(status: int, value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + _HEAD_END + body


@cache
def _completion(words: int) -> bytes:
    message = {"role": "assistant", "content": "word " * words, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    said = {"object": "chat.completion", "model": "gpt-4.1-mini", "choices": [choice]}
    return _whole(200, {**_COMMON, **said, "usage": _USAGE})


def _event(delta: Any, finish: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    said = {"object": "chat.completion.chunk", "model": "gpt-4.1-mini"}
    more = {"service_tier": "default", "system_fingerprint": "fp_3f58d112f7"}
    choices = [] if delta is None else [choice]
    value = {**_COMMON, **said, **more, "choices": choices, "usage": usage}
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_BEFORE, _, _AFTER = _event({"content": "TEXT"}).partition(b"TEXT")


def _chunk(text: str) -> bytes:
    return _framed(_BEFORE + text.encode() + _AFTER)


def chunk_bytes() -> int:
    """How long a chunk of one word is on its way."""
    return len(_chunk(" word"))


_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + _framed(_event({"role": "assistant", "content": ""}))
)
_STREAM_END: Final = b"".join(
    (
        *map(_framed, (_event({}, "stop"), _event(None, usage=_USAGE), b"data: [DONE]\n\n")),
        b"0\r\n\r\n",
    )
)


@cache
def _burst(chunks: int) -> bytes:
    return b"".join((_STREAM_HEAD, *[_chunk(" word")] * chunks, _STREAM_END))


def _flood(chunks: int) -> Iterator[bytes]:
    """A long answer in pieces; the last has the end with it."""
    yield _STREAM_HEAD
    for _ in range(chunks // AT_ONCE):
        yield _chunk(" word") * AT_ONCE
    yield _chunk(" word") * (chunks % AT_ONCE) + _STREAM_END


async def main() -> None:
    """Serve until stdin ends."""
    loop, books = asyncio.get_running_loop(), Books()
    server = await loop.create_server(lambda: Conversation(books), "127.0.0.1", 0, backlog=4096)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
