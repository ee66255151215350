"""Which characters a visitor's text may not carry, and how much longer others may make it.

The law: only what is invisible and has no use in text is unsafe. NUL, the control characters but
tab, line feed and carriage return, lone surrogates, noncharacters, and Unicode tag characters,
which can hide a second text inside the first. Tags are safe where they spell the flag of a region
(UTS #51, emoji tag sequences). All else is text: markup, quotes, joiners, bidirectional marks.
"""

import re

_BLACK_FLAG = "\U0001f3f4"
_REGION = r"[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"

# Written as what is safe: `re` searches for the complement of few ranges ten times faster. The
# flag is left out (it may begin a sequence), and so are the tags and the last two of each plane.
_SAFE = (
    r"\t\n\r -~\u00a0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd"
    r"\U00010000-\U0001f3f3\U0001f3f5-\U0001fffd\U000e0080-\U000efffd"
) + "".join(rf"\U{plane:04x}0000-\U{plane:04x}fffd" for plane in range(2, 17) if plane != 14)

# Matches a black flag, with its region if it has one, or else one unsafe character.
_SUSPECT = re.compile(rf"[^{_SAFE}](?:(?<={_BLACK_FLAG}){_REGION})?")

# How all that is unsafe begins in UTF-8.
_UNSAFE_BYTES = (
    *(b"\x7f", b"\xc2", b"\xef\xb7", b"\xef\xbf"),
    *(b"\xf0\x9f\xbf", b"\xf0\xaf\xbf", b"\xf0\xbf\xbf", b"\xf1", b"\xf2", b"\xf3", b"\xf4"),
)

# What normal form C writes as more bytes, alone or after a letter that it has to take apart: at
# most three times as many. Counted, because to normalise a long text can take seconds.
_LENGTHENED = re.compile(
    "[\u031b\u0323-\u0328\u032d\u032e\u0330\u0331\u0344\u0958-\u095f\u09dc\u09dd\u09df\u0a33\u0a36"
    "\u0a59-\u0a5b\u0a5e\u0b5c\u0b5d\u0f43\u0f4d\u0f52\u0f57\u0f5c\u0f69\u0f73\u0f75\u0f76\u0f78\u0f81"
    "\u0f93\u0f9d\u0fa2\u0fa7\u0fac\u0fb9\u2adc\ufa6c\ufacf-\ufad1\ufad5-\ufad7\ufb1d\ufb1f\ufb2a-\ufb4e"
    "\U0001d15e-\U0001d164\U0001d1bb-\U0001d1c0]"
)

# How all of it begins in UTF-8.
_LENGTHENED_BYTES = (
    *(b"\xcc", b"\xcd\x84", b"\xe0", b"\xe2\xab"),
    *(b"\xef\xa9", b"\xef\xab", b"\xef\xac", b"\xef\xad"),
    *(b"\xf0\x9d\x85", b"\xf0\x9d\x86", b"\xf0\x9d\x87"),
)


def clean(text: str) -> str:
    """Return the text without its unsafe characters, and otherwise as it is."""
    return _SUSPECT.sub(_flag_or_nothing, text)


def unsafe_character(text: str) -> str | None:
    """Name the first unsafe character as "U+0007", or return None when all are safe."""
    unsafe = (match[0] for match in _SUSPECT.finditer(text) if not _flag_or_nothing(match))
    first = next(unsafe, None)
    return None if first is None else f"U+{ord(first):04X}"


def may_be_unsafe(json: bytes) -> bool:
    """Whether JSON, free of escapes by number, may hold an unsafe character: soon told."""
    return b"\x7f" in json if json.isascii() else _holds(json, _UNSAFE_BYTES)


def most_gained(text: bytes) -> int:
    """The bytes that UTF-8 can gain in normal form C (UAX #15), by which many tokenizers of open
    models begin: at least as many as it does."""
    if text.isascii() or not _holds(text, _LENGTHENED_BYTES):
        return 0
    return 2 * len("".join(_LENGTHENED.findall(text.decode())).encode())


def _holds(text: bytes, beginnings: tuple[bytes, ...]) -> bool:
    """Whether one of them stands in it; it is the search for a single byte that costs nothing."""
    return any(each[:1] in text and each in text for each in beginnings)


def _flag_or_nothing(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith(_BLACK_FLAG) else ""
