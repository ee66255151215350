"""What was found, what was promised of it, and whether the promises are kept.

A number belongs to a peer, a measure and a round. Ratios are taken within a round, so that both
sides had the same machine at nearly the same time; what is told is the median of the rounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

Median = float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """What a number is, and how it is written."""

    name: str
    title: str
    unit: str
    digits: int = 0


MEASURES: Final = {
    measure.name: measure
    for measure in (
        Measure("whole_us", "turn in one piece", "µs"),
        Measure("burst_us", "stream of 50 chunks, all at once", "µs"),
        Measure("paced_us", "stream of 50 chunks, one at a time", "µs"),
        Measure("first_p50_ms", "added until the first byte, median", "ms", 2),
        Measure("first_p99_ms", "the same, p99", "ms", 2),
        Measure("chunk_p99_ms", "delay of a chunk, p99", "ms", 2),
        Measure("open", "streams open", ""),
        Measure("on_time_percent", "chunks within 100 ms", "%", 2),
        Measure("stream_p99_ms", "delay of a chunk, p99", "ms", 1),
        Measure("stream_kib", "memory of a stream", "KiB", 1),
        Measure("some_mib", "memory of a worker at fewer streams", "MiB"),
        Measure("stream_core_percent", "of one core", "%"),
        Measure("start_s", "start until the first answer", "s", 2),
        Measure("idle_mib", "memory then", "MiB"),
        Measure("redis_before", "commands to Redis before the first byte", ""),
        Measure("redis_after", "after it", ""),
        Measure("deaf_mib", "more memory for clients that read nothing", "MiB"),
        Measure("deaf_left", "of them not cut, or not settled", ""),
        Measure("deaf_s", "until all were", "s"),
    )
}


@dataclass
class Findings:
    """All numbers of a run, and what could not be measured."""

    numbers: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, peer: str, round_: int, found: dict[str, float]) -> None:
        """Note what a round found of a peer."""
        for name, value in found.items():
            self.numbers.setdefault((peer, MEASURES[name].name), {})[round_] = value

    def median(self, peer: str, measure: str) -> Median:
        """The median of the rounds, None where there was none."""
        values = self.numbers.get((peer, measure))
        return median(values.values()) if values else None

    def spread(self, peer: str, measure: str) -> tuple[float, float]:
        """The least and the greatest of the rounds."""
        values = self.numbers[peer, measure].values()
        return min(values), max(values)

    def ratio(self, measure: str, peer: str, to: str) -> Median:
        """How many times `to`'s is that of `peer`: the median of ratios within one round."""
        ours, theirs = (self.numbers.get((each, measure), {}) for each in (peer, to))
        ratios = [ours[round_] / theirs[round_] for round_ in ours if theirs.get(round_)]
        return median(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: a number of Keyturn's that stays within a bound."""

    text: str
    value: Callable[[Findings], Median]
    bound: float
    at_least: bool = False
    unit: str = ""

    def kept(self, findings: Findings) -> bool | None:
        """Whether it is kept; None where it was not measured."""
        value = self.value(findings)
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def _times(measure: str, to: str, bound: float, text: str) -> Target:
    return Target(text, lambda found: found.ratio(measure, "keyturn", to), bound, unit="×")


def _cheaper(than: str, bound: float, text: str) -> Target:
    def value(found: Findings) -> Median:
        return found.ratio("burst_us", than, "keyturn")

    return Target(text, value, bound, at_least=True, unit="×")


def _plain(measure: str, bound: float, text: str, *, at_least: bool = False) -> Target:
    unit = MEASURES[measure].unit
    unit = f" {unit}" if unit else ""
    return Target(text, lambda found: found.median("keyturn", measure), bound, at_least, unit)


TARGETS: Final = (
    _times("whole_us", "bare", 2.5, "CPU of a turn in one piece, to the bare pass-through's"),
    _times("burst_us", "bare", 1.6, "CPU of 50 chunks at once, to the bare pass-through's"),
    _times("paced_us", "bare", 1.6, "CPU of 50 chunks one at a time, to the bare pass-through's"),
    _times("burst_us", "nginx", 12, "CPU of 50 chunks at once, to nginx's"),
    _times("paced_us", "nginx", 12, "CPU of 50 chunks one at a time, to nginx's"),
    _cheaper("litellm", 100, "CPU of 50 chunks at once, LiteLLM's to ours"),
    _cheaper("portkey", 5, "CPU of 50 chunks at once, Portkey's to ours"),
    _cheaper("naive", 20, "CPU of 50 chunks at once, the naive proxy's to ours"),
    _plain("first_p50_ms", 2, "added until the first byte, median"),
    _plain("first_p99_ms", 5, "added until the first byte, p99"),
    _plain("on_time_percent", 99.9, "chunks of the open streams within 100 ms", at_least=True),
    _plain("stream_kib", 40, "memory of an open stream"),
    _plain("some_mib", 200, "memory of a worker with 2,000 open streams"),
    _plain("deaf_mib", 75, "more memory for 500 clients that read nothing"),
    _plain("deaf_left", 0, "of them not cut, or not settled"),
    _plain("redis_before", 1, "commands to Redis before the first byte"),
    _plain("redis_after", 1, "commands to Redis after it"),
    _plain("start_s", 1, "start until the first answer"),
    _plain("idle_mib", 80, "memory of a worker that has answered once"),
)


def judged(findings: Findings) -> Iterator[tuple[Target, float, bool]]:
    """The promises that were measured, with what was found, and whether each is kept."""
    for target in TARGETS:
        value, kept = target.value(findings), target.kept(findings)
        if value is not None and kept is not None:
            yield target, value, kept
