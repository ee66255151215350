"""No secret gets out: not into the log at any level, not into Redis, not into an answer."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from tests.attacks.canaries import OPERATORS, TEXTS, UPSTREAMS, VISITORS, Heard, dump, forms, hits
from tests.command_stage import SERVER_PY, Running, run, server_py
from tests.own_key_stage import CHAT, COMPLETIONS, JSON, by_bearer, own_body
from tests.stage import RESPONSES, Upstream, Visitor, eventually, visiting
from tests.upstream import play

LEAKY = {
    "openai-organization": UPSTREAMS["upstream's organisation"],
    "x-request-id": UPSTREAMS["upstream's request"],
}


@asynccontextmanager
async def real_server(
    tmp_path: Path, redis_url: str, upstream: Upstream, **said: str
) -> AsyncIterator[Running]:
    """`python server.py`, as talkative as it can be told to be."""
    environment = {
        "OPENAI_API_KEY": OPERATORS["operator's key"],
        "API_SECRET_KEY": f"{OPERATORS['secret']},{OPERATORS['newer secret']}",
        "IDENTITY_KEY": OPERATORS["identity key"],
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": upstream.url,
        "BYOK_BASE_URL": upstream.url,
        "TRUSTED_PROXIES": "127.0.0.1",
        "LOG_LEVEL": "debug",
        "OPENAI_LOG": "debug",
        "DRAIN_SECONDS": "1",
        "RATE_LIMIT": "1000/minute",
        "BYOK_REJECT_LIMIT": "1000/hour",
        "PYTHONASYNCIODEBUG": "1",
        **said,
    }
    with server_py(tmp_path, **environment) as running:
        yield running


def private_script(**script: Any) -> str:
    """A visitor's text that also tells upstream what to do; what it says back is private too."""
    return play(text=TEXTS["message"], **script)


SCRIPTS = [
    TEXTS["message"],
    private_script(headers=LEAKY),
    private_script(error_after=1),
    private_script(reset_after=1),
    private_script(finish=False, done=False),
    private_script(raw=["data: {" + TEXTS["message"] + "\n\n"]),
    *(
        private_script(
            status=status,
            headers=LEAKY,
            body={"error": {"message": UPSTREAMS["upstream's words"], "code": "invalid_api_key"}},
        )
        for status in (400, 500, 401, 302, 403, 429)  # five failures in a row would be a pause
    ),
]


async def hear(visitor: Visitor, heard: Heard, path: str, headers: Any, body: bytes) -> str | None:
    """Send a request, keep all of what comes back, cut or not; returns the token of the answer."""
    url = visitor.url + path
    async with visitor.session.post(
        url, data=body, headers=headers, allow_redirects=False
    ) as answer:
        text = b""
        try:
            async for piece in answer.content.iter_any():
                text += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            pass
        head = {name: value for name, value in answer.headers.items() if name != "Keyturn-Token"}
        heard.note(head, text)
        return answer.headers.get("Keyturn-Token")


async def hang_up(visitor: Visitor, upstream: Upstream, headers: Any, path: str) -> None:
    """Leave in the middle of an answer."""
    before = len(await upstream.books())
    content = private_script(hang_after=1)
    body = own_body(content) if path == CHAT else visitor.body(content)
    turn = asyncio.create_task(visitor.post(body, headers, path))

    async def running() -> bool:
        return len(await upstream.books()) > before

    await eventually(running)
    turn.cancel()


