"""What a model costs: exact numbers, and a list that cannot be misread."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.prices import Price, read_prices
from tests.stage import ROOT

FIELDS = ("input", "cached_input", "output")


def read(**said: str | None) -> Price:
    """The price of a model, m, with these fields; the others cost 1, and `None` leaves one out."""
    fields = {**dict.fromkeys(FIELDS, "1"), **said}
    lines = [f"{name} = {value}" for name, value in fields.items() if value is not None]
    return read_prices("\n".join(['[models."m"]', *lines]).encode())["m"]


@given(st.integers(0, 10**12))
def test_a_price_is_whole_picousd_and_exact(pico: int) -> None:
    """A USD per million tokens is a million picoUSD per token, to the sixth decimal."""
    usd = f"{Decimal(pico).scaleb(-6):f}"
    assert read(output=usd) == Price(1_000_000, 1_000_000, pico)


def test_a_float_would_lose_money() -> None:
    """The control: among prices of a few decimals some come out wrong by way of a float."""
    prices = [f"{cents // 1000}.{cents % 1000:03d}" for cents in range(1, 5000)]
    off = [usd for usd in prices if int(float(usd) * 1_000_000) != read(input=usd).input]
    assert len(off) > 10
    assert all(read(input=usd).input == int(Decimal(usd) * 1_000_000) for usd in off)


def test_prices_may_be_whole_or_free() -> None:
    """`2`, `2.0`, `2e0` are one price, and `0` is a price."""
    assert {read(input=usd).input for usd in ("2", "2.0", "2e0", "2.000000000000000")} == {2000000}
    assert read(input="0").input == read(input="0.0").input == read(input="-0.0").input == 0


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "usd",
    [
        "-1",
        "-0.000001",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1e400",
        "1000000.000001",
        "0.0000001",
        "0.4000000000000000000000000000000000000000001",
        "999999999999999999999999.0000001",
        '"0.40"',
        "true",
        "[]",
        "{}",
        "1979-05-27",
    ],
)
def test_a_price_that_cannot_be_meant_is_refused(field: str, usd: str) -> None:
    """Model and field are named: negative, endless, finer than we count, or no number."""
    with pytest.raises(ValueError, match=rf"^m: {field} "):
        read(**{field: usd})


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_price_is_refused(field: str) -> None:
    """A model without one of its prices is not a cheap model."""
    with pytest.raises(ValueError, match=rf"^m: {field} "):
        read(**{field: None})


@pytest.mark.parametrize(
    "toml",
    [
        b"models = 3",
        b"models = []",
        b"[models]\nm = 3",
        b'[models]\nm = "1"',
        b"[[models]]\ninput = 1",
        b"[models.m",
        b"[models.m]\n[models.m]",
        b"\xff\xfe",
        b"\xef\xbb\xbfx",
    ],
)
def test_what_is_no_price_list_is_refused(toml: bytes) -> None:
    """With `ValueError`, so that start-up can say so, and with nothing else."""
    with pytest.raises(ValueError, match=r"."):
        read_prices(toml)


def test_a_list_of_nothing_prices_nothing() -> None:
    """Which model lacks a price is for the settings to say."""
    assert read_prices(b"") == read_prices(b"[models]") == {}


def test_a_model_names_the_field_of_its_output_limit() -> None:
    """One of two; the newer one unless said otherwise."""
    assert read().output_limit_field == "max_completion_tokens"
    for field in ("max_completion_tokens", "max_tokens"):
        assert read(output_limit_field=f'"{field}"').output_limit_field == field
    for wrong in ('"max_output_tokens"', '""', "1", "[]", "{}"):
        with pytest.raises(ValueError, match=r"^m: output_limit_field "):
            read(output_limit_field=wrong)


def test_the_list_that_comes_along_is_in_order() -> None:
    """Every model has its three prices, and what was in the cache is never dearer."""
    prices = read_prices((ROOT / "prices.toml").read_bytes())
    assert set(prices) == {"gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo"}
    for price in prices.values():
        assert 0 < price.cached_input <= price.input < price.output
