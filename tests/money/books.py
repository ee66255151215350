"""What the scripted upstream would bill, in µUSD: the truth that every ledger is held against.

An entry of its books (`Upstream.books()`, see `tests.upstream`) tells tokens; with prices these
are money. Pure: no clock, no network.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from completions.prices import Price

Prices = Mapping[str, Price]


def billed(entry: Mapping[str, Any], prices: Prices) -> int:
    """What upstream bills for one POST, in µUSD, rounded up; `KeyError` for an unpriced model."""
    price = prices[entry["body"]["model"]]
    prompt, cached = entry["prompt_tokens"], entry["cached_tokens"]
    pico = (prompt - cached) * price.input + cached * price.cached_input
    pico += entry["output_tokens"] * price.output
    return int(-(-pico // 1_000_000))


def total(entries: Iterable[Mapping[str, Any]], prices: Prices) -> int:
    """What upstream bills for all of these, in µUSD, each POST rounded up by itself."""
    return sum(billed(entry, prices) for entry in entries)


def worst(body: Mapping[str, Any], price: Price, max_output: int) -> int:
    """The most that upstream can bill for a body, in µUSD rounded up.

    A token of the prompt is at least a byte of the body, and each message has some more; so may
    the instructions beside the input of a response.
    """
    messages = len(body["messages"]) if "messages" in body else len(body["input"]) + 1
    size = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    pico = (size + 16 * messages + 64) * price.input + max_output * price.output
    return int(-(-pico // 1_000_000))
