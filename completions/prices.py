"""What a model costs, and under which name it takes its output limit.

Prices are written in decimal USD per million tokens and kept as whole picoUSD per token:
exact, and never a float.
"""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, cast

from security.budget import PICO_PER_MICRO, WorstCase, round_up

OutputLimitField = Literal["max_completion_tokens", "max_tokens"]

_DECIMALS: Final = 6
_HIGHEST: Final = 1_000_000
_FIELDS: Final = ("max_completion_tokens", "max_tokens")
_TOKENS_PER_MESSAGE: Final = 16
_TOKENS_PER_REQUEST: Final = 64
_MOST_TOKENS: Final = 10**9  # more than any model takes: a count above it is no count
_CHAT: Final = ("prompt_tokens", "completion_tokens", "prompt_tokens_details")
_RESPONSES: Final = ("input_tokens", "output_tokens", "input_tokens_details")


class Usage(NamedTuple):
    """Tokens that upstream says it billed; `cached` are those of the prompt that cost less."""

    prompt: int
    cached: int
    output: int


@dataclass(frozen=True, slots=True)
class Price:
    """Whole picoUSD per token, and how this model is asked.

    `output_limit_field` is the request field that limits its output; `reasoning` says that it may
    write what nobody sees, so that the text of an answer does not tell its cost.
    """

    input: int
    cached_input: int
    output: int
    output_limit_field: OutputLimitField = "max_completion_tokens"
    reasoning: bool = True

    def worst_case(self, *, body_bytes: int, messages: int, max_output: int) -> WorstCase:
        """The most that a request can cost which upstream reads as so many bytes.

        A token is at least a byte.
        """
        tokens = body_bytes + messages * _TOKENS_PER_MESSAGE + _TOKENS_PER_REQUEST
        dearest = max(self.input, self.cached_input)
        return WorstCase(tokens * dearest, self.output, max_output)

    def cost_of(self, usage: Usage) -> int:
        """What this usage costs, in µUSD."""
        prompt = (usage.prompt - usage.cached) * self.input + usage.cached * self.cached_input
        return round_up(prompt + usage.output * self.output)


def read_usage(said: Any) -> Usage | None:
    """The usage that upstream reports, by either API; None where it is not a count of tokens.

    Reasoning counts as output, also where it is told only within the total.
    """
    if not isinstance(said, dict):
        return None
    sent, written, detailed = _CHAT if "prompt_tokens" in said else _RESPONSES
    prompt, output = _count(said.get(sent)), _count(said.get(written))
    if prompt is None or output is None:
        return None
    details = said.get(detailed)
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    total = _count(said.get("total_tokens")) or 0
    return Usage(
        prompt=prompt,
        cached=cached if cached is not None and cached <= prompt else 0,
        output=max(output, total - prompt),
    )


def _count(tokens: Any) -> int | None:
    if isinstance(tokens, bool) or not isinstance(tokens, int):
        return None
    return tokens if 0 <= tokens <= _MOST_TOKENS else None


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
    reasoning = said.get("reasoning", True)
    if not isinstance(reasoning, bool):
        raise ValueError(f"{name}: reasoning should be true or false")
    return Price(
        input=_pico(name, said, "input"),
        cached_input=_pico(name, said, "cached_input"),
        output=_pico(name, said, "output"),
        output_limit_field=cast(OutputLimitField, field),
        reasoning=reasoning,
    )


def _pico(name: str, said: dict[str, Any], field: str) -> int:
    usd = said.get(field)
    if isinstance(usd, bool) or not isinstance(usd, int | Decimal):
        raise ValueError(f"{name}: {field} should be a number, in USD per million tokens")
    if not (Decimal(usd).is_finite() and 0 <= usd <= _HIGHEST):
        raise ValueError(f"{name}: {field} should be from 0 to {_HIGHEST} USD per million tokens")
    if usd != (exact := round(Decimal(usd), _DECIMALS)):
        raise ValueError(f"{name}: {field} has more than six decimals")
    return int(exact * PICO_PER_MICRO)
