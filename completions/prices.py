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
    return {name: _price(name, said) for name, said in models.items()}


def _price(name: str, said: dict[str, Any]) -> Price:
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
    if isinstance(usd, bool) or not isinstance(usd, int | Decimal) or usd < 0:
        raise ValueError(f"{name}: {field} should be USD per million tokens, from 0")
    pico = Decimal(usd) * _PICO_PER_MICRO
    if pico != pico.to_integral_value():
        raise ValueError(f"{name}: {field} has more than six decimals")
    return int(pico)
