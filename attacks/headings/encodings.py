"""Encodings: a body that reads otherwise for whoever looks at it first."""

import gzip
import zlib
from collections.abc import Callable

from attacks.attacker import OWN, RESPONSES, Attacker, Said
from attacks.case import Case, has_header, reaches_upstream, tells
from attacks.wire import Answer

MEDIA = "415 unsupported_media_type"
MALFORMED = "400 malformed_json"
Pack = Callable[[bytes], bytes]


def as_it_is(body: bytes) -> bytes:
    """Not packed at all."""
    return body


def packed(name: str, coding: Said, pack: Pack = as_it_is, *, control: bool = False) -> Case:
    """A good body with such a Content-Encoding."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(pack(a.body()), Content_Encoding=coding))

    words = f"Content-Encoding: {coding!r}"
    return Case(name, words, attack, (MEDIA,), untouched=True, control=control)


def typed(name: str, kind: Said, *, control: bool = False, sends: str = "") -> Case:
    """A good body under such a Content-Type."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(Content_Type=kind))

    words = sends or f"Content-Type: {kind!r}"
    return Case(name, words, attack, (MEDIA,), untouched=True, control=control)


def welcome(name: str, kind: str) -> Case:
    """A Content-Type that is as good."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(Content_Type=kind))

    return Case(name, f"Content-Type: {kind}", attack, ("200",), posts=1, admitted=1)


def written(
    name: str, sends: str, write: Pack, *, control: bool = False, peers: bool = True
) -> Case:
    """A good body in other bytes, on every route."""

    async def attack(a: Attacker) -> list[Answer]:
        bodies = ((a.body(), "/v1/chat/completions"), (a.asks(), RESPONSES), (a.own(), OWN))
        return await a.each(a.turn(write(body), path=path) for body, path in bodies)

    return Case(name, sends, attack, (MALFORMED,) * 3, untouched=True, control=control, peers=peers)


def recoded(coding: str) -> Pack:
    """The same text in another encoding."""
    return lambda body: body.decode().encode(coding)


def with_bytes(raw: bytes) -> Pack:
    """These bytes at the beginning of a text."""
    return lambda body: body.replace(b': "Quokka', b': "' + raw + b"Quokka", 1)


async def zip_bomb(a: Attacker) -> list[Answer]:
    """A gigabyte of blanks, packed twice."""
    once = gzip.compress(b" " * (1 << 24))
    twice = gzip.compress(once * 64)
    return await a.send(a.turn(twice, Content_Encoding="gzip, gzip"))


async def packed_answer(a: Attacker) -> list[Answer]:
    """Every coding is accepted: the answer comes in none, so that its length tells no secret."""
    return await a.send(a.turn(Accept_Encoding="gzip, deflate, br, zstd, *"))


async def other_words(a: Attacker) -> list[Answer]:
    """Accept for what we do not have: it is not looked at."""
    return await a.send(a.turn(Accept="application/xml", Accept_Charset="utf-16"))


CASES = [
    packed("gzip", "gzip", gzip.compress, control=True),
    packed("x-gzip", "x-gzip", gzip.compress),
    packed("deflate", "deflate", zlib.compress),
    packed("br", "br"),
    packed("zstd", "zstd"),
    packed("identity", "identity"),
    packed("an empty coding", ""),
    packed("gzip, not packed", "gzip"),
    packed("two codings", ["gzip", "br"]),
    packed("GZIP", "GZIP", gzip.compress),
    Case("a zip bomb", "a gigabyte of blanks, packed twice", zip_bomb, (MEDIA,), untouched=True),
    typed("text/json", "text/json"),
    typed("a vendor's JSON", "application/vnd.api+json", control=True),
    typed("JSON with a parameter", "application/json; version=1"),
    typed("utf-7", "application/json; charset=utf-7", control=True),
    typed("utf-16", "application/json; charset=utf-16"),
    typed("the charset latin-1", "application/json; charset=iso-8859-1"),
    typed("two charsets", "application/json; charset=utf-8; charset=utf-7"),
    typed("utf-8 and more", "application/json; charset=utf-8-sig"),
    typed("a comma", "application/json, text/plain"),
    typed("two types", ["application/json", "text/plain"]),
    typed("two equal types", ["application/json", "application/json"]),
    typed("an empty type", ""),
    typed("a star", "*/*"),
    typed("a letter that looks alike", "applicаtion/json".encode(), sends="a Cyrillic а in it"),
    welcome("in capitals", "APPLICATION/JSON; CHARSET=UTF-8"),
    welcome("in quotes", 'application/json; charset="utf-8"'),
    written("UTF-16, little end first", "without a mark", recoded("utf-16-le"), control=True),
    written("UTF-16, big end first", "without a mark", recoded("utf-16-be")),
    written("UTF-16 with a mark", "its bytes begin FF FE", recoded("utf-16")),
    written("UTF-32", "with a mark", recoded("utf-32"), control=True),
    written("UTF-8 with a mark", "EF BB BF", recoded("utf-8-sig"), peers=False),
    written("UTF-7", "+ACI- for quotes", lambda body: body.replace(b'"', b"+ACI-")),
    written("an overlong slash", "C0 AF", with_bytes(b"\xc0\xaf")),
    written("an overlong NUL", "C0 80", with_bytes(b"\xc0\x80")),
    written("a surrogate in UTF-8", "ED A0 80", with_bytes(b"\xed\xa0\x80"), control=True),
    written("past the last character", "F4 90 80 80", with_bytes(b"\xf4\x90\x80\x80")),
    written("five bytes for one", "F8 88 80 80 80", with_bytes(b"\xf8\x88\x80\x80\x80")),
    written("half a character", "E2 82", with_bytes(b"\xe2\x82")),
    written("latin-1", "E9", with_bytes(b"\xe9")),
    written("a raw NUL", "00 in a text", with_bytes(b"\0")),
    written("a raw line end", "0A in a text", with_bytes(b"\n")),
    written("NULs behind it", "a body and four NULs", lambda body: body + b"\0\0\0\0"),
    written("a record separator", "1E before it", lambda body: b"\x1e" + body),
    written("two bodies", "one behind the other", lambda body: body + body),
    written("a guard", ")]}', before it", lambda body: b")]}',\n" + body),
    Case(
        "a packed answer",
        "Accept-Encoding: gzip, deflate, br, zstd, *",
        packed_answer,
        ("200",),
        posts=1,
        admitted=1,
        also=(has_header("content-encoding"),),
    ),
    Case(
        "another kind of answer",
        "Accept: application/xml, Accept-Charset: utf-16",
        other_words,
        ("200",),
        posts=1,
        admitted=1,
        harm=tells("<?xml"),
        also=(reaches_upstream,),
    ),
]
