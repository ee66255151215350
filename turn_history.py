"""Counts of turns by the minute: how a worker gathers them, and what curves they make. Pure.

The law: what is kept is bounded. Codes come from the failure table, times fall into fixed buckets,
and of those who were refused only the most frequent are told apart.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from turn_record import TurnRecord

# Upper ends of the buckets of times to the first byte, in ms; the last bucket has none.
BUCKETS: Final = (
    *(25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 4000),
    *(6000, 8000, 12000, 20000, 60000),
)
LEFT: Final = frozenset({"gone", "slow_reader"})
FAILED: Final = frozenset(
    {
        *("upstream_rejected", "upstream_rate_limited", "upstream_timeout"),
        *("upstream_unavailable", "internal_error"),
    }
)
_ADMITTED: Final = frozenset({"ok"}) | LEFT | FAILED
_MOST_MINUTES: Final = 120
_LEAST_MINUTES: Final = 5  # from which a forecast can be made
_MOST_SOURCES: Final = 500
_NOBODY: Final = "-"

Measures = dict[str, int]


@dataclass(slots=True)
class _Hour:
    minutes: dict[int, Measures]
    sources: dict[str, int]


class Tally:
    """What this worker counted and has not written down yet; an observer of turns.

    `clock` gives Unix seconds. More than two hours of minutes are never kept.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hours: dict[int, _Hour] = {}

    def __call__(self, record: TurnRecord) -> None:
        minute = self.minute
        hour = self._hours.get(minute // 60)
        if hour is None:
            hour = self._hours[minute // 60] = _Hour({}, {})
        if minute not in hour.minutes:
            hour.minutes[minute] = {}
            self._forget_old()
        _count(hour.minutes[minute], record)
        if record.code not in _ADMITTED:
            source = f"{record.code} {record.visitor or _NOBODY}"
            if source in hour.sources or len(hour.sources) < _MOST_SOURCES:
                hour.sources[source] = hour.sources.get(source, 0) + 1

    @property
    def minute(self) -> int:
        """The minute at hand, counted from 1970."""
        return int(self._clock() // 60)

    def take(self) -> tuple[int, Measures, Measures]:
        """Hand over the oldest hour that was counted in, or the one at hand with nothing in it.

        The counts are by `<minute>:<measure>`, those of the refused by `<code> <visitor>`.
        """
        if not self._hours:
            return self.minute // 60, {}, {}
        number = min(self._hours)
        hour = self._hours.pop(number)
        counts = {
            f"{minute % 60:02d}:{measure}": count
            for minute, measures in hour.minutes.items()
            for measure, count in measures.items()
        }
        return number, counts, hour.sources

    def _forget_old(self) -> None:
        while sum(len(hour.minutes) for hour in self._hours.values()) > _MOST_MINUTES:
            oldest = self._hours[min(self._hours)]
            del oldest.minutes[min(oldest.minutes)]
            if not oldest.minutes:
                del self._hours[min(self._hours)]


def _count(measures: Measures, record: TurnRecord) -> None:
    _add(measures, f"c.{record.code}", 1)
    if record.own_key:
        _add(measures, "own", 1)
    if record.status == 200 and record.ttfb_ms is not None:
        _add(measures, f"t.{bucket_of(record.ttfb_ms)}", 1)
    for name, amount in (
        ("in", record.input_tokens),
        ("out", record.output_tokens),
        ("cost", record.cost_micro_usd),
    ):
        if amount:
            _add(measures, name, amount)


def _add(measures: Measures, name: str, amount: int) -> None:
    measures[name] = measures.get(name, 0) + amount


def bucket_of(ms: float) -> int:
    """Which bucket a time falls into."""
    return bisect_left(BUCKETS, ms)


def quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """The time in ms that this share of turns did not exceed, as exactly as buckets tell."""
    total = sum(buckets.values())
    if not total:
        return None
    rank, below = share * total, 0
    for at in range(len(BUCKETS)):
        inside = buckets.get(at, 0)
        if inside and below + inside >= rank:
            start = BUCKETS[at - 1] if at else 0
            return round(start + (BUCKETS[at] - start) * (rank - below) / inside, 1)
        below += inside
    return float(BUCKETS[-1])


def by_minute(hours: Mapping[int, Mapping[str, int]]) -> dict[int, Measures]:
    """The counts of some hours, by the minute since 1970."""
    minutes: dict[int, Measures] = {}
    for hour, counts in hours.items():
        for field, number in counts.items():
            minute, _, measure = field.partition(":")
            minutes.setdefault(hour * 60 + int(minute), {})[measure] = number
    return minutes


def curves(minutes: Mapping[int, Measures], *, last: int, count: int, step: int) -> dict[str, Any]:
    """`count` points, each of `step` minutes, the last of which holds the minute `last`.

    Counts are sums; of streams and of money held the highest, of money spent the latest. None is
    where nothing is known: no worker wrote then.
    """
    ends = last // step * step + step
    starts = [ends - step * back for back in range(count, 0, -1)]
    points = [_point(minutes, start, step) for start in starts]
    codes = sorted({name for point in points for name in point if name.startswith("c.")})
    refused = [code[2:] for code in codes if code[2:] not in _ADMITTED]
    return {
        "step_seconds": step * 60,
        "at": [start * 60 for start in starts],
        "answered": [point.get("c.ok", 0) for point in points],
        "left": [_sum(point, LEFT) for point in points],
        "failed": [_sum(point, FAILED) for point in points],
        "refused": {code: [point.get(f"c.{code}", 0) for point in points] for code in refused},
        "own_key": [point.get("own", 0) for point in points],
        "input_tokens": [point.get("in", 0) for point in points],
        "output_tokens": [point.get("out", 0) for point in points],
        "charged_micro_usd": [point.get("cost", 0) for point in points],
        "ttfb_p50_ms": [_time(point, 0.5) for point in points],
        "ttfb_p95_ms": [_time(point, 0.95) for point in points],
        "streams": [point.get("streams") for point in points],
        "spent_micro_usd": [point.get("spent") for point in points],
        "held_micro_usd": [point.get("held") for point in points],
    }


def _point(minutes: Mapping[int, Measures], start: int, step: int) -> Measures:
    point: Measures = {}
    for minute in range(start, start + step):
        for measure, number in minutes.get(minute, {}).items():
            if measure == "spent":
                point[measure] = number  # a day begins at nothing again
            elif measure in ("streams", "held"):
                point[measure] = max(point.get(measure, 0), number)
            else:
                _add(point, measure, number)
    return point


def _sum(point: Measures, codes: Iterable[str]) -> int:
    return sum(point.get(f"c.{code}", 0) for code in codes)


def _time(point: Measures, share: float) -> float | None:
    return quantile({int(n[2:]): count for n, count in point.items() if n[:2] == "t."}, share)


def most_refused(hours: Iterable[Mapping[str, int]], most: int) -> list[dict[str, Any]]:
    """Who was refused most, and why; visitor None where a request did not come to tell whose."""
    sums: Measures = {}
    for sources in hours:
        for source, count in sources.items():
            _add(sums, source, count)
    first = sorted(sums.items(), key=lambda each: (-each[1], each[0]))[:most]
    return [
        {"code": code, "visitor": None if visitor == _NOBODY else visitor, "count": count}
        for (code, _, visitor), count in ((source.partition(" "), n) for source, n in first)
    ]


def forecast_minutes(now_minute: int) -> range:
    """The minutes of the last hour, but of today, at which the forecast wants to know the money."""
    midnight = now_minute // 1440 * 1440
    return range(max(midnight, now_minute - 60), now_minute - _LEAST_MINUTES + 1, _LEAST_MINUTES)


def forecast(
    spent_at: Mapping[int, int], *, now_minute: int, spent: int, resets_in: int
) -> dict[str, int] | None:
    """What the day will have cost at its end if it goes on as in the last hour, or since midnight.

    `spent_at` tells what had been spent at some of `forecast_minutes`. None where that is too
    short a time to tell from.
    """
    if not spent_at:
        return None
    since = min(spent_at)
    pace = max(0, spent - spent_at[since]) * 60 // (now_minute - since)
    return {"micro_usd_an_hour": pace, "spent_micro_usd": spent + pace * resets_in // 3600}
