"""Every family of metrics, with its labels; docs/operate.md has the same table. Pure.

The law: each label takes its values from a list that is known when the server starts, so that
nobody who sends requests can make series.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

_ANSWERS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_FIRST_BYTES: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_CALLS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.6)


@dataclass(frozen=True, slots=True)
class Family:
    """Series of one name; `buckets` are the upper bounds of a histogram's, in seconds."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


TURNS: Final = Family(
    "keyturn_turns_total",
    "counter",
    ("route", "status", "code", "model"),
    "Turns that are over, refusals included.",
)
DURATION: Final = Family(
    "keyturn_turn_duration_seconds",
    "histogram",
    ("route", "model"),
    "How long an admitted turn took, from its head to its last byte.",
    _ANSWERS,
)
FIRST_BYTE: Final = Family(
    "keyturn_turn_ttfb_seconds",
    "histogram",
    ("route", "model"),
    "How long it took until the first byte of an answer left.",
    _FIRST_BYTES,
)
TOKENS: Final = Family(
    "keyturn_tokens_total",
    "counter",
    ("kind", "model", "key"),
    "Tokens that upstream says it billed.",
)
COST: Final = Family(
    "keyturn_cost_usd_total", "counter", ("model",), "What the operator's key was charged with."
)
REDIS_CALLS: Final = Family(
    "keyturn_redis_call_duration_seconds",
    "histogram",
    ("script",),
    "How long a script in Redis took, waiting and repetition included.",
    _CALLS,
)
REDIS_FAILURES: Final = Family(
    "keyturn_redis_failures_total",
    "counter",
    ("script", "reason"),
    "Calls that Redis did not answer well, or was not asked because it had failed before.",
)
WORKERS: Final = Family("keyturn_workers", "gauge", (), "Workers that serve.")
DRAINING: Final = Family(
    "keyturn_workers_draining", "gauge", (), "Of these, how many take no new turns any more."
)
STREAMS: Final = Family("keyturn_streams_in_flight", "gauge", (), "Turns that are being answered.")
STREAM_LIMIT: Final = Family(
    "keyturn_streams_limit", "gauge", (), "How many there may be: MAX_STREAMS of each worker."
)
BREAKERS: Final = Family(
    "keyturn_breaker_open",
    "gauge",
    ("dependency",),
    "Workers that do not ask it now, because it failed several times in a row.",
)
REDIS_UP: Final = Family(
    "keyturn_redis_up", "gauge", (), "1 where Redis told what follows, else 0 and it is missing."
)
CAP: Final = Family("keyturn_budget_cap_usd", "gauge", (), "Today's cap; missing without one.")
SPENT: Final = Family("keyturn_budget_spent_usd", "gauge", (), "What was spent today.")
HELD: Final = Family("keyturn_budget_held_usd", "gauge", (), "What is held for turns that run.")
HOLDS: Final = Family(
    "keyturn_holds", "gauge", ("state",), "Holds that are open, or lapsed and not counted yet."
)
OVER: Final = Family(
    "keyturn_answers_over_hold", "gauge", (), "Answers of today that cost more than was held."
)
PAST: Final = Family(
    "keyturn_answers_past_limit", "gauge", (), "Answers of today longer than they might be."
)
PAUSED: Final = Family("keyturn_admissions_paused", "gauge", (), "1 while the operator pauses.")

FAMILIES: Final = (
    *(TURNS, DURATION, FIRST_BYTE, TOKENS, COST, REDIS_CALLS, REDIS_FAILURES),
    *(WORKERS, DRAINING, STREAMS, STREAM_LIMIT, BREAKERS),
    *(REDIS_UP, CAP, SPENT, HELD, HOLDS, OVER, PAST, PAUSED),
)
