"""JSON texts that differ in the values of a few members alone, told apart without reading them."""

import re
from typing import Final, Self

# What a string may hold that needs no escape, and a number that no reader rounds.
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_WHOLE: Final = re.compile(rb"0|[1-9][0-9]{0,14}")
_VALUE: Final = re.compile(rb': ?(?:(")|(?=[0-9]))')

_Hole = tuple[int, bytes, re.Pattern[bytes]]  # where it begins, its name, what fits in


class Alike:
    """All texts that say what one JSON object says, but for the values of some of its members.

    Where a member's name stands once in a text without escapes, its value does too, and any other
    value of its kind can stand in its place: the rest of the text is still read as before.
    """

    def __init__(self, text: bytes, holes: list[_Hole]) -> None:
        self._parts: list[tuple[bytes, bytes, re.Pattern[bytes]]] = []
        at = 0
        for start, name, shape in holes:
            self._parts.append((text[at:start], name, shape))
            fits = shape.match(text, start)
            at = fits.end() if fits else start
        self._rest = text[at:]

    @classmethod
    def of(cls, text: bytes, *names: bytes) -> Self | None:
        """All that differ from this object in these members, strings or numbers, where it has them.

        None where it cannot be told for sure which value is theirs.
        """
        if b"\\" in text:
            return None
        holes: list[_Hole] = []
        for name in names:
            member = b'"%s"' % name
            if (count := text.count(member)) > 1:
                return None
            if count and (value := _VALUE.match(text, text.index(member) + len(member))):
                holes.append((value.end(), name, _PLAIN if value[1] else _WHOLE))
        return cls(text, sorted(holes, key=lambda hole: hole[0]))

    def values(self, text: bytes) -> dict[bytes, bytes] | None:
        """The values, as they stand in a text that is alike; None if it is not, or may not be."""
        found: dict[bytes, bytes] = {}
        at = 0
        for part, name, shape in self._parts:
            if not text.startswith(part, at):
                return None
            value = shape.match(text, at + len(part))
            if value is None:
                return None
            found[name] = value[0]
            at = value.end()
        return found if text[at:] == self._rest and (text.isascii() or _is_utf8(text)) else None

    def run(self, texts: list[bytes]) -> list[bytes]:
        """The values of the first texts, so many as are alike and differ in one string alone; none
        where one has to look more closely. All of them are looked through at once."""
        if len(self._parts) != 1:
            return []
        (part, _, shape), rest, values = self._parts[0], self._rest, list[bytes]()
        start = len(part)
        for text in texts:
            end = len(text) - len(rest)
            if not (text.startswith(part) and text.endswith(rest) and end >= start):
                break
            values.append(text[start:end])
        joined = b"".join(values)
        plain = shape is _PLAIN and joined.isascii() and shape.fullmatch(joined)
        return values if plain else []


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
