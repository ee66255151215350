"""The keys and arguments of a script, packed as Redis reads them: each word behind its length."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

_REMEMBERED: Final = 512  # sets of lengths; a worker meets some dozens
_NAME: Final = re.compile(r"%\((\w+)\)s")

_Pick = Callable[[Mapping[str, str]], Any]


class Words:
    """Keys and arguments of one call."""

    def __init__(self, keys: Sequence[str], argv: Sequence[str | int]) -> None:
        self._keys, self._argv = keys, argv
        self.count = 1 + len(keys) + len(argv)  # the first word says how many are keys

    def keys(self, _: Mapping[str, str]) -> Sequence[str]:
        """The keys."""
        return self._keys

    def argv(self, _: Mapping[str, str]) -> Sequence[str | int]:
        """The arguments."""
        return self._argv

    def packed(self, names: Mapping[str, str]) -> str:
        """All of them as Redis reads them behind EVALSHA and a digest."""
        return packed((len(self._keys), *self.keys(names), *self.argv(names)))


class Form(Words):
    """Keys and arguments that differ from call to call in several names: `%(rid)s` is one.

    To pack word by word costs more than all else in a call. But the names are of few lengths: for
    the lengths that were met before, all is packed already, and the names are put in their places.
    """

    def __init__(self, keys: Sequence[str], argv: Sequence[str | int]) -> None:
        super().__init__(keys, argv)
        self._packed = lru_cache(_REMEMBERED)(self._pack)

    def keys(self, names: Mapping[str, str]) -> Sequence[str]:
        """The keys with these names in them."""
        return [key % names for key in self._keys]

    def argv(self, names: Mapping[str, str]) -> Sequence[str | int]:
        """The arguments with these names in them."""
        return [str(word) % names for word in self._argv]

    def packed(self, names: Mapping[str, str]) -> str:
        """All of them as Redis reads them; the names in the same order each time."""
        pieces, pick = self._packed(tuple(names), tuple(map(len, names.values())))
        words = pieces[:]
        words[1::2] = pick(names)
        text = "".join(words)
        return text if text.isascii() else super().packed(names)  # lengths are in bytes

    def _pack(self, names: Sequence[str], lengths: Sequence[int]) -> tuple[list[str], _Pick]:
        """The words packed for these lengths, in pieces of which every other is one of the names,
        and how to pick what those stand for."""
        stand_ins = {name: "x" * length for name, length in zip(names, lengths, strict=True)}
        words = [f"{len(self._keys)}", *self._keys, *map(str, self._argv)]
        text = "".join([f"${len(word % stand_ins)}\r\n{word}\r\n" for word in words])
        pieces = _NAME.split(text)
        return pieces, itemgetter(*pieces[1::2])


def packed(words: Iterable[str | int]) -> str:
    """Each word behind its length in bytes."""
    return "".join([f"${len(text.encode())}\r\n{text}\r\n" for text in map(str, words)])
