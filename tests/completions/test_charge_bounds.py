"""The charge against the bill of any upstream that keeps its word, and against any usage.

Such an upstream bills of the prompt no more tokens than bytes, of the output no more than it was
allowed, and at most a margin of it was written and never read.
"""

from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from completions.prices import Price, Usage, read_usage
from tests.completions.charge_stage import (
    HOLD,
    MARGIN,
    PLAIN,
    ROLE,
    STOP,
    THINKER,
    WORST,
    charged,
    only,
    read,
    seen,
    stating,
    using,
)
from tests.completions.chat_stream import DONE, HELLO, USAGE, event, says


@dataclass(frozen=True)
class Honest:
    """What an upstream has written: `tokens` for each piece of text, `hidden` before the first.

    The visitor's side has read the first `read` pieces of it.
    """

    prompt: int
    cached: int
    hidden: int
    pieces: tuple[tuple[str, int], ...]
    read: int

    @property
    def output(self) -> int:
        """All tokens of output."""
        return self.hidden + sum(tokens for _, tokens in self.pieces)

    def bill(self, price: Price) -> int:
        """What it bills, in µUSD."""
        return price.cost_of(Usage(self.prompt, self.cached, self.output))

    def usage(self) -> dict[str, Any]:
        """What it says that it bills."""
        return {
            **using(self.prompt, self.output, total_tokens=self.prompt + self.output),
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def events(self) -> list[bytes]:
        """What was read of it."""
        return [ROLE, *(event(says(content=text)) for text, _ in self.pieces[: self.read])]


@st.composite
def honest(draw: st.DrawFn, *, hidden: bool = False) -> Honest:
    """An upstream within the limits of this file's hold, cut at any place."""
    prompt = draw(st.integers(0, 280))
    thought = draw(st.integers(0, HOLD.max_output)) if hidden else 0
    pieces: list[tuple[str, int]] = []
    left = HOLD.max_output - thought
    for text in draw(st.lists(st.text(st.sampled_from("xé👋"), min_size=1, max_size=60))):
        tokens = draw(st.integers(1, len(text.encode())))
        if tokens > left:
            break
        pieces.append((text, tokens))
        left -= tokens
    read, unread = len(pieces), 0
    while read and unread + pieces[read - 1][1] <= MARGIN and draw(st.booleans()):
        read -= 1
        unread += pieces[read][1]
    return Honest(prompt, draw(st.integers(0, prompt)), thought, tuple(pieces), read)


@given(honest())
@example(Honest(280, 0, 0, (("x" * 1000, 1000),), 1))
@example(Honest(280, 0, 0, (("x" * 100, 100),), 0))
@example(Honest(280, 0, 0, (("x", 1), ("x" * 100, 100)), 1))
def test_a_cut_is_never_charged_less_than_was_billed(upstream: Honest) -> None:
    """Whatever was written and not read, within the margin; and never more than was held."""
    assert upstream.bill(PLAIN) <= charged(read(*upstream.events())) <= HOLD.micro_usd


@given(honest(hidden=True))
@example(Honest(280, 0, 1000, (), 0))
@example(Honest(280, 0, 900, (("x", 1),), 1))
def test_a_cut_thinker_is_never_charged_less_than_was_billed(upstream: Honest) -> None:
    """However much it thought that nobody sees."""
    meter = read(*upstream.events())
    assert upstream.bill(THINKER) <= charged(meter, THINKER) <= HOLD.micro_usd


def test_less_would_not_do() -> None:
    """The control: each half of the rule that is left out loses money to some honest upstream."""
    tail = Honest(280, 0, 0, (("x", 1), ("x" * 100, 100)), 1)
    assert charged(read(*tail.events()), margin=0) < tail.bill(PLAIN)
    dense = Honest(280, 0, 0, (("x" * 900, 900),), 1)
    a_token_a_delta = WORST.with_output(1 + MARGIN)
    assert a_token_a_delta < dense.bill(PLAIN)
    thinker = Honest(280, 0, 900, (("x", 1),), 1)
    assert charged(read(*thinker.events()), PLAIN) < thinker.bill(THINKER)


@given(honest(hidden=True), st.sampled_from([PLAIN, THINKER]), st.booleans())
def test_the_final_usage_is_charged_exactly(upstream: Honest, price: Price, done: bool) -> None:
    """Not a µUSD more or less, whatever was read besides, and whether or not [DONE] came."""
    end = [STOP, only(upstream.usage()), *([DONE] if done else [])]
    assert charged(read(*upstream.events(), *end), price) == upstream.bill(price)


COUNTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 3000),
    st.sampled_from([10**30, -(10**30), 10**9 + 1, 1.5, "3", True, False, None, [], {}]),
)
USAGES: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.sampled_from([None, 3, "usage", [USAGE]]),
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": COUNTS,
            "completion_tokens": COUNTS,
            "total_tokens": COUNTS,
            "prompt_tokens_details": st.one_of(
                COUNTS, st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS})
            ),
        },
    ),
)


def well_formed(usage: Any) -> bool:
    """Whether an object names both halves as whole numbers of tokens."""
    if not isinstance(usage, dict):
        return False
    halves = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return all(type(half) is int and 0 <= half <= 10**9 for half in halves)


@given(st.lists(USAGES, max_size=5), st.booleans(), st.sampled_from([PLAIN, THINKER]))
def test_only_usage_can_charge_more_than_was_held(
    usages: list[Any], ends: bool, price: Price
) -> None:
    """Any usage on any chunk: more than the hold is charged only where one of them says it."""
    end = [STOP, DONE] if ends else []
    amount = charged(read(*map(stating, usages), *end), price)
    stated = [price.cost_of(usage) for said in usages if (usage := read_usage(said))]
    assert 0 <= amount <= HOLD.micro_usd or amount in stated
    if not any(map(well_formed, usages)):
        assert seen(0) <= amount <= HOLD.micro_usd


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2000)), max_size=6))
def test_usage_so_far_never_makes_a_cut_cheaper(stated: list[tuple[int, int]]) -> None:
    """A stream that is cut costs as much with a usage on every chunk as without, or more."""
    with_usage = read(*(stating(using(prompt, output)) for prompt, output in stated))
    without = read(*(HELLO for _ in stated))
    assert charged(with_usage) >= charged(without)
    if stated:
        assert charged(with_usage) >= PLAIN.cost_of(Usage(stated[-1][0], 0, stated[-1][1]))


def test_usage_so_far_taken_for_the_whole_would_be_cheaper() -> None:
    """The control: the last usage that was seen does not know what was written after it."""
    meter = read(stating(using(9, 1)))
    naive = PLAIN.cost_of(Usage(9, 0, 1))
    assert naive < charged(meter)