async def drive(visitor: Visitor, upstream: Upstream, heard: Heard) -> list[str]:
    """Good, bad, failing and deserted turns on every route; returns the tokens that were given."""
    tokens: list[str] = []
    key = VISITORS["own key"]
    rest = {"developer_message": TEXTS["developer message"], "api_key": key}
    rest["chat_history"] = [{"role": "ai", "content": TEXTS["history"]}]  # type: ignore[assignment]

    def by_gate(**changed: str | None) -> dict[str, str]:
        token = f"Bearer {tokens[-1]}" if tokens else None
        return visitor.headers(**{"Authorization": token, **changed})

    async def turn(headers: Any, body: bytes) -> None:
        token = await hear(visitor, heard, visitor.path, headers, body)
        tokens.extend([token] if token else [])

    for visitor.path in (RESPONSES, COMPLETIONS):
        for script in SCRIPTS:
            for stream in (True, False):
                body = visitor.body(script, stream=stream)
                await turn(by_gate(), body)
                bearer = {**by_bearer(key), **visitor.extra}
                await hear(visitor, heard, visitor.path, bearer, body)
        for bad in (visitor.body(TEXTS["message"] + "\0"), visitor.body(user=1, model=key)):
            await turn(by_gate(), bad)
    for script in SCRIPTS:
        await hear(visitor, heard, CHAT, {**JSON, **visitor.extra}, own_body(script, **rest))
    for _ in "ab":  # the second one is a duplicate
        repeated = by_gate(Idempotency_Key=VISITORS["idempotency key"], Authorization=None)
        await turn(repeated, visitor.body(TEXTS["message"]))
    for wrong in (
        {"Authorization": f"Bearer {tokens[0]}"},
        {"Authorization": f"Bearer {tokens[-1]}x"},
        {"Authorization": tokens[-1]},
        {"Authorization": f"Bearer {key} x"},
        {"Authorization": f"Basic {key}"},
        {"Keyturn_Fingerprint": VISITORS["fingerprint"] + "-of-another"},
        {"Keyturn_Fingerprint": VISITORS["fingerprint"] + "!"},
        {"Keyturn_Timestamp": "1"},
        {"Content_Type": TEXTS["message"]},
        {"Origin": f"https://{key}.example"},
        {"X_Long": key * 2000},
        {"Idempotency_Key": VISITORS["idempotency key"] + "!"},
    ):
        await turn(by_gate(**wrong), visitor.body(TEXTS["message"]))
    for bad in (b"{" + key.encode(), own_body(TEXTS["message"] + "\0"), b"x" * 300_000):
        await turn(by_gate(), bad)
        await hear(visitor, heard, CHAT, {**JSON, **visitor.extra}, bad)
    await hear(visitor, heard, f"/{key}?api_key={key}&token={tokens[-1]}", JSON, b"{}")
    for visitor.path in (RESPONSES, COMPLETIONS):
        await hang_up(visitor, upstream, by_gate(Authorization=None), visitor.path)
        await hang_up(visitor, upstream, {**by_bearer(key), **visitor.extra}, visitor.path)
    await hang_up(visitor, upstream, {**JSON, **visitor.extra}, CHAT)
    return tokens


async def look_around(visitor: Visitor, heard: Heard) -> None:
    """Read every page that anybody may read."""
    for path in ("/readyz", "/healthz", "/api/health", "/v1/models", "/openapi.json", "/docs", "/"):
        async with visitor.session.get(visitor.url + path) as answer:
            heard.note(dict(answer.headers), await answer.read())


async def test_no_secret_gets_out(tmp_path: Path, redis_url: str, upstream: Upstream) -> None:
    """After all that can happen no canary is in the log, in Redis, or in an answer."""
    heard, tokens = Heard(), dict[str, str]()
    async with real_server(tmp_path, redis_url, upstream) as running:
        for name in ("address", "wider address"):
            extra = {"X-Forwarded-For": VISITORS[name]}
            async with visiting(
                running.url, extra=extra, fingerprint=VISITORS["fingerprint"]
            ) as visitor:
                given = await drive(visitor, upstream, heard)
                await look_around(visitor, heard)
                tokens |= {f"token {name} {n}": token for n, token in enumerate(given)}
        stored = dump(redis_url)
        assert running.end() == 0
        said, log = running.said.encode(), running.err.read_text()
    assert said.count(b'"code": "') > 50, "the log was on"
    assert b":chain:" in stored
    assert len(tokens) > 20
    assert len(heard.answers) > 220
    assert hits(OPERATORS | VISITORS | TEXTS | UPSTREAMS | tokens, said) == []
    assert hits(OPERATORS | VISITORS | TEXTS | UPSTREAMS | tokens, stored) == []
    assert hits(OPERATORS | VISITORS, b"\n".join(heard.answers)) == []
    refusals = b"\n".join(heard.refusals)
    assert hits(TEXTS | UPSTREAMS | tokens, refusals) == []
    others = [line for line in log.splitlines() if not line.startswith('{"time": ')]
    assert {line.split()[3] for line in others} == {"keyturn"}, "nobody else talks"


