"""What a worker counts, and how Prometheus reads it. Pure.

The law: counting is adding to a number in memory; text is made when somebody asks. Counts of
several workers are added up, of those that have died too, so that no count ever falls.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from metric_families import (
    BREAKERS,
    CAP,
    COST,
    DRAINING,
    DURATION,
    FAMILIES,
    FIRST_BYTE,
    HELD,
    HOLDS,
    OVER,
    PAST,
    PAUSED,
    REDIS_CALLS,
    REDIS_FAILURES,
    REDIS_UP,
    SPENT,
    STREAM_LIMIT,
    STREAMS,
    TOKENS,
    TURNS,
    WORKERS,
    Family,
)
from security.budget import MICRO_PER_USD
from security.day import Day
from turn_record import TurnRecord

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
ROUTES: Final = ("/v1/chat/completions", "/v1/responses")
# An alert on a rate must see the step from none to the first.
FROM_ZERO: Final = (("200", "ok"), ("401", "token_reused"), ("401", "chain_revoked"))

Labels = tuple[str, ...]
Series = dict[Labels, list[float]]  # one number; of a histogram, each bucket's count and the sum
Samples = dict[str, Series]


class Metrics:
    """The counts of one worker; `models` are those that may be asked for."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models = frozenset(models)
        self.counts: Samples = {family.name: {} for family in FAMILIES}
        for route in ROUTES:
            for status, code in FROM_ZERO:
                for model in sorted(self._models):
                    self._add(TURNS, (route, status, code, model), 0)

    def turn(self, record: TurnRecord) -> None:
        """Count a turn that is over."""
        route, model = record.route, self._bounded(record.model)
        self._add(TURNS, (route, str(record.status), record.code, model), 1)
        if record.cost_micro_usd is None:  # not admitted
            return
        self._observe(DURATION, (route, model), record.duration_ms / 1000)
        if record.ttfb_ms is not None:
            self._observe(FIRST_BYTE, (route, model), record.ttfb_ms / 1000)
        self._add(COST, (model,), record.cost_micro_usd / MICRO_PER_USD)
        key = "own" if record.own_key else "operator"
        self._add(TOKENS, ("input", model, key), record.input_tokens or 0)
        self._add(TOKENS, ("output", model, key), record.output_tokens or 0)

    def redis_call(self, script: str, failure: str | None, seconds: float) -> None:
        """Count a call of a script, and how it failed if it did."""
        if failure:
            self._add(REDIS_FAILURES, (script, failure), 1)
        else:
            self._observe(REDIS_CALLS, (script,), seconds)

    def _bounded(self, model: str | None) -> str:
        if model is None:
            return "none"
        return model if model in self._models else "other"

    def _add(self, family: Family, labels: Labels, amount: float) -> None:
        series = self.counts[family.name]
        if labels in series:
            series[labels][0] += amount
        else:
            series[labels] = [amount]

    def _observe(self, family: Family, labels: Labels, seconds: float) -> None:
        series = self.counts[family.name]
        if labels not in series:
            series[labels] = [0] * (len(family.buckets) + 2)
        row = series[labels]
        row[bisect_left(family.buckets, seconds)] += 1
        row[-1] += seconds


def state_of(*, streams: int, limit: int, draining: bool, breakers: Mapping[str, bool]) -> Samples:
    """The gauges of one worker."""
    return {
        WORKERS.name: {(): [1]},
        DRAINING.name: {(): [int(draining)]},
        STREAMS.name: {(): [streams]},
        STREAM_LIMIT.name: {(): [limit]},
        BREAKERS.name: {(name,): [int(is_open)] for name, is_open in breakers.items()},
    }


def money_of(day: Day | None) -> Samples:
    """The gauges of the day's money, which all workers share; None where Redis did not tell."""
    if day is None:
        return {REDIS_UP.name: {(): [0]}}
    cap: Series = {} if day.cap is None else {(): [day.cap / MICRO_PER_USD]}
    return {
        REDIS_UP.name: {(): [1]},
        CAP.name: cap,
        SPENT.name: {(): [day.spent / MICRO_PER_USD]},
        HELD.name: {(): [day.held / MICRO_PER_USD]},
        HOLDS.name: {("open",): [day.holds], ("lapsed",): [day.lapsed]},
        OVER.name: {(): [day.over]},
        PAST.name: {(): [day.past]},
        PAUSED.name: {(): [int(day.paused)]},
    }


def added(all_samples: Iterable[Samples]) -> Samples:
    """All of them in one, number by number."""
    total: Samples = {}
    for samples in all_samples:
        for name, series in samples.items():
            into = total.setdefault(name, {})
            for labels, values in series.items():
                before = into.get(labels, [0] * len(values))
                into[labels] = [a + b for a, b in zip(before, values, strict=True)]
    return total


def as_json(samples: Samples) -> dict[str, Any]:
    """Samples in what JSON knows."""
    return {name: [[*each] for each in series.items()] for name, series in samples.items()}


def from_json(said: dict[str, Any]) -> Samples:
    """Samples from that."""
    return {
        name: {tuple(labels): values for labels, values in series} for name, series in said.items()
    }


def as_text(samples: Samples) -> str:
    """Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    lines: list[str] = []
    for family in FAMILIES:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, values in sorted(samples.get(family.name, {}).items()):
            lines += _lines(family, labels, values)
    return "\n".join([*lines, ""])


def _lines(family: Family, labels: Labels, values: list[float]) -> Iterator[str]:
    name, said = family.name, list(zip(family.labels, labels, strict=True))
    if family.kind != "histogram":
        yield f"{name}{_written(said)} {values[0]!r}"
        return
    count: float = 0
    bounds = [*map(repr, family.buckets), "+Inf"]
    for bound, more in zip(bounds, values[:-1], strict=True):
        count += more
        yield f"{name}_bucket{_written([*said, ('le', bound)])} {count!r}"
    yield f"{name}_sum{_written(said)} {values[-1]!r}"
    yield f"{name}_count{_written(said)} {count!r}"


def _written(labels: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
