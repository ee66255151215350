"""Which characters a visitor's text may not carry, and how they are taken out.

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


def clean(text: str) -> str:
    """Return the text without its unsafe characters, and otherwise as it is."""
    return _SUSPECT.sub(_flag_or_nothing, text)


def unsafe_character(text: str) -> str | None:
    """Name the first unsafe character as "U+0007", or return None when all are safe."""
    unsafe = (match[0] for match in _SUSPECT.finditer(text) if not _flag_or_nothing(match))
    first = next(unsafe, None)
    return None if first is None else f"U+{ord(first):04X}"


def _flag_or_nothing(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith(_BLACK_FLAG) else ""