def test_every_dress_is_recognised(redis_url: str) -> None:
    """The control: a canary planted in any form, in a log or in Redis, is found."""
    for name, canary in (OPERATORS | VISITORS | TEXTS | UPSTREAMS).items():
        for form in forms(canary):
            assert name in hits({name: canary}, b"2026 INFO keyturn " + form + b" 200")
        assert hits({name: canary}, b"2026 INFO keyturn nothing at all") == []
        with redis.Redis.from_url(redis_url) as store:
            store.hset("planted", "field", canary[::-1])
            assert hits({name: canary}, dump(redis_url)) == [name]
            store.delete("planted")
            store.zadd("planted", {canary: 1})
            assert hits({name: canary}, dump(redis_url)) == [name]
            store.delete("planted")


TALK = """
import logging.config, sys
from command import logs
if sys.argv[1] == "naive":
    logging.basicConfig(level=logging.DEBUG)
else:
    logging.config.dictConfig(logs("debug"))
    logging.getLogger("keyturn").debug("the log is on")
from openai import OpenAI
client = OpenAI(api_key="sk-x", base_url=sys.argv[2], max_retries=0)
client.chat.completions.create(model="m", messages=[{"role": "user", "content": sys.argv[3]}])
"""


@pytest.mark.parametrize("who", ["naive", "ours"])
def test_libraries_do_not_talk(tmp_path: Path, upstream: Upstream, who: str) -> None:
    """At debug the libraries print what upstream said of the visitor; under our log they do not."""
    words = run(
        *(sys.executable, "-c", TALK, who, upstream.url, private_script(headers=LEAKY)),
        cwd=tmp_path,
        OPENAI_LOG="debug",
    )
    assert words.returncode == 0, words.stderr
    found = hits(UPSTREAMS, words.stderr.encode())
    if who == "naive":
        assert found == ["upstream's organisation", "upstream's request"]
    else:
        assert found == []
        assert "the log is on" in words.stderr
        assert "openai" not in words.stderr


@pytest.mark.parametrize(
    "said",
    [
        {"API_SECRET_KEY": f"{OPERATORS['secret']},canary-too-short"},
        {"OPENAI_BASE_URL": "https://someone:canary@api.example/v1"},
        {"REDIS_URL": "http://:canary@localhost:6379", "IDENTITY_KEY": "canary-too-short"},
    ],
)
@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_refused_setting_is_not_repeated(
    tmp_path: Path, said: dict[str, str], command: tuple[str, ...]
) -> None:
    """Start-up names the setting that is wrong and never says what stood in it."""
    good = {"OPENAI_API_KEY": "sk-x", "API_SECRET_KEY": OPERATORS["secret"]}
    ended = run(*SERVER_PY, *command, cwd=tmp_path, **{**good, **said})
    assert ended.returncode == 1
    assert next(iter(said)) in ended.stdout + ended.stderr
    assert "canary" not in ended.stdout + ended.stderr
    assert OPERATORS["secret"] not in ended.stdout + ended.stderr


def test_check_shows_no_secret(tmp_path: Path, redis_url: str) -> None:
    """`python server.py check` says how things are, and no secret with it."""
    said = {"OPENAI_API_KEY": OPERATORS["operator's key"], "REDIS_URL": redis_url}
    said["API_SECRET_KEY"] = OPERATORS["secret"]
    ended = run(*SERVER_PY, "check", cwd=tmp_path, **said)
    assert "redis" in ended.stdout
    assert hits(OPERATORS, (ended.stdout + ended.stderr).encode()) == []
