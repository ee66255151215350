"""Size and depth bombs: a small effort that is to make a large one."""

import json
from collections.abc import Callable
from typing import Any

from attacks.attacker import OWN, RESPONSES, Attacker
from attacks.case import Case, Harm, any_of, reaches_upstream, takes_longer, tells
from attacks.wire import Answer

LARGE = "413 payload_too_large"
INVALID = "422 invalid_request"
MALFORMED = "400 malformed_json"
UNSUPPORTED = "400 unsupported_parameter"
BOMB = any_of(reaches_upstream, takes_longer(3), tells("Traceback", "RecursionError"))


def bomb(
    name: str,
    sends: str,
    build: Callable[[Attacker], bytes],
    back: str,
    *,
    control: bool = False,
    peers: bool = False,
    harm: Harm = BOMB,
    path: str = "/v1/chat/completions",
    **headers: Any,
) -> Case:
    """Such a body: refused before Redis is asked, and soon."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.listen(a.turn(build(a), path=path, **headers))

    said: dict[str, Any] = {"untouched": True, "harm": harm, "control": control, "peers": peers}
    return Case(name, sends, attack, (back,), **said)


def named(text: str, **more: Any) -> Callable[[Attacker], bytes]:
    """A good body with one more part, as it is written."""
    return lambda a: a.body(**more)[:-1] + b", " + text.encode() + b"}"


def content(make: Callable[[], Any]) -> Callable[[Attacker], bytes]:
    """A good body that says this."""
    return lambda a: a.body(make())


def messages(count: int, size: int = 1) -> Callable[[Attacker], bytes]:
    """A body of so many messages."""
    return lambda a: a.said(messages=[{"role": "user", "content": "x" * size}] * count)


def harmless(name: str, sends: str, build: Callable[[Attacker], bytes]) -> Case:
    """A body that is odd, and no harm: it is served, and soon."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.listen(a.turn(build(a)))

    return Case(name, sends, attack, ("200",), 1, 1, harm=takes_longer(3))


async def endless_chunks(a: Attacker) -> list[Answer]:
    """Chunks of 64 kB without an end."""
    front = a.turn(b"", Content_Length=None, Transfer_Encoding="chunked", Connection="keep-alive")
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    return await a.listen(front, *[piece] * 100)


async def promised(a: Attacker) -> list[Answer]:
    """Ten gigabytes, of which nothing is sent: the answer does not wait for them."""
    sizes = ("10737418240", "9" * 19)
    fronts = [a.turn(b"", Content_Length=size) for size in sizes]
    return [answer for front in fronts for answer in await a.listen(front, limit=3)]


async def at_the_limit(a: Attacker) -> list[Answer]:
    """A body of exactly MAX_BODY_BYTES, mostly blanks, and one of a byte more."""
    body = a.body()
    return await a.each(a.turn(body.ljust(size)) for size in (262_144, 262_145))


def deep(levels: int, inside: str = "1") -> str:
    """So many lists in each other."""
    return "[" * levels + inside + "]" * levels


