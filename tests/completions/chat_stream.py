"""The bytes of Chat Completions streams, and ways to feed them: for the tests of the scanner."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Protocol

from completions.scanner import Scanner

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def chunk(**fields: Any) -> bytes:
    """The JSON of a chunk."""
    return json.dumps({"id": "c", **fields}, ensure_ascii=False).encode()


def says(finish: str | None = None, **delta: Any) -> bytes:
    """The JSON of a chunk with one delta."""
    return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def event(data: bytes) -> bytes:
    """One event as OpenAI writes it."""
    return b"data: " + data + b"\n\n"


HELLO = event(says(content="Hello"))
ONLY_USAGE = event(chunk(choices=[], usage=USAGE))
DONE = event(b"[DONE]")
STREAM = (
    *(event(says(role="assistant", content="")), HELLO, event(says(content=" wörld 👋"))),
    *(event(says("stop")), ONLY_USAGE, DONE),
)


class Feeds(Protocol):
    """What takes bytes and lets some of them leave."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, return those that leave."""


def sent(scanner: Feeds, pieces: Iterable[bytes]) -> bytes:
    """All that leaves."""
    return b"".join([scanner.feed(piece) for piece in pieces])


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces."""
    borders = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[start:end] for start, end in pairwise(borders)]


def learnt(scanner: Scanner) -> dict[str, Any]:
    """All public attributes."""
    return {"waiting": scanner.waiting} | {
        name: value for name, value in vars(scanner).items() if not name.startswith("_")
    }
