"""The charge of a turn by the Responses API: upstream's bill, else the most it can have been."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from completions.charge import Meter
from completions.grammars import ResponsesScanner
from completions.prices import Price, Usage, read_usage
from tests.completions.charge_stage import (
    BILLED,
    HOLD,
    MARGIN,
    PLAIN,
    THINKER,
    WORST,
    charged,
    seen,
)
from tests.completions.responses_stream import (
    BEGUN,
    CALL,
    FAILED,
    FLAT,
    NESTED,
    STREAMS,
    USAGE,
    ZERO,
    added,
    delta,
    ended,
    event,
    numbered,
)
from tests.completions.test_charge_bounds import Honest, honest

START = numbered(*BEGUN)
HELLO = delta("Hello")
CALLED = event(added(CALL)[0], **added(CALL)[1])
LARGE = {"input_tokens": 5000, "output_tokens": 2000, "total_tokens": 7000}
OF_LARGE = 2000 + 3200
LESS_CACHED = BILLED - 1  # four tokens of USAGE's prompt come from the cache


def read(*events: bytes) -> Meter:
    """A stream that was served and read so far."""
    scanner = ResponsesScanner()
    for each in events:
        scanner.feed(each)
    return Meter(sent=True, scanner=scanner)


def whole(**answer: Any) -> Meter:
    """An answer in one piece that was read."""
    scanner = ResponsesScanner()
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    scanner.take_whole({"output": [message], **answer})
    return Meter(sent=True, scanner=scanner)


@dataclass(frozen=True)
class Row:
    """How far a turn came, and what it costs."""

    name: str
    meter: Meter
    micro_usd: int
    price: Price = PLAIN


WHOLE_HOLD = HOLD.micro_usd
ROWS = [
    Row("served, nothing read", read(), WHOLE_HOLD),
    Row("only its beginning", read(*START), WHOLE_HOLD),
    Row("an error before any text", read(*START, NESTED), WHOLE_HOLD),
    Row("failed before any text", read(*START, FAILED), WHOLE_HOLD),
    Row("ended without text or usage", read(ended(usage=None)), WHOLE_HOLD),
    Row("only a summary of thoughts", read(delta("Hm", "reasoning_summary_text")), WHOLE_HOLD),
    Row("cut after text", read(*START, HELLO), seen(5)),
    Row("cut after more text", read(HELLO, HELLO), seen(10)),
    Row("cut after a summary too", read(delta("He", "reasoning_summary_text"), HELLO), seen(7)),
    Row("an error after text", read(HELLO, FLAT), seen(5)),
    Row("failed after text", read(HELLO, FAILED), seen(5)),
    Row("a call", read(CALLED, delta("{}", "function_call_arguments")), seen(len("call_77look{}"))),
    Row("a refusal is text", read(delta("No.", "refusal")), seen(3)),
    Row("more text than was held for", read(delta("x" * 5000)), WHOLE_HOLD),
    Row("ended well, no usage", read(HELLO, ended(usage=None)), seen(5)),
    Row(
        "ended well, a usage that is none", read(HELLO, ended(usage={"input_tokens": "9"})), seen(5)
    ),
    Row("completed", read(HELLO, ended()), LESS_CACHED),
    Row("incomplete", read(HELLO, ended("incomplete")), LESS_CACHED),
    Row("completed without text", read(ended()), LESS_CACHED),
    Row("zero", read(HELLO, ended(usage=ZERO)), 0),
    Row("more than was held", read(HELLO, ended(usage=LARGE)), OF_LARGE),
    Row(
        "failed, and told a usage below what was seen",
        read(HELLO, event("response.failed", response={"usage": ZERO})),
        seen(5),
    ),
    Row(
        "failed, and told a dear usage",
        read(HELLO, event("response.failed", response={"usage": LARGE})),
        OF_LARGE,
    ),
    Row("usage before the end", read(HELLO, event("x", response={"usage": ZERO})), seen(5)),
    Row("a slow visitor, cut", replace(read(HELLO), behind=True), WHOLE_HOLD),
    Row("a slow visitor, usage", replace(read(HELLO, ended()), behind=True), LESS_CACHED),
    Row("a thinker, cut after text", read(HELLO), WHOLE_HOLD, THINKER),
    Row("a thinker, no usage", read(HELLO, ended(usage=None)), WHOLE_HOLD, THINKER),
    Row("a thinker, usage", read(HELLO, ended()), LESS_CACHED, THINKER),
    Row("whole, usage", whole(usage=USAGE), LESS_CACHED),
    Row("whole, more than was held", whole(usage=LARGE), OF_LARGE),
    Row("whole, no usage", whole(), seen(5)),
    Row("whole, no usage, a thinker", whole(), WHOLE_HOLD, THINKER),
    Row("whole, nothing in it", whole(output=[]), WHOLE_HOLD),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_charge_is_that_of_the_table(row: Row) -> None:
    """Each row, to the µUSD."""
    assert charged(row.meter, row.price) == row.micro_usd


@pytest.mark.parametrize("kind", STREAMS)
def test_every_whole_stream_costs_what_it_says(kind: str) -> None:
    """Every kind of answer, by its own usage."""
    assert charged(read(*STREAMS[kind][0])) == LESS_CACHED


@pytest.mark.parametrize("price", [PLAIN, THINKER])
def test_each_delta_past_the_limit_is_charged(price: Price) -> None:
    """An answer that went past its hold costs at least a token for each delta that was seen."""
    hold = replace(HOLD, micro_usd=116, max_output=2)
    meter = read(CALLED, *[HELLO] * 8)
    assert charged(meter, price, hold=hold) == WORST.with_output(9) > hold.micro_usd
    assert meter.went_past(8)
    assert not meter.went_past(9)


def usage_of(upstream: Honest) -> dict[str, Any]:
    """What it says by this API that it bills."""
    return {
        "input_tokens": upstream.prompt,
        "input_tokens_details": {"cached_tokens": upstream.cached, "cache_write_tokens": 0},
        "output_tokens": upstream.output,
        "output_tokens_details": {"reasoning_tokens": upstream.hidden},
        "total_tokens": upstream.prompt + upstream.output,
    }


KINDS = st.sampled_from(["output_text", "refusal", "function_call_arguments", "reasoning_text"])


def events_of(upstream: Honest, kind: str) -> list[bytes]:
    """What was read of it, as text of this kind."""
    return [*START, *(delta(text, kind) for text, _ in upstream.pieces[: upstream.read])]


@given(honest(), KINDS | st.just("reasoning_summary_text"))
@example(Honest(280, 0, 0, (("x" * 1000, 1000),), 1), "output_text")
@example(Honest(280, 0, 0, (("x", 1), ("x" * 100, 100)), 1), "refusal")
@example(Honest(280, 0, 0, (("x" * 900, 900),), 1), "reasoning_summary_text")
def test_a_cut_is_never_charged_less_than_was_billed(upstream: Honest, kind: str) -> None:
    """Whatever was written and not read, within the margin; and never more than was held."""
    meter = read(*events_of(upstream, kind), HELLO)
    assert upstream.bill(PLAIN) <= charged(meter) <= HOLD.micro_usd
    assert upstream.bill(PLAIN) <= charged(read(*events_of(upstream, kind))) <= HOLD.micro_usd


@given(honest(hidden=True), KINDS)
@example(Honest(280, 0, 1000, (), 0), "output_text")
def test_a_cut_thinker_is_never_charged_less_than_was_billed(upstream: Honest, kind: str) -> None:
    """However much it thought that nobody sees."""
    meter = read(*events_of(upstream, kind))
    assert upstream.bill(THINKER) <= charged(meter, THINKER) <= HOLD.micro_usd


@given(honest(hidden=True), KINDS, st.sampled_from(["completed", "incomplete"]))
def test_the_final_usage_is_charged_exactly(upstream: Honest, kind: str, how: str) -> None:
    """Not a µUSD more or less, whatever was read besides."""
    for price in (PLAIN, THINKER):
        meter = read(*events_of(upstream, kind), ended(how, usage=usage_of(upstream)))
        assert charged(meter, price) == upstream.bill(price)
    assert charged(whole(usage=usage_of(upstream))) == upstream.bill(PLAIN)


def test_less_would_not_do() -> None:
    """The control: without a margin, or with a token a delta, an honest upstream bills more."""
    tail = Honest(280, 0, 0, (("x", 1), ("x" * 100, 100)), 1)
    assert charged(read(*events_of(tail, "output_text")), margin=0) < tail.bill(PLAIN)
    dense = Honest(280, 0, 0, (("x" * 900, 900),), 1)
    assert WORST.with_output(1 + MARGIN) < dense.bill(PLAIN)


COUNTS: st.SearchStrategy[Any] = st.integers(-2, 3000) | st.sampled_from(
    [10**30, 10**9 + 1, 1.5, "3", True, None, [], {}]
)
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": COUNTS,
        "output_tokens": COUNTS,
        "total_tokens": COUNTS,
        "input_tokens_details": COUNTS | st.fixed_dictionaries({"cached_tokens": COUNTS}),
    },
)


@given(USAGES, st.sampled_from([PLAIN, THINKER]))
def test_only_usage_can_charge_more_than_was_held(usage: dict[str, Any], price: Price) -> None:
    """Any usage at the end: what is no count of tokens is none, and then the estimate holds."""
    amount = charged(read(HELLO, ended(usage=usage)), price)
    stated = read_usage(usage)
    if stated is None:
        assert amount == (WHOLE_HOLD if price.reasoning else seen(5))
    else:
        assert amount == price.cost_of(stated)


def test_a_usage_of_both_apis_is_read_by_its_own_names() -> None:
    """Some servers say both; the cache's share is not counted twice, nor the total left out."""
    assert read_usage(USAGE) == Usage(prompt=9, cached=4, output=3)
    assert read_usage({**USAGE, "total_tokens": 20}) == Usage(prompt=9, cached=4, output=11)
    chat = {"prompt_tokens": 8, "completion_tokens": 2}
    assert read_usage({**USAGE, **chat, "total_tokens": 10}) == Usage(8, 0, 2)
