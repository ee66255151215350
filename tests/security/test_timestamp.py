"""Check 1: what counts as sent just now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import Rejection
from security.timestamp import require_fresh

NOW = 1_795_300_000_000

MALFORMED = [
    "",
    "0",
    str(NOW // 1000),
    f"{NOW}0",
    f"0{NOW}",
    f"+{NOW}"[:13],
    f"-{NOW}"[:13],
    f" {NOW}",
    f"{NOW} ",
    f"{NOW}\n",
    f"{NOW}\x00",
    "1_795_300_000",
    "1.79530000e12",
    "0x1a20000000a",
    f"{NOW},{NOW}",
    "٣" * 13,
    "１７９５３０００００００００",  # noqa: RUF001  # digits, but not ASCII
    "nan",
]


def code_of(shown: str | None, *, now_ms: int = NOW, max_skew: int = 120) -> str | None:
    """The code with which a timestamp is refused, or None."""
    try:
        require_fresh(shown, now_ms=now_ms, max_skew=max_skew)
    except Rejection as rejection:
        return rejection.code
    return None


@given(
    now_ms=st.integers(10**12 + 10**9, 10**13 - 10**9),
    max_skew=st.integers(1, 10**5),
    part=st.floats(-1, 1),
)
def test_a_timestamp_within_the_skew_is_fresh(now_ms: int, max_skew: int, part: float) -> None:
    """Early or late, up to the border and with it."""
    shown = now_ms + int(part * max_skew * 1000)
    assert code_of(str(shown), now_ms=now_ms, max_skew=max_skew) is None


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("max_skew", [1, 120, 86400])
def test_the_border_is_exact(sign: int, max_skew: int) -> None:
    """The last millisecond of the skew passes, the next one does not."""
    border = max_skew * 1000
    assert code_of(str(NOW + sign * border), max_skew=max_skew) is None
    assert code_of(str(NOW + sign * (border + 1)), max_skew=max_skew) == "timestamp_stale"


def test_a_timestamp_must_be_shown() -> None:
    """None shown is a mistake of its own, with a code of its own."""
    assert code_of(None) == "timestamp_missing"


@pytest.mark.parametrize("shown", MALFORMED)
def test_only_thirteen_ascii_digits_are_a_timestamp(shown: str) -> None:
    """Whatever else Python would read as a number is malformed, and never an exception."""
    assert code_of(shown) == "timestamp_malformed"


@given(st.text(max_size=20))
def test_any_text_is_answered_with_a_code(shown: str) -> None:
    """No text raises anything but a rejection."""
    assert code_of(shown) in (None, "timestamp_malformed", "timestamp_stale")


def test_reading_the_number_alone_would_not_do() -> None:
    """The control: `int` takes several of the malformed ones for a time that is fresh."""
    taken = [shown for shown in MALFORMED if reads_as(shown, NOW)]
    assert len(taken) >= 4


def reads_as(shown: str, number: int) -> bool:
    """Whether `int` finds this number in the text."""
    try:
        return int(shown) == number
    except ValueError:
        return False
