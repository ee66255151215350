"""`python server.py check --live` before upstreams of all kinds: check_live.py."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import redis

from tests.check_stage import UPSTREAMS_WORDS, Checked, check, check_live, upstream_of_models
from tests.command_stage import CANARY, SERVER_PY, run
from tests.stage import SECRET


async def live(tmp_path: Path, redis_url: str, *models: str, **said: str) -> Checked:
    """`check --live` of models that answer as their names say."""
    async with upstream_of_models([]) as url:
        return await check_live(tmp_path, url, *models, REDIS_URL=redis_url, **said)


async def test_a_model_that_keeps_to_its_limit(tmp_path: Path, redis_url: str) -> None:
    """It is asked for one token by the field of its price entry, and its cost is booked today."""
    asked: list[Any] = []
    async with upstream_of_models(asked) as url:
        found = await check_live(tmp_path, url, "honest", "old-server", REDIS_URL=redis_url)
    assert found.code == 0
    for text, model in zip(found.of("live", "ok"), ("honest", "old-server"), strict=True):
        assert re.fullmatch(rf"{model}: answered in \d+ ms: 14 \+ 1 tokens, 0\.000024 USD", text)
    assert [(body.get("max_completion_tokens"), body.get("max_tokens")) for body in asked] == [
        (1, None),
        (None, 1),
    ]
    assert {json.dumps(body["messages"]) for body in asked} == {
        '[{"role": "user", "content": "Count from one to twenty."}]'
    }
    came = await asyncio.to_thread(
        run, *SERVER_PY, "spend", "--json", cwd=tmp_path, REDIS_URL=redis_url
    )
    said = json.loads(came.stdout)
    assert (said["spent_micro_usd"], said["held_micro_usd"], said["holds"]) == (48, 0, 0)
    assert [(each["visitor"], each["spent_micro_usd"]) for each in said["top"]] == [("check", 48)]


async def test_a_model_that_ignores_its_limit(tmp_path: Path, redis_url: str) -> None:
    """Deltas, tokens billed, or much text without usage: each betrays it, and the cure is named."""
    wrote = {
        "ignores-it": "4 tokens",
        "ignores-it-in-one-piece": "4 tokens",
        "ignores-it-without-usage": "21 bytes",
        "ignores-it-without-usage-in-one-piece": "21 bytes",
        "knows-max-tokens-only": "4 tokens",
    }
    found = await live(tmp_path, redis_url, *wrote, "honest")
    assert found.code == 1
    assert found.of("live", "fault") == [
        f"{model}: ignores the output limit (1 token): wrote {what}; "
        "change its output_limit_field in PRICES_FILE"
        for model, what in wrote.items()
    ]
    assert len(found.of("live", "ok")) == 1, "the control: the honest one passes"


async def test_a_model_that_does_not_answer(tmp_path: Path, redis_url: str) -> None:
    """What a status means is said in our words; none of upstream's is, and no key."""
    meaning = {
        "status-400": "status 400: look at output_limit_field",
        "status-401": "status 401: look at OPENAI_API_KEY",
        "status-403": "status 403: look at OPENAI_API_KEY and what it may do",
        "status-404": "status 404: no such model or URL",
        "status-418": "status 418: look at OPENAI_BASE_URL",
        "status-429": "status 429: too many requests, or the account has no credit left",
        "status-503": "status 503: a failure of its own, try again later",
        "no-stream": "answers, but not with a whole event stream",
        "breaks-off": "answers, but not with a whole event stream",
    }
    found = await live(tmp_path, redis_url, *meaning)
    assert found.code == 1
    for text, (model, said) in zip(found.of("live", "fault"), meaning.items(), strict=True):
        assert text.startswith(f"{model}: {said}")
    for secret in (UPSTREAMS_WORDS, CANARY, SECRET):
        assert secret not in found.said


async def test_models_of_doubt(tmp_path: Path, redis_url: str) -> None:
    """No usage is a warning, and so is a model that thinks and refuses so small a limit."""
    found = await live(tmp_path, redis_url, "without-usage", "reasoning", "reasoning-status-400")
    assert found.code == 0
    warned = found.of("live", "warning")
    assert re.fullmatch(
        r"without-usage: answered in \d+ ms, without usage: charges will be estimates \(.*\)",
        warned[0],
    )
    assert warned[1].startswith("reasoning-status-400: refuses a limit of 1 token")
    assert found.of("live", "ok")[0].startswith("reasoning: answered")


async def test_an_upstream_that_is_not_there(tmp_path: Path, redis_url: str) -> None:
    """It is a fault of each model, and nothing was spent."""
    nowhere = "http://127.0.0.1:9/v1"
    found = await check_live(tmp_path, nowhere, "one", "two", REDIS_URL=redis_url)
    assert found.code == 1
    assert [text.partition(": ")[2] for text in found.of("live", "fault")] == [
        "it is not there, or breaks off: look at OPENAI_BASE_URL"
    ] * 2
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys("keyturn:{main}:spend:*:check")
        assert client.hget(key, "spent") == b"0"


async def test_what_the_gate_refuses_is_not_asked(tmp_path: Path, redis_url: str) -> None:
    """`--live` is a turn like any other: paused, or without money left, upstream is not asked."""
    asked: list[Any] = []
    with redis.Redis.from_url(redis_url) as client:
        client.hset("keyturn:{main}:control", "paused", 1)
    async with upstream_of_models(asked) as url:
        found = await check_live(tmp_path, url, "honest", REDIS_URL=redis_url)
    assert found.code == 1
    assert found.of("live", "fault")[0].startswith("honest was not asked: ")
    assert "(paused)" in found.of("live", "fault")[0]
    assert asked == []


def test_the_demo_is_not_asked(tmp_path: Path) -> None:
    """Without a key `--live` says that there is nobody real to ask."""
    found = check(tmp_path, "--live")
    assert found.code == 0
    assert found.of("live", "warning")[0].startswith("the demo upstream makes its answers up")
