"""A scripted OpenAI-compatible upstream of both chat APIs, and exact books of what it was asked.

Run as `python -m tests.upstream`: it listens on a free port of 127.0.0.1 and prints "ready <port>".
A request's last message says how to answer: plain text is answered with an echo; a JSON object
that begins with `{"play":` is a script, see `Script`. `GET /books` tells every POST so far with
what became of it (`GET /books?from=7` without the first seven), `POST /books` forgets them.
`POST /keys` says by a JSON object how keys are answered from now on, whatever they ask: by a script
that is laid over the message's, `{"sk-x": {"status": 401, "body": …}}`.

The books also say what this upstream itself would bill, exactly, whoever got it: `prompt_tokens`,
`cached_tokens` (a part of the prompt) and `output_tokens` (hidden reasoning included). They are
counted as they arise. An answer of 300 and up bills nothing; any other bills the prompt from its
start and its reasoning before the first word; a word is counted when it is generated, before it is
written. An odd answer (`body`, `raw`) has no words. The request's output limit is honoured: the
answer ends before it would be passed, with finish_reason "length". Usage, where it is sent, states
these books. `tests.money.books.billed` says what an entry costs.
"""

import asyncio
import contextlib
import json
import math
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from tests.upstream_shapes import ChatShape, ResponsesShape, response_of


@dataclass
class Script:
    """How to answer: every field is optional.

    words: how many content chunks; text: what each says; gap_ms: pause before each chunk.
    status, headers, body: an error or odd answer instead. silent: accept and never answer.
    hold_ms: pause before the headers. usage: false leaves the usage chunk out, an object is sent
    instead. done: false leaves [DONE] out. reset_after, hang_after, error_after: after so many
    chunks cut the connection, stop sending, or send an error frame. raw: pieces sent verbatim.
    prompt, cached: tokens of the prompt, and how many of them were in the cache. reasoning: hidden
    tokens before the first word; tokens_per_word: of each word. ignore_limit: generate all of it,
    whatever output limit the request names.
    """

    words: int = 3
    text: str = "word "
    gap_ms: float = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    silent: bool = False
    hold_ms: float = 0
    usage: Any = True
    done: bool = True
    finish: bool = True
    reset_after: int | None = None
    hang_after: int | None = None
    error_after: int | None = None
    raw: list[str] | None = None
    prompt: int = 7
    cached: int = 0
    reasoning: int = 0
    tokens_per_word: int = 1
    ignore_limit: bool = False


@dataclass
class Entry:
    """One POST: what it carried, what became of it, and what it would be billed for."""

    path: str
    authorization: str
    headers: dict[str, str]
    body: Any
    at: float
    chunks: int = 0
    ended: str = "open"  # open | done | closed (by the client)
    ended_at: float = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def is_responses(self) -> bool:
        """Whether it was asked by the Responses API."""
        return self.path.endswith("/responses")


BOOKS: list[Entry] = []
KEYS: dict[str, Any] = {}


def play(**script: Any) -> str:
    """The message content that makes the upstream follow a script."""
    return json.dumps({"play": script})


def script_of(body: Any) -> Script:
    """The script that a request's last message carries."""
    said = body["messages"] if "messages" in body else body["input"]
    content = text_of(said if isinstance(said, str) else said[-1].get("content"))
    if not content.startswith('{"play":'):
        return Script(text=content + " ")
    return Script(**json.loads(content)["play"])


