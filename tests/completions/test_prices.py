"""What a model costs: exact numbers, and a list that cannot be misread."""

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.prices import Price, Usage, read_prices, read_usage
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
        assert not price.reasoning  # what these three write is what one sees


def test_a_model_may_think_unless_it_is_said_not_to() -> None:
    """Whoever forgets the field is charged too much for a cut, and never too little."""
    assert read().reasoning is True
    assert read(reasoning="true").reasoning is True
    assert read(reasoning="false").reasoning is False


@pytest.mark.parametrize("wrong", ['"false"', "0", "1", "0.0", "[]", "{}", '""'])
def test_reasoning_is_true_or_false(wrong: str) -> None:
    """Nothing that might be either."""
    with pytest.raises(ValueError, match=r"^m: reasoning "):
        read(reasoning=wrong)


TOKENS = st.integers(0, 10**9)
PICO = st.integers(0, 10**12)
PRICES = st.builds(Price, PICO, PICO, PICO)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any usage; what was cached is a part of the prompt."""
    prompt = draw(TOKENS)
    return Usage(prompt, draw(st.integers(0, prompt)), draw(TOKENS))


def parts(price: Price, usage: Usage) -> list[Fraction]:
    """What each kind of token costs, in µUSD, exactly."""
    uncached = usage.prompt - usage.cached
    counts = ((uncached, price.input), (usage.cached, price.cached_input))
    return [Fraction(n * pico, 10**6) for n, pico in (*counts, (usage.output, price.output))]


@given(PRICES, usages())
def test_a_cost_is_rounded_up_once(price: Price, usage: Usage) -> None:
    """The sum of its exact parts, up to the next whole µUSD."""
    assert price.cost_of(usage) == ceil(sum(parts(price, usage)))


def test_rounding_each_part_would_be_dearer() -> None:
    """The control: three parts of 0.4 µUSD each are two µUSD together, not three."""
    price, usage = Price(400_000, 400_000, 400_000), Usage(2, 1, 1)
    assert price.cost_of(usage) == 2 < sum(map(ceil, parts(price, usage)))


@given(PRICES, usages(), st.integers(0, 10**6), st.integers(1, 50), st.data())
def test_no_honest_usage_costs_more_than_the_worst_case(
    price: Price, usage: Usage, body_bytes: int, messages: int, data: st.DataObject
) -> None:
    """No more tokens of prompt than its bytes and 16 a message and 64, no more output than asked.

    Nor where somebody made the cache the dearer of the two.
    """
    upper = body_bytes + 16 * messages + 64
    worst = price.worst_case(body_bytes=body_bytes, messages=messages, max_output=usage.output)
    prompt = data.draw(st.integers(0, upper))
    cached = data.draw(st.integers(0, prompt))
    assert price.cost_of(Usage(prompt, cached, usage.output)) <= worst.total
    nothing_cached, all_cached = (Usage(upper, cached, usage.output) for cached in (0, upper))
    assert worst.total == max(price.cost_of(nothing_cached), price.cost_of(all_cached))


def test_fewer_tokens_than_bytes_would_not_do() -> None:
    """The control: a prompt of a token a byte costs more than the usual four bytes a token."""
    usual = PRICE.worst_case(body_bytes=4000 // 4, messages=1, max_output=10)
    assert PRICE.cost_of(Usage(4000, 0, 10)) > usual.total


PRICE = Price(400_000, 100_000, 1_600_000)
SOUND = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
NO_COUNTS = ["9", 9.0, 9.5, True, False, None, -1, 10**9 + 1, 10**30, -(10**30), [9], {"n": 9}]


def cached(said: Any) -> dict[str, Any]:
    """A usage with these details of its prompt."""
    return {**SOUND, "prompt_tokens_details": said}


def test_a_usage_is_read() -> None:
    """Both halves; what was cached; what only the total tells counts as output."""
    assert read_usage(SOUND) == Usage(9, 0, 3)
    assert read_usage(cached({"cached_tokens": 4})) == Usage(9, 4, 3)
    assert read_usage(cached({"cached_tokens": 9, "audio_tokens": 0})) == Usage(9, 9, 3)
    assert read_usage({**SOUND, "total_tokens": 50}) == Usage(9, 0, 41)
    zero = {"prompt_tokens": 0, "completion_tokens": 0}
    assert read_usage(zero) == Usage(0, 0, 0)
    assert read_usage({**zero, "total_tokens": 7}) == Usage(0, 0, 7)
    assert read_usage({"prompt_tokens": 10**9, "completion_tokens": 1}) == Usage(10**9, 0, 1)


@pytest.mark.parametrize("half", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("said", NO_COUNTS)
def test_a_half_that_is_no_count_is_no_usage(half: str, said: Any) -> None:
    """Nothing is made of a string, a float, a boolean, a debt or a number past any model."""
    assert read_usage({**SOUND, half: said}) is None


@pytest.mark.parametrize("said", [None, True, 3, "usage", [], [SOUND], {}, {"total_tokens": 12}])
def test_what_names_no_half_is_no_usage(said: Any) -> None:
    """Whatever else it is."""
    assert read_usage(said) is None


@pytest.mark.parametrize("half", ["prompt_tokens", "completion_tokens"])
def test_a_missing_half_is_no_usage(half: str) -> None:
    """A total does not say which half is the dear one."""
    assert read_usage({name: said for name, said in SOUND.items() if name != half}) is None


@pytest.mark.parametrize("said", [*NO_COUNTS, 10, 11])
def test_a_doubtful_cache_is_no_cache(said: Any) -> None:
    """Neither a count that is none nor one above the prompt makes it cheaper."""
    assert read_usage(cached({"cached_tokens": said})) == Usage(9, 0, 3)
    assert read_usage(cached(said)) == Usage(9, 0, 3)


@pytest.mark.parametrize("said", [*NO_COUNTS, 0, 5, 11])
def test_a_doubtful_total_takes_nothing_away(said: Any) -> None:
    """One below the sum of its halves is not believed."""
    assert read_usage({**SOUND, "total_tokens": said}) == Usage(9, 0, 3)
