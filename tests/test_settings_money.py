"""How the caps of a day are written: exact, and off by its word only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.settings_stage import chosen, refusal

CAPS = ["daily_budget_usd", "visitor_daily_budget_usd"]


@pytest.mark.parametrize("name", CAPS)
@pytest.mark.parametrize(
    ("usd", "micro_usd"),
    [
        ("5", 5_000_000),
        ("5.0", 5_000_000),
        ("5.00", 5_000_000),
        (" 05.5 ", 5_500_000),
        ("0.000001", 1),
        ("0.29", 290_000),
        ("0", 0),
        ("0.000000", 0),
        ("999999999.999999", 999_999_999_999_999),
        ("off", None),
        ("OFF", None),
        (" Off ", None),
    ],
)
def test_a_cap_is_usd_to_the_sixth_decimal_or_off(
    name: str, usd: str, micro_usd: int | None
) -> None:
    """Kept as whole millionths; nothing is no cap but the word."""
    assert getattr(chosen(**{name: usd}), name) == micro_usd


@given(st.integers(0, 10**15 - 1))
def test_a_cap_is_exact(micro_usd: int) -> None:
    """Every amount that can be written is the amount that is kept."""
    written = f"{micro_usd // 10**6}.{micro_usd % 10**6:06}"
    assert chosen(daily_budget_usd=written).daily_budget_usd == micro_usd


def test_a_float_would_give_some_away() -> None:
    """The control: by way of a float, 0.29 USD are fewer millionths; here they are not."""
    cents = [f"{cents // 100}.{cents % 100:02}" for cents in range(1, 1000)]
    wrong = [
        usd for usd in cents if int(float(usd) * 10**6) * 100 != int(usd.replace(".", "")) * 10**6
    ]
    assert len(wrong) > 10
    assert all(chosen(daily_budget_usd=usd).caps.day == round(float(usd) * 10**6) for usd in wrong)


@pytest.mark.parametrize("name", CAPS)
@pytest.mark.parametrize(
    "usd",
    [
        *("", " ", "-1", "-0.01", "+5", "1e3", "1E3", "5,00", "5.", ".5", "1.2.3", "1_000", "0x5"),
        *("$5", "5$", "5 USD", "5.00€", "\u0665", "nan", "inf", "infinity", "none", "null", "no"),
        *("false", "unlimited", "off!", "0.0000001", "5.0000000", "1000000000", "9" * 5000),
    ],
)
def test_what_might_be_no_cap_is_asked_back(name: str, usd: str) -> None:
    """Anything that is no plain amount, finer than is counted, or a wish for no cap."""
    said = refusal(**{name: usd})
    told = "should be US dollars such as 5.00, with up to six decimals, or off"
    assert said == f"{name.upper()}: {told}"
