"""Counts by the minute, and the curves they make: turn_history.py."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turn_history import (
    BUCKETS,
    Tally,
    bucket_of,
    by_minute,
    curves,
    forecast,
    forecast_minutes,
    most_refused,
    quantile,
)
from turn_record import Outcome, TurnRecord

RECORD = TurnRecord(
    request_id="r" * 16,
    route="/v1/chat/completions",
    status=200,
    code="ok",
    model="gpt-4.1-mini",
    visitor="V" * 22,
    own_key=False,
    stream=True,
    input_tokens=12,
    output_tokens=3,
    cost_micro_usd=40,
    ttfb_ms=80.0,
    duration_ms=900.0,
)
REFUSED = replace(
    RECORD,
    status=429,
    code="rate_limited",
    input_tokens=None,
    output_tokens=None,
    cost_micro_usd=None,
    ttfb_ms=None,
)
HOUR = 500_000


class Clock:
    """A clock that goes when it is told to, in seconds."""

    def __init__(self, minute: int) -> None:
        self.now = minute * 60.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_is_counted_in_its_minute() -> None:
    """What it was, what it took, and whose key it was; once taken it is not there twice."""
    clock = Clock(HOUR * 60 + 7)
    tally = Tally(clock)
    tally(RECORD)
    tally(replace(RECORD, own_key=True, cost_micro_usd=0))
    clock.now += 60
    tally(REFUSED)
    assert tally.take() == (
        HOUR,
        {
            **{"07:c.ok": 2, "07:t.3": 2, "07:own": 1, "07:in": 24, "07:out": 6, "07:cost": 40},
            "08:c.rate_limited": 1,
        },
        {f"rate_limited {'V' * 22}": 1},
    )
    assert tally.take() == (HOUR, {}, {})


def test_hours_are_taken_one_by_one() -> None:
    """The oldest first: a batch is of one hour."""
    clock = Clock(HOUR * 60 + 59)
    tally = Tally(clock)
    tally(RECORD)
    clock.now += 60
    tally(RECORD)
    assert [tally.take()[0] for _ in range(3)] == [HOUR, HOUR + 1, HOUR + 1]


@pytest.mark.parametrize("code", ["ok", "gone", "slow_reader", "upstream_timeout"])
def test_who_was_let_in_is_no_source_of_refusals(code: Outcome) -> None:
    """Also when the answer failed, or nobody waited for it."""
    tally = Tally(Clock(0))
    tally(replace(RECORD, code=code))
    assert tally.take()[2] == {}


def test_what_is_kept_is_bounded() -> None:
    """Two hours of minutes, and so many sources, whatever comes in a week without Redis."""
    clock = Clock(HOUR * 60)
    tally = Tally(clock)
    for number in range(10_000):
        tally(replace(REFUSED, visitor=f"{number:022d}"))
        clock.now += 60
    taken = [tally.take() for _ in range(4)]
    assert sum(len(counts) for _, counts, _ in taken) == 120
    assert {f"{n // 60 + HOUR}" for n in (9999, 9998)} <= {str(hour) for hour, _, _ in taken}
    for number in range(2000):
        tally(replace(REFUSED, visitor=f"{number:022d}"))
    assert len(tally.take()[2]) == 500


@given(st.lists(st.floats(min_value=0.1, max_value=50_000), min_size=1, max_size=300))
def test_quantiles_are_as_exact_as_their_buckets(times: list[float]) -> None:
    """The true one lies in the bucket in which the told one lies, or at its border."""
    buckets: dict[int, int] = {}
    for ms in times:
        buckets[bucket_of(ms)] = buckets.get(bucket_of(ms), 0) + 1
    for share in (0.5, 0.95):
        told = quantile(buckets, share)
        rank = max(0, -(-int(share * len(times) * 1000) // 1000) - 1)
        true = sorted(times)[min(rank, len(times) - 1)]
        assert told is not None
        assert abs(bucket_of(told) - bucket_of(true)) <= 1


def test_no_turn_has_no_time() -> None:
    """And one that took longer than all buckets is told as that long at least."""
    assert quantile({}, 0.5) is None
    assert quantile({len(BUCKETS): 1}, 0.5) == BUCKETS[-1]


def test_curves_are_sums_of_their_minutes() -> None:
    """Counts are added, of streams and holds the highest is shown, of money the latest."""
    minute = HOUR * 60
    hours = {
        HOUR: {
            **{"00:c.ok": 1, "01:c.ok": 2, "04:c.ok": 4, "05:c.ok": 100},
            **{"01:c.gone": 1, "02:c.upstream_timeout": 3, "02:c.rate_limited": 5},
            **{"00:streams": 4, "01:streams": 2, "00:spent": 10, "04:spent": 30, "01:held": 9},
        }
    }
    drawn = curves(by_minute(hours), last=minute + 5, count=3, step=5)
    assert drawn["at"] == [(minute - 5) * 60, minute * 60, (minute + 5) * 60]
    assert drawn["answered"] == [0, 7, 100]
    assert drawn["left"] == [0, 1, 0]
    assert drawn["failed"] == [0, 3, 0]
    assert drawn["refused"] == {"rate_limited": [0, 5, 0]}
    assert drawn["streams"] == [None, 4, None]
    assert drawn["spent_micro_usd"] == [None, 30, None]
    assert drawn["held_micro_usd"] == [None, 9, None]
    assert drawn["ttfb_p50_ms"] == [None, None, None]


def test_the_most_refused_come_first() -> None:
    """Over hours, and those of whom nothing is known among them."""
    found = most_refused([{"paused A": 1, "paused -": 5}, {"paused A": 2, "rate_limited A": 9}], 2)
    assert found == [
        {"code": "rate_limited", "visitor": "A", "count": 9},
        {"code": "paused", "visitor": None, "count": 5},
    ]


NOON = HOUR // 24 * 1440 + 720
MIDNIGHT = NOON - 720


def test_a_day_goes_on_as_its_last_hour() -> None:
    """A pace of 100 µUSD a minute for the twelve hours that are left."""
    known = {minute: (minute - NOON + 90) * 100 for minute in forecast_minutes(NOON)}
    told = forecast(known, now_minute=NOON, spent=9000, resets_in=12 * 3600)
    assert told == {"micro_usd_an_hour": 6000, "spent_micro_usd": 9000 + 72_000}


@pytest.mark.parametrize(
    ("minutes", "known"), [(0, 0), (4, 0), (5, 1), (12, 2), (60, 12), (90, 12)]
)
def test_a_forecast_needs_some_minutes(minutes: int, known: int) -> None:
    """From a moment nothing can be told; nor from what was spent before midnight."""
    now = MIDNIGHT + minutes
    asked = list(forecast_minutes(now))
    assert len(asked) == known
    assert all(max(MIDNIGHT, now - 60) <= minute <= now - 5 for minute in asked)
    told = forecast({}, now_minute=now, spent=100, resets_in=80_000)
    assert told is None, "where no worker wrote"


def test_a_forecast_makes_do_with_what_is_known() -> None:
    """A server that was started half an hour ago has half an hour to tell from."""
    told = forecast({NOON - 30: 0}, now_minute=NOON, spent=3000, resets_in=3600)
    assert told == {"micro_usd_an_hour": 6000, "spent_micro_usd": 9000}