def text_of(content: Any) -> str:
    """The text of a message, whose parts are joined."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return str(content)


def output_limit(body: Any) -> float:
    """The output tokens that a request allows."""
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    named = (body.get(name) for name in names)
    return min((limit for limit in named if limit is not None), default=math.inf)


def begin_bill(entry: Entry, script: Script) -> None:
    """An answer begins: its prompt counts, and what is thought before the first word."""
    entry.prompt_tokens, entry.cached_tokens = script.prompt, min(script.cached, script.prompt)
    limit = math.inf if script.ignore_limit else output_limit(entry.body)
    entry.reasoning_tokens = int(min(script.reasoning, limit))
    entry.output_tokens = entry.reasoning_tokens


def words_within_limit(entry: Entry, script: Script) -> int:
    """How many words can be generated."""
    if script.ignore_limit or not script.tokens_per_word:
        return script.words
    left = output_limit(entry.body) - entry.output_tokens
    return int(min(script.words, left // script.tokens_per_word))


def usage_of(script: Script, entry: Entry) -> Any:
    """What the answer is said to have cost: its books, unless the script says otherwise."""
    if script.usage is not True:
        return script.usage or None
    sent, written = ("input", "output") if entry.is_responses else ("prompt", "completion")
    return {
        f"{sent}_tokens": entry.prompt_tokens,
        f"{written}_tokens": entry.output_tokens,
        "total_tokens": entry.prompt_tokens + entry.output_tokens,
        f"{sent}_tokens_details": {"cached_tokens": entry.cached_tokens},
        f"{written}_tokens_details": {"reasoning_tokens": entry.reasoning_tokens},
    }


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer one POST as its script says, and keep the books."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    authorization = headers.get("authorization", "")
    entry = Entry(request.path, authorization, headers, None, time.time())
    BOOKS.append(entry)
    try:
        entry.body = await request.json()
        by_key = KEYS.get(authorization.removeprefix("Bearer "), {})
        script = replace(script_of(entry.body), **by_key)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        entry.ended = "done"
        return web.json_response({"error": {"message": "What is this?"}}, status=400)
    try:
        response = await _perform(request, entry, script)
        entry.ended = "done"
        return response
    except (asyncio.CancelledError, ConnectionError):
        entry.ended = "closed"
        raise asyncio.CancelledError from None  # which aiohttp takes in silence
    finally:
        entry.ended_at = time.time()


async def _perform(request: web.Request, entry: Entry, script: Script) -> web.StreamResponse:
    await asyncio.sleep(script.hold_ms / 1000)
    if script.silent:
        await asyncio.sleep(3600)
    if script.status < 300:
        begin_bill(entry, script)
    if script.status != 200 or script.body is not None:
        return web.json_response(script.body, status=script.status, headers=script.headers)
    if not entry.body.get("stream") and script.raw is None:
        whole = _whole_response if entry.is_responses else _whole
        return web.json_response(whole(entry, script), headers=script.headers)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **script.headers})
    await response.prepare(request)
    if script.raw is not None:
        for piece in script.raw:
            await response.write(piece.encode("utf-8", "surrogateescape"))
            await asyncio.sleep(script.gap_ms / 1000)
        return response
    return await _stream(request, response, entry, script)


async def _stream(
    request: web.Request, response: web.StreamResponse, entry: Entry, script: Script
) -> web.StreamResponse:
    shape = ResponsesShape() if entry.is_responses else ChatShape()
    await response.write(shape.begin())
    words = words_within_limit(entry, script)
    for number in range(words):
        if script.reset_after == number and request.transport:
            request.transport.abort()
            return response
        if script.hang_after == number:
            await asyncio.sleep(3600)
        if script.error_after == number:
            await response.write(shape.error())
            return response
        await asyncio.sleep(script.gap_ms / 1000)
        entry.output_tokens += script.tokens_per_word
        await response.write(shape.word(script.text))
        entry.chunks += 1
    told = entry.is_responses or entry.body.get("stream_options", {}).get("include_usage")
    usage = usage_of(script, entry) if told else None
    await response.write(shape.end(script, script.text * words, words == script.words, usage))
    return response


def _whole(entry: Entry, script: Script) -> Any:
    words = words_within_limit(entry, script)
    entry.output_tokens += words * script.tokens_per_word
    message = {"role": "assistant", "content": script.text * words}
    finish = "stop" if words == script.words else "length"
    answer = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage_of(script, entry),
    }
    return answer if script.usage else {name: answer[name] for name in answer if name != "usage"}


def _whole_response(entry: Entry, script: Script) -> Any:
    words = words_within_limit(entry, script)
    entry.output_tokens += words * script.tokens_per_word
    status = "completed" if words == script.words else "incomplete"
    return response_of(script.text * words, status, usage_of(script, entry))


async def books(request: web.Request) -> web.Response:
    """Every POST so far, or those from a number on."""
    first = int(request.query.get("from", 0))
    return web.json_response([vars(entry) for entry in BOOKS[first:]])


async def rule_keys(request: web.Request) -> web.Response:
    """Answer keys like this from now on, and all others as they ask."""
    KEYS.clear()
    KEYS.update(await request.json())
    return web.json_response([])


async def forget(_: web.Request) -> web.Response:
    """Begin new books."""
    BOOKS.clear()
    return web.json_response([])


async def _serve() -> None:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/responses", complete)
    app.router.add_get("/books", books)
    app.router.add_post("/books", forget)
    app.router.add_post("/keys", rule_keys)
    runner = web.AppRunner(app, handler_cancellation=True, keepalive_timeout=75)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("ready", runner.addresses[0][1], flush=True)
    # Whoever started us holds the other end of stdin: when it is gone, so are we.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
