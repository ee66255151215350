"""What a model costs, and under which name it takes its output limit.

Prices are written in decimal USD per million tokens and kept as whole picoUSD per token:
exact, and never a float.
"""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, cast

OutputLimitField = Literal["max_completion_tokens", "max_tokens"]

_PICO_PER_MICRO: Final = 1_000_000
_DECIMALS: Final = 6
_HIGHEST: Final = 1_000_000
_FIELDS: Final = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Price:
    """Whole picoUSD per token, and the request field that limits the output of this model."""

    input: int
    cached_input: int
    output: int
    output_limit_field: OutputLimitField = "max_completion_tokens"


def read_prices(toml: bytes) -> dict[str, Price]:
    """The prices by model; raises `ValueError` where the list is not complete and exact."""
    models = tomllib.loads(toml.decode(), parse_float=Decimal).get("models", {})
    if not isinstance(models, dict):
        raise ValueError("models should be tables, one for each model")
    return {name: _price(name, said) for name, said in models.items()}


def _price(name: str, said: Any) -> Price:
    if not isinstance(said, dict):
        raise ValueError(f"{name}: should be a table with input, cached_input and output")
    field = said.get("output_limit_field", "max_completion_tokens")
    if field not in _FIELDS:
        raise ValueError(f"{name}: output_limit_field should be one of {', '.join(_FIELDS)}")
    return Price(
        input=_pico(name, said, "input"),
        cached_input=_pico(name, said, "cached_input"),
        output=_pico(name, said, "output"),
        output_limit_field=cast(OutputLimitField, field),
    )


def _pico(name: str, said: dict[str, Any], field: str) -> int:
    usd = said.get(field)
    if isinstance(usd, bool) or not isinstance(usd, int | Decimal):
        raise ValueError(f"{name}: {field} should be a number, in USD per million tokens")
    if not (Decimal(usd).is_finite() and 0 <= usd <= _HIGHEST):
        raise ValueError(f"{name}: {field} should be from 0 to {_HIGHEST} USD per million tokens")
    if usd != (exact := round(Decimal(usd), _DECIMALS)):
        raise ValueError(f"{name}: {field} has more than six decimals")
    return int(exact * _PICO_PER_MICRO)