BODIES = [
    Case(
        "a byte too many",
        "a body of MAX_BODY_BYTES, and one of a byte more",
        at_the_limit,
        ("200", LARGE),
        posts=1,
        admitted=1,
    ),
    bomb("5 MB", "a body of 5 MB", lambda a: a.body("x" * 5_000_000), LARGE, peers=True),
    bomb(
        "5 MB by an own key",
        "POST /api/chat",
        lambda a: a.own("x" * 5_000_000),
        LARGE,
        path=OWN,
    ),
    Case(
        "endless chunks",
        "64 kB each, up to 6 MB",
        endless_chunks,
        (LARGE,),
        untouched=True,
        harm=BOMB,
    ),
    Case(
        "10 GB, promised",
        "a Content-Length of 10 GB, and of 19 nines",
        promised,
        (LARGE,) * 2,
        untouched=True,
        seconds=3,
        harm=any_of(reaches_upstream, takes_longer(5)),
        control=True,
    ),
    bomb("100,000 lists", "[[[[…", lambda a: b"[" * 100_000, MALFORMED, control=True, peers=True),
    bomb("50,000 objects", '{"a":{"a":…', lambda a: b'{"a":' * 50_000, MALFORMED, peers=True),
    bomb(
        "deep, where anything goes",
        "500 lists in metadata",
        named(f'"metadata": {deep(500)}'),
        INVALID,
    ),
    bomb("just too deep", "65 lists in metadata", named(f'"metadata": {deep(64)}'), INVALID),
    bomb(
        "deep in a schema",
        "a schema of 200 levels",
        lambda a: a.body(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": json.loads('{"a":' * 200 + "1" + "}" * 200)},
            }
        ),
        INVALID,
    ),
    bomb(
        "deep in the input",
        "300 lists, Responses",
        lambda a: a.asks(0).replace(b'"input": 0', f'"input": {deep(300)}'.encode()),
        INVALID,
        path=RESPONSES,
    ),
    bomb(
        "20,000 names",
        "of one object",
        lambda a: json.dumps({f"n{n}": 0 for n in range(20_000)}).encode(),
        INVALID,
    ),
    bomb(
        "1,000 unknown names",
        "each would be an error",
        lambda a: a.body(**{f"n{n}": 0 for n in range(990)}),
        UNSUPPORTED,
    ),
    bomb(
        "a name twice", "messages, then messages", named('"messages": []'), MALFORMED, control=True
    ),
    bomb(
        "a name 10,000 times",
        "stream, again and again",
        named(", ".join(['"stream": true'] * 10_000)),
        INVALID,
    ),
    bomb("a name of 200 kB", "a parameter", lambda a: a.body(**{"x" * 200_000: 1}), UNSUPPORTED),
]
NUMBERS = [
    bomb(
        "5,000 digits", "max_tokens", named('"max_tokens": ' + "9" * 5_000), MALFORMED, control=True
    ),
    bomb("250,000 digits", "max_tokens", named('"max_tokens": ' + "9" * 250_000), MALFORMED),
    harmless("250,000 decimals", "temperature", named('"temperature": 0.' + "1" * 250_000)),
    bomb("1e999", "temperature", named('"temperature": 1e999'), MALFORMED, control=True),
    bomb("-1e999", "presence_penalty", named('"presence_penalty": -1e999'), MALFORMED),
    bomb("NaN", "temperature", named('"temperature": NaN'), MALFORMED, control=True, peers=True),
    bomb("-Infinity", "top_p", named('"top_p": -Infinity'), MALFORMED, peers=True),
    bomb("2^63", "seed", named(f'"seed": {1 << 63}'), INVALID),
    bomb("1e400000 as a whole", "seed", named('"seed": 1e400000'), MALFORMED),
]
LISTS = [
    bomb("51 messages", "of one letter", messages(51), INVALID),
    bomb("5,000 messages", "of one letter", messages(5_000), INVALID),
    bomb(
        "100,000 numbers",
        "for messages",
        lambda a: b'{"messages": [' + b"1," * 99_999 + b"1]}",
        INVALID,
    ),
    bomb("10,001 letters", "in one message", content(lambda: "x" * 10_001), INVALID),
    bomb(
        "10,001 letters in parts",
        "two parts of one message",
        content(lambda: [{"type": "text", "text": "x" * 5_001}] * 2),
        INVALID,
    ),
    bomb("10,001 astral letters", "four bytes each", content(lambda: "𝕏" * 10_001), INVALID),
    harmless(
        "5,000 empty parts",
        "of one message",
        content(lambda: [{"type": "text", "text": ""}] * 5_000),
    ),
    bomb("no messages", "an empty list", messages(0), INVALID),
    bomb("5,000 stops", "where four may be", lambda a: a.body(stop=["x"] * 5_000), INVALID),
    bomb(
        "51 items",
        "Responses",
        lambda a: a.asks([{"role": "user", "content": "x"}] * 51),
        INVALID,
        path=RESPONSES,
    ),
    bomb(
        "10,001 letters of input",
        "Responses",
        lambda a: a.asks("x" * 10_001),
        INVALID,
        path=RESPONSES,
    ),
    bomb(
        "10,001 letters of instructions",
        "Responses",
        lambda a: a.asks(instructions="x" * 10_001),
        INVALID,
        path=RESPONSES,
    ),
    bomb(
        "51 turns of history",
        "POST /api/chat",
        lambda a: a.own(chat_history=[{"role": "ai", "content": "x"}] * 51),
        INVALID,
        path=OWN,
    ),
    bomb(
        "10,001 letters by an own key",
        "POST /api/chat",
        lambda a: a.own("x" * 10_001),
        INVALID,
        path=OWN,
    ),
]


def whole(text: str) -> Callable[[Attacker], bytes]:
    """Just this for a body."""
    return lambda _: text.encode()


NO_OBJECTS = [
    bomb(f"the body {text}", text, whole(text), back, peers=back == MALFORMED)
    for text, back in (
        *(("", MALFORMED), (" ", MALFORMED), ("null", INVALID), ("[]", INVALID), ('"x"', INVALID)),
        *(
            ("1", INVALID),
            ("{", MALFORMED),
            ("{}", INVALID),
            ("{},{}", MALFORMED),
            ("'{}'", MALFORMED),
        ),
        *(("{}//", MALFORMED), ('{"a":1,}', MALFORMED), ("{a:1}", MALFORMED), ("true", INVALID)),
    )
]

CASES = [*BODIES, *NUMBERS, *LISTS, *NO_OBJECTS]
