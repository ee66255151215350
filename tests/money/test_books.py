"""The upstream's own books are exact: what it generated, for whom, and what that costs."""

import json
from typing import Any

import aiohttp
import pytest

from completions.prices import Price, read_prices
from tests.money.books import billed, total, worst
from tests.stage import ROOT, Upstream, eventually
from tests.upstream import play
from tests.upstream_shapes import chunk

PRICES = {"m": Price(input=400_000, cached_input=100_000, output=1_600_001)}


async def ask(upstream: Upstream, content: str, **said: Any) -> tuple[int, bytes]:
    """POST a script by hand and read what comes, whole or not."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": content}]}
    if said.setdefault("stream", True):
        body["stream_options"] = {"include_usage": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url + "/chat/completions", json={**body, **said}) as answer,
    ):
        read = b""
        try:
            async for piece in answer.content.iter_any():
                read += piece
        except aiohttp.ClientError:
            pass
        return answer.status, read


async def counted(upstream: Upstream) -> tuple[int, int, int]:
    """Prompt, cached and output tokens of the only POST."""
    (entry,) = await upstream.books()
    return entry["prompt_tokens"], entry["cached_tokens"], entry["output_tokens"]


def usage_in(answer: bytes) -> Any:
    """The usage that an answer states, None if it states none."""
    if not answer.startswith(b"data:"):
        return json.loads(answer).get("usage")
    events = [line[6:] for line in answer.splitlines() if line.startswith(b"data: {")]
    stated = [json.loads(event).get("usage") for event in events]
    return next((usage for usage in stated if usage), None)


ALL = {"prompt": 90, "cached": 60, "reasoning": 5, "tokens_per_word": 2, "words": 4}


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_states_the_books(upstream: Upstream, stream: bool) -> None:
    """Prompt, cached, visible and hidden output, to the token, streamed or whole."""
    _, answer = await ask(upstream, play(**ALL), stream=stream)
    assert usage_in(answer) == {
        "prompt_tokens": 90,
        "completion_tokens": 13,
        "total_tokens": 103,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert await counted(upstream) == (90, 60, 13)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("usage", "stated"), [(False, None), ({"total": 1}, {"total": 1})])
async def test_usage_may_be_missing_or_wrong(
    upstream: Upstream, stream: bool, usage: Any, stated: Any
) -> None:
    """What is stated changes nothing in the books."""
    _, answer = await ask(upstream, play(**ALL, usage=usage), stream=stream)
    assert usage_in(answer) == stated
    assert await counted(upstream) == (90, 60, 13)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "output"), [(3, 3), (5, 5), (8, 7), (13, 13), (99, 13)])
async def test_the_output_limit_is_honoured(
    upstream: Upstream, stream: bool, field: str, limit: int, output: int
) -> None:
    """Thoughts and whole words up to the limit, and the finish reason says so."""
    _, answer = await ask(upstream, play(**ALL), stream=stream, **{field: limit})
    assert await counted(upstream) == (90, 60, output)
    assert (b'"length"' in answer) == (limit < 13)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_upstream_may_ignore_the_limit(upstream: Upstream, stream: bool) -> None:
    """As some compatible servers do."""
    script = play(**ALL, ignore_limit=True)
    _, answer = await ask(upstream, script, stream=stream, max_tokens=1)
    assert await counted(upstream) == (90, 60, 13)
    assert b'"length"' not in answer


@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        ({"status": 400, "body": {}}, (0, 0, 0)),
        ({"status": 500, "reasoning": 3}, (0, 0, 0)),
        ({"status": 307}, (0, 0, 0)),
        ({"body": {"odd": 1}, "reasoning": 3}, (7, 0, 3)),
        ({"raw": ["data: [DONE]\n\n"], "prompt": 9}, (9, 0, 0)),
        ({"reset_after": 0}, (7, 0, 0)),
        ({"reset_after": 2, "words": 9}, (7, 0, 2)),
        ({"error_after": 2, "words": 9, "reasoning": 1}, (7, 0, 3)),
        ({"words": 0}, (7, 0, 0)),
        ({"prompt": 2, "cached": 5}, (2, 2, 3)),
    ],
)
async def test_what_was_generated_counts_however_it_ends(
    upstream: Upstream, script: Any, tokens: tuple[int, int, int]
) -> None:
    """A refusal bills nothing; a stream that breaks bills what it had come to."""
    await ask(upstream, play(**script))
    assert await counted(upstream) == tokens


async def test_what_nobody_read_counts(upstream: Upstream) -> None:
    """A client that leaves has to pay for what was generated, and for no more."""
    body = {"model": "m", "messages": [{"role": "user", "content": play(words=900, gap_ms=20)}]}
    async with aiohttp.ClientSession() as session:
        url = upstream.url + "/chat/completions"
        async with session.post(url, json={**body, "stream": True}) as answer:
            while chunk({"content": "word "}) not in await answer.content.readuntil(b"\n\n"):
                pass
            answer.close()

    async def closed() -> bool:
        return [entry["ended"] for entry in await upstream.books()] == ["closed"]

    await eventually(closed)
    prompt, _, output = await counted(upstream)
    assert (prompt, 1 <= output < 100) == (7, True)


async def test_who_is_never_answered_pays_nothing(upstream: Upstream) -> None:
    """The books begin with the answer."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
        body = {"model": "m", "messages": [{"content": play(silent=True)}]}
        with pytest.raises(TimeoutError):
            await session.post(upstream.url + "/chat/completions", json=body)
    assert await counted(upstream) == (0, 0, 0)


def entry(prompt: int, cached: int, output: int) -> dict[str, Any]:
    """An entry of the books."""
    tokens = {"prompt_tokens": prompt, "cached_tokens": cached, "output_tokens": output}
    return {"body": {"model": "m"}, **tokens}


@pytest.mark.parametrize(
    ("tokens", "micro_usd"),
    [
        ((0, 0, 0), 0),
        ((5, 0, 0), 2),
        ((1, 0, 0), 1),
        ((10, 10, 0), 1),
        ((11, 10, 0), 2),
        ((0, 0, 1_000_000), 1_600_001),
        ((0, 0, 1), 2),
        ((100, 60, 1000), 1623),
    ],
)
def test_a_bill_is_rounded_up_once(tokens: tuple[int, int, int], micro_usd: int) -> None:
    """Summed in picoUSD, then up to the next µUSD; what was in the cache is cheaper."""
    assert billed(entry(*tokens), PRICES) == micro_usd


def test_each_post_is_rounded_by_itself() -> None:
    """A sum of bills is not the bill of a sum."""
    assert total([entry(1, 0, 0)] * 5, PRICES) == 5


def test_the_worst_case_counts_every_byte() -> None:
    """Of the body as it is sent, 16 more for each message and 64, and all the output allowed."""
    body = {"model": "m", "messages": [{"role": "user", "content": "é"}]}
    assert len('{"model":"m","messages":[{"role":"user","content":"é"}]}'.encode()) == 57
    assert worst(body, Price(input=1_000_000, cached_input=0, output=10_000_000), 3) == 167
    assert worst(body, Price(input=1_000_001, cached_input=0, output=10_000_000), 3) == 168


def test_an_unpriced_model_has_no_bill() -> None:
    """Rather than a free one."""
    with pytest.raises(KeyError):
        billed(entry(1, 0, 0), read_prices((ROOT / "prices.toml").read_bytes()))
