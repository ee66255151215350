"""The way back: upstream's bytes to the visitor, as they came and as soon as they are whole.

A stream's events leave unchanged the moment their border arrives; what is not whole waits. A
failure after the first byte is raised, for the caller to say in one frame.
"""

import json
import logging
import time
from contextlib import closing
from typing import Any, Final, Protocol

import aiohttp
from pydantic_core import from_json

from completions.charge import Meter
from completions.refusals import reported
from completions.scanner import Scanner, error_code, reports_error
from completions.upstream import MAX_ANSWER_BYTES, read_more
from patience import Wait
from security.errors import UpstreamFailure

log = logging.getLogger("keyturn")

_IGNORED: Final = (
    "upstream went past the output limit of %s tokens, so the answer was cut: "
    "look at output_limit_field in PRICES_FILE"
)
_TOO_LONG: Final = "The answer went past its greatest length and was cut."
KEEP_ALIVE: Final = b": keep-alive\n\n"
_IN_STEP: Final = 0.25  # seconds; what upstream writes in them, the abort margin covers
_LINGER: Final = 1.0  # seconds; a connection that upstream ends itself can be used again


class Answer(Protocol):
    """Where the answer goes."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the visitor, waiting for the slower of the two."""


class Watched:
    """An answer whose visitor is watched: while they take nothing, upstream runs ahead unread."""

    def __init__(self, answer: Answer, meter: Meter) -> None:
        self._answer = answer
        self._meter = meter

    async def write(self, data: bytes) -> None:
        """Send bytes to the visitor, and note when that took long."""
        started = time.monotonic()
        try:
            await self._answer.write(data)
        finally:
            self._meter.behind |= time.monotonic() - started > _IN_STEP


async def relay_stream(
    source: aiohttp.StreamReader,
    answer: Answer,
    scanner: Scanner,
    keep_alive: float,
    max_output: int | None = None,
) -> None:
    """Pass a whole SSE stream on; returns when upstream has ended it well.

    After `keep_alive` seconds of silence a comment is sent, always between two events. Once the
    stream is done nothing can fail any more, and upstream has a moment to end. Raises
    `UpstreamFailure` where upstream reports an error, breaks off, sends no SSE, or more deltas than
    `max_output` tokens can be.
    """
    with closing(Wait(keep_alive)) as silence, closing(Wait(_LINGER)) as linger:
        while not scanner.failed:
            try:
                with linger if scanner.done else silence:
                    data = await read_more(source)
            except TimeoutError:
                if scanner.done:
                    break
                await answer.write(KEEP_ALIVE)
                continue
            except UpstreamFailure:
                if not scanner.done:
                    raise
                break
            if not data:
                break
            if whole := scanner.feed(data):
                await answer.write(whole)
            if max_output is not None and scanner.deltas > max_output:
                log.warning(_IGNORED, max_output)
                if scanner.done:
                    return
                raise UpstreamFailure("upstream_unavailable", _TOO_LONG)
    if not scanner.done and (scanner.failed or not scanner.finished):
        raise reported(scanner.error_code)


async def read_whole(source: aiohttp.StreamReader) -> tuple[bytes, Any]:
    """A whole JSON answer, as bytes and as a value; raises `UpstreamFailure` for anything else."""
    chunks: list[bytes] = []
    size = 0
    try:
        while data := await read_more(source):
            chunks.append(data)
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise UpstreamFailure("upstream_unavailable")
        body = b"".join(chunks)
        value = _json(body)
    except (ValueError, RecursionError):
        raise UpstreamFailure("upstream_unavailable") from None
    if not isinstance(value, dict):
        raise UpstreamFailure("upstream_unavailable")
    if reports_error(value):
        raise reported(error_code(value))
    return body, value


def _json(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:  # it is stricter: half a pair of surrogates, say, is no error
        return json.loads(body)
