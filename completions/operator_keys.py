"""The operator's keys: which one is tried first, and which after a refusal. Pure.

The law: a key that upstream refused comes last for a while, and every key has its turn again. They
are known by their places, in the order in which the operator named them, and never by their text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True, slots=True, eq=False)
class OperatorKey:
    """One of the keys, and its place among them, from 1."""

    secret: SecretStr
    place: int
    of: int


class OperatorKeys:
    """A list that can be replaced while turns are under way; the clock is in seconds."""

    def __init__(self, secrets: Sequence[SecretStr], *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.replace(secrets)

    def replace(self, secrets: Sequence[SecretStr]) -> None:
        """Take these instead, all of them as good as new."""
        number = len(secrets)
        self._keys = tuple(
            OperatorKey(secret, place, number) for place, secret in enumerate(secrets, start=1)
        )
        self._last_until = dict.fromkeys(self._keys, 0.0)

    def __iter__(self) -> Iterator[OperatorKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def first(self) -> OperatorKey | None:
        """The first that is not set back; else the one that is first so no longer."""
        if len(self._keys) == 1:
            return self._keys[0]
        now = self._clock()
        return min(self._keys, key=lambda each: max(self._last_until[each], now), default=None)

    @property
    def untried(self) -> OperatorKey | None:
        """The first that is not set back, or None where all are."""
        first = self.first
        return first if first and self._last_until[first] <= self._clock() else None

    def set_back(self, key: OperatorKey, seconds: float) -> OperatorKey | None:
        """Let a key come last for so long; the key, as it stands now, where it did not so before.

        It may have been named anew meanwhile, and is known by its text then.
        """
        now, named = self._clock(), (each for each in self._keys if each.secret == key.secret)
        current = next(named, None)
        if current is None:
            return None
        before = self._last_until[current]
        self._last_until[current] = max(before, now + seconds)
        return current if before <= now else None
