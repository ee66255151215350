"""Slow heads, bodies and readers: whoever holds a place for nothing loses it in time."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from attacks.attacker import OWN, Attacker
from attacks.case import Case, Outcome, takes_longer
from attacks.rogue import Forever, stream
from attacks.wire import Answer, connected

HEAD: Final = 8.0  # seconds after which a head should be over, at a server that has 5 for it
BODY: Final = 13.0  # the same for a body, that may take 10
DEAF: Final = 18.0  # the same for a reader, who may stop for 15
LATE: Final = "408 request_timeout"
EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 60_000)

Split = Callable[[bytes], tuple[bytes, bytes]]


def at(border: bytes, past: int = 0) -> Split:
    """Before and after the first place where this stands."""

    def split(data: bytes) -> tuple[bytes, bytes]:
        place = data.index(border) + past
        return data[:place], data[place:]

    return split


def slowly(
    name: str,
    sends: str,
    build: Callable[[Attacker], bytes],
    split: Split,
    *back: str,
    most: float,
    gap: float = 0.5,
    control: bool = False,
    peers: bool = True,
    posts: int = 0,
) -> Case:
    """The second part of a turn is sent byte by byte, until the server has had enough."""

    async def attack(a: Attacker) -> list[Answer]:
        fast, slow = split(build(a))
        answers, _ = await a.drip(fast, slow[: int((most + 1) / gap)], gap, limit=1)
        return answers

    return Case(
        *(name, sends, attack, back or (LATE,), posts, posts),
        harm=takes_longer(most),
        slow=True,
        control=control,
        peers=peers,
        seconds=most,
    )


def silent(
    name: str,
    sends: str,
    build: Callable[[Attacker], bytes],
    *back: str,
    most: float,
    control: bool = False,
) -> Case:
    """A part of a turn, and then nothing."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(build(a), limit=most + 1)

    said: dict[str, Any] = {
        "harm": takes_longer(most),
        "slow": True,
        "control": control,
        "peers": True,
    }
    return Case(name, sends, attack, back or (LATE,), seconds=most, **said)


def head_alone(a: Attacker, **changed: Any) -> bytes:
    """A turn without its body."""
    return a.turn(**changed).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def in_chunks(a: Attacker) -> bytes:
    """A turn in chunks of one byte, over and over."""
    front = a.turn(b"", Content_Length=None, Transfer_Encoding="chunked")
    return front + b"1\r\n \r\n" * 99


async def deaf(a: Attacker) -> list[Answer]:
    """Ask for a long answer and read none of it, until upstream is left."""
    a.will_say(
        stream(b"")[:-4].replace(b"Content-Length: 0", b"X: y") + b"\r\n\r\n", Forever(EVENT)
    )
    async with connected(a.target.port, receive_buffer=4096) as connection:
        await connection.send(a.turn())
        end = time.monotonic() + DEAF + 2
        while not _left(a) and time.monotonic() < end:
            await asyncio.sleep(0.1)
    return []


def _left(a: Attacker) -> bool:
    mine = [entry for entry in a.rogue.books if a.mark in repr(entry.body)]
    return bool(mine) and all(entry.ended == "closed" for entry in mine)


def upstream_is_held(_: Case, outcome: Outcome) -> str | None:
    """Upstream still writes for a reader who reads nothing."""
    held = any(post["ended"] == "open" for post in outcome.posts)
    return "upstream is held by a deaf reader" if held else takes_longer(DEAF)(_, outcome)


async def crowd(a: Attacker) -> list[Answer]:
    """Three hundred connections that say half a head, or nothing; then a good turn."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(300):
            connection = await stack.enter_async_context(connected(a.target.port))
            if number % 2:
                await connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        return await a.send(a.turn())


CASES = [
    silent(
        "not a word", "a connection, and nothing", lambda a: b"", "closed", most=HEAD, control=True
    ),
    silent("half a line", "POST /v1/cha", lambda a: a.turn()[:12], most=HEAD),
    silent("half a head", "all but its end", lambda a: head_alone(a)[:-2], most=HEAD, control=True),
    slowly(
        "a head, byte by byte",
        "from its first byte",
        lambda a: a.turn(),
        at(b"POST"),
        most=HEAD,
        control=True,
    ),
    slowly(
        "a header, byte by byte",
        "all but the end at once",
        lambda a: a.turn(),
        at(b"Host", 2),
        most=HEAD,
    ),
    slowly(
        "one header after the other",
        "X: y, again and again",
        lambda a: head_alone(a)[:-2] + b"X:y\r\n" * 99,
        lambda data: (data[:-495], data[-495:]),
        most=HEAD,
        gap=0.1,
    ),
    slowly(
        "line ends",
        "before the first line",
        lambda a: b"\r\n" * 99,
        at(b"\r"),
        "closed",
        most=HEAD,
        gap=0.2,
    ),
    silent("a body that never comes", "the head of a turn", head_alone, most=BODY, control=True),
    slowly(
        "a body, byte by byte",
        "the head at once",
        lambda a: a.turn(),
        at(b"\r\n\r\n", 4),
        most=BODY,
        control=True,
    ),
    slowly("a body in chunks", "of one byte each", in_chunks, at(b"1\r\n \r\n"), most=BODY),
    slowly(
        "an own key, byte by byte",
        "POST /api/chat",
        lambda a: a.turn(path=OWN),
        at(b"\r\n\r\n", 4),
        most=BODY,
        peers=False,
    ),
    silent(
        "a body that is waited for",
        "Expect: 100-continue, and then nothing",
        lambda a: head_alone(a, Expect="100-continue"),
        *("100", LATE),
        most=BODY,
    ),
    silent(
        "a chunk that is never whole",
        "its size ffffffffffffffff",
        lambda a: (
            a.turn(b"", Content_Length=None, Transfer_Encoding="chunked") + b"f" * 16 + b"\r\nx"
        ),
        most=BODY,
    ),
    slowly(
        "the second head, byte by byte",
        "behind a good turn on one connection",
        lambda a: a.turn(Connection="keep-alive") + a.turn(),
        lambda data: (data[: data.rindex(b"POST")], data[data.rindex(b"POST") :]),
        *("200", LATE),
        most=HEAD + 1,
        posts=1,
    ),
    Case(
        "a deaf reader",
        "a turn whose answer has no end, and not a byte of it is read",
        deaf,
        (),
        posts=1,
        admitted=1,
        where="strict",
        harm=upstream_is_held,
        slow=True,
        seconds=DEAF,
        control=True,
    ),
    Case(
        "a crowd of them",
        "300 connections with half a head or nothing; a good turn beside them is answered",
        crowd,
        ("200",),
        posts=1,
        admitted=1,
        slow=True,
        harm=takes_longer(5),
    ),
]
