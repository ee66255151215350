"""The main path, end to end: a real server, a real Redis, a real upstream."""

import json

from tests.stage import Upstream, Visitor


async def test_a_chat_streams_turn_by_turn(visitor: Visitor, upstream: Upstream) -> None:
    """Each turn is answered with the token that admits the next one."""
    tokens = set()
    for turn in range(3):
        answer = await visitor.say(f"turn {turn}")
        assert answer.status == 200, answer.body
        assert answer.text == f"turn {turn} " * 3
        assert answer.body.endswith(b"data: [DONE]\n\n")
        tokens.add(answer.token)
    assert len(tokens) == 3
    assert len(await upstream.books()) == 3


async def test_a_whole_completion_is_answered_as_json(visitor: Visitor) -> None:
    """`stream: false` gives one JSON object, and a token with it."""
    answer = await visitor.say("hi", stream=False)
    assert answer.status == 200
    assert answer.text == "hi hi hi "
    assert answer.token


async def test_a_token_is_good_once(visitor: Visitor, upstream: Upstream) -> None:
    """A token shown again is refused, and upstream is not asked."""
    await visitor.say()
    first = visitor.token
    await visitor.say()
    visitor.token = first
    answer = await visitor.say()
    assert (answer.status, answer.code) == (401, "token_reused")
    assert json.loads(answer.body)["chain"] == "kept"
    assert len(await upstream.books()) == 2
