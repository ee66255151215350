"""The charge of a turn, as a table: what upstream says it billed, else the most it can have."""

from dataclasses import dataclass

import pytest

from completions.charge import Meter, charge
from completions.prices import Price
from security.budget import Hold, WorstCase
from tests.completions.charge_stage import (
    BILLED,
    ERROR,
    HOLD,
    MARGIN,
    PLAIN,
    PROMPT,
    REFUSAL,
    ROLE,
    STOP,
    THINKER,
    WORST,
    behind,
    charged,
    only,
    read,
    seen,
    stating,
    using,
    whole,
)
from tests.completions.chat_stream import DONE, HELLO, ONLY_USAGE, USAGE, event, says


@dataclass(frozen=True)
class Row:
    """How far a turn came, and what it costs."""

    name: str
    meter: Meter
    micro_usd: int
    price: Price = PLAIN


NOTHING = 0
WHOLE_HOLD = HOLD.micro_usd
ZERO = using(0, 0)
LARGE = using(5000, 2000)
OF_LARGE = 2000 + 3200

ROWS = [
    Row("never connected", Meter(), NOTHING),
    Row("sent, no status", Meter(sent=True), WHOLE_HOLD),
    Row("refused by its status", Meter(sent=True, refused=True), NOTHING),
    Row("served, nothing read", read(), WHOLE_HOLD),
    Row("only the role", read(ROLE), WHOLE_HOLD),
    Row("an error before any text", read(ROLE, ERROR), WHOLE_HOLD),
    Row("refused behind a 200", read(ROLE, REFUSAL), NOTHING),
    Row("refused behind a 200 after text", read(HELLO, REFUSAL), seen(5)),
    Row("refused behind a 200 after unseen thoughts", read(ROLE, REFUSAL), WHOLE_HOLD, THINKER),
    Row(
        "refused behind a 200 after usage that is not the last",
        read(only(USAGE), REFUSAL),
        WHOLE_HOLD,
    ),
    Row("finished without text", read(ROLE, STOP), WHOLE_HOLD),
    Row("cut after text", read(ROLE, HELLO), seen(5)),
    Row("cut after more text", read(ROLE, HELLO, HELLO), seen(10)),
    Row("an error after text", read(HELLO, ERROR), seen(5)),
    Row("text of several bytes a character", read(event(says(content="é👋"))), seen(6)),
    Row("a refusal is text", read(event(says(refusal="No."))), seen(3)),
    Row("thoughts that are shown are text", read(event(says(reasoning="Hm"))), seen(2)),
    Row("more text than was held for", read(event(says(content="x" * 5000))), WHOLE_HOLD),
    Row("ended well, no usage", read(HELLO, STOP, DONE), seen(5)),
    Row("usage at the end", read(HELLO, STOP, ONLY_USAGE, DONE), BILLED),
    Row("usage, and cut before [DONE]", read(HELLO, STOP, ONLY_USAGE), BILLED),
    Row("usage with the finish_reason", read(stating(USAGE, "stop")), BILLED),
    Row("usage with no finish_reason, [DONE]", read(HELLO, ONLY_USAGE, DONE), BILLED),
    Row("usage with no finish_reason, cut", read(HELLO, ONLY_USAGE), seen(5)),
    Row("the last usage counts", read(stating(LARGE), STOP, ONLY_USAGE), BILLED),
    Row("usage so far, and cut", read(stating(using(9, 1)), stating(using(9, 2))), seen(10)),
    Row("dear usage so far, and cut", read(stating(LARGE)), OF_LARGE),
    Row("dear usage so far, an error", read(stating(LARGE), ERROR), OF_LARGE),
    Row("zero", read(HELLO, STOP, only(ZERO)), NOTHING),
    Row("zero so far, and cut", read(stating(ZERO)), seen(5)),
    Row("more than was held", read(HELLO, STOP, only(LARGE)), OF_LARGE),
    Row("a usage that is none", read(HELLO, STOP, only(using("9", 3)), DONE), seen(5)),
    Row("a usage that is none, no text", read(STOP, only(using("9", 3)), DONE), WHOLE_HOLD),
    Row("a usage that is empty", read(HELLO, STOP, only({}), DONE), seen(5)),
    Row("a slow visitor, cut after text", behind(HELLO), WHOLE_HOLD),
    Row("a slow visitor, no usage", behind(HELLO, STOP, DONE), WHOLE_HOLD),
    Row("a slow visitor, dear usage so far", behind(stating(LARGE)), OF_LARGE),
    Row("a slow visitor, usage", behind(HELLO, STOP, ONLY_USAGE), BILLED),
    Row("a thinker, nothing read", read(), WHOLE_HOLD, THINKER),
    Row("a thinker, cut after text", read(ROLE, HELLO), WHOLE_HOLD, THINKER),
    Row("a thinker, no usage", read(HELLO, STOP, DONE), WHOLE_HOLD, THINKER),
    Row("a thinker, usage", read(HELLO, STOP, ONLY_USAGE, DONE), BILLED, THINKER),
    Row("a thinker, dear usage so far", read(stating(LARGE)), OF_LARGE, THINKER),
    Row("whole, usage", whole(usage=USAGE), BILLED),
    Row("whole, more than was held", whole(usage=LARGE), OF_LARGE),
    Row("whole, zero", whole(usage=ZERO), NOTHING),
    Row("whole, no usage", whole(), seen(5)),
    Row("whole, a usage that is none", whole(usage=[USAGE]), seen(5)),
    Row("whole, no usage, a thinker", whole(), WHOLE_HOLD, THINKER),
    Row("whole, nothing in it", whole(choices=[]), WHOLE_HOLD),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_charge_is_that_of_the_table(row: Row) -> None:
    """Each row, to the µUSD."""
    assert charged(row.meter, row.price) == row.micro_usd


def test_the_hold_of_the_table_is_what_admission_holds() -> None:
    """280 tokens of prompt and 1000 of output, at these prices."""
    assert (WORST.prompt, WORST.total) == (PROMPT, HOLD.micro_usd)


def test_a_hold_that_was_shrunk_is_the_most_without_usage() -> None:
    """An answer with a smaller limit cannot have been longer than that."""
    hold = Hold(micro_usd=PROMPT + 480, max_output=300, day=1)
    long = read(event(says(content="x" * 5000)))
    assert charged(read(), hold=hold) == charged(long, hold=hold) == PROMPT + 480
    assert charged(read(HELLO), hold=hold) == seen(5)


@pytest.mark.parametrize("price", [PLAIN, THINKER])
def test_each_delta_past_the_limit_is_charged(price: Price) -> None:
    """An answer that went past its hold costs at least a token for each delta that was seen."""
    hold = Hold(micro_usd=PROMPT + 4, max_output=2, day=1)
    assert charged(read(*[HELLO] * 9), price, hold=hold) == WORST.with_output(9) > hold.micro_usd


def test_the_margin_is_the_operators() -> None:
    """Without one, a token for each byte that was seen; a huge one is cut at the limit."""
    assert charged(read(HELLO), margin=0) == PROMPT + 8
    assert charged(read(HELLO), margin=10**9) == WHOLE_HOLD


def test_past_is_an_answer_of_more_deltas_than_tokens() -> None:
    """As many as allowed are well; one more is not; without an answer there is none."""
    assert not Meter(sent=True).went_past(0)
    assert not read(ROLE, HELLO, HELLO).went_past(2)
    assert read(ROLE, HELLO, HELLO, HELLO).went_past(2)


def test_the_prompt_of_a_cut_is_what_was_held_for_it() -> None:
    """Its bytes bound it from above, also where each of them was a token."""
    worst = WorstCase(prompt_pico_usd=280 * PLAIN.input, output_price=0, max_output=1000)
    assert charge(read(HELLO), HOLD, worst, PLAIN, margin=MARGIN) == PROMPT
