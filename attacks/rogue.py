"""An upstream that may say anything: raw bytes, chosen by whoever attacks.

It listens on a free port of 127.0.0.1, in a thread of its own, and keeps books of every request,
whatever its method and path. Where no reply was set for a text that the request holds, it answers
well, by echo. It is also the attacker's own server, for those who would send something there.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.upstream import Entry, Script, text_of
from tests.upstream_shapes import ChatShape, ResponsesShape, response_of

_MOST: Final = 64 << 20  # bytes of an endless answer
_USAGE: Final = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
_USED: Final = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}


@dataclass(frozen=True)
class Forever:
    """The same bytes again and again, until whoever reads has had enough."""

    piece: bytes


@dataclass(frozen=True)
class Keep:
    """The connection stays open after the answer."""


Step = bytes | float | Forever | Keep  # a float is a pause, in seconds
Reply = Sequence[Step]


@dataclass
class Rogue:
    """Where it is, its books, and what it was told to answer."""

    port: int = 0
    books: list[Entry] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """As an OpenAI-compatible upstream is named in settings."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        entry = Entry(first.split(" ")[1], headers.get("authorization", ""), headers, _json(raw), 0)
        self.books.append(entry)
        reply = next((said for mark, said in self.replies.items() if mark.encode() in raw), None)
        return await _play(reply or good(entry), writer, entry)


async def _play(reply: Reply, writer: asyncio.StreamWriter, entry: Entry) -> bool:
    """Say a reply; whether the connection stays open."""
    try:
        for step in reply:
            if isinstance(step, Keep):
                entry.ended = "done"
                return True
            await _take(step, writer)
        entry.ended = "done"
    except ConnectionError:
        entry.ended = "closed"
    return False


async def _take(step: Step, writer: asyncio.StreamWriter) -> None:
    if isinstance(step, float):
        await asyncio.sleep(step)
    elif isinstance(step, bytes):
        writer.write(step)
        await writer.drain()
    elif isinstance(step, Forever):
        for _ in range(_MOST // len(step.piece)):
            writer.write(step.piece)
            await writer.drain()


def _json(raw: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(raw)
    return raw.decode("latin-1")


def whole(body: bytes, kind: str = "application/json", status: str = "200 OK", *more: str) -> bytes:
    """A whole answer with its length; `more` are further header lines."""
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def stream(body: bytes, *more: str) -> bytes:
    """A whole stream of events."""
    return whole(body, "text/event-stream", "200 OK", *more)


def good(entry: Entry) -> Reply:
    """An answer as it should be: an echo, streamed or not, of either chat API."""
    if not isinstance(entry.body, dict) or not ({"messages", "input"} & set(entry.body)):
        return [whole(b"{}"), Keep()]
    said = entry.body["messages"] if "messages" in entry.body else entry.body["input"]
    text = text_of(said if isinstance(said, str) else said[-1].get("content"))
    if entry.body.get("stream"):
        return [stream(events(text, responses=entry.is_responses)), Keep()]
    return [whole(json.dumps(_whole(entry, text)).encode()), Keep()]


def events(text: str, *, responses: bool = False, usage: Any = None) -> bytes:
    """A stream that says a text in one word, and ends well."""
    shape = ResponsesShape() if responses else ChatShape()
    used = usage or (_USED if responses else _USAGE)
    return shape.begin() + shape.word(text) + shape.end(Script(), text, True, used)


def _whole(entry: Entry, text: str) -> Any:
    if entry.is_responses:
        return response_of(text, "completed", _USED)
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": _USAGE}


@contextmanager
def rogue() -> Iterator[Rogue]:
    """The upstream, listening; stopped at the end."""
    upstream, ready, loop = Rogue(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def listen() -> None:
        writers: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            await upstream.serve(reader, writer)
            writers.discard(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
        upstream.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        for writer in writers:
            writer.transport.abort()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(listen())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait(10)
        yield upstream
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
