"""Every row of the failure table, caused over a real socket and read to the last header.

What an answer must be stands here a second time, written by hand from the contract and not taken
from `problems`: status, chain, whether a token comes, whether an SDK may repeat the request.
"""

import asyncio
import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import redis

from patience import DEFAULT, Patience
from problems import PROBLEMS
from security.errors import Code
from tests import causes
from tests.causes import CANARY, Cause, Scene, break_part, plain, upstream_says, with_body
from tests.operator_stage import TOKEN
from tests.prometheus_stage import METRICS_TOKEN
from tests.stage import (
    CHAT,
    RESPONSES,
    ROOT,
    Answer,
    Upstream,
    Visitor,
    eventually,
    now_ms,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play

ORIGIN = "https://page.example"
READ = "metrics"  # not of /admin, so a page of an allowed origin can read it
REPEATABLE = {
    *("rate_limited", "start_limited", "too_many_streams", "overloaded", "store_unavailable"),
}


@dataclass(frozen=True)
class Row:
    """A row of the table and what causes it.

    `script` tells whether the script was reached, `till` whether our money is concerned then.
    """

    code: Code
    status: int
    chain: str | None
    cause: Cause
    token: bool = False
    script: bool = False
    till: bool = True
    said: dict[str, Any] = field(default_factory=dict)
    patience: Patience = DEFAULT
    part: str | None = None
    name: str = ""


def asked(code: Code, status: int, chain: str, cause: Cause, **more: Any) -> Row:
    """A refusal by the script: the answer tells what is left of the limits."""
    return Row(code, status, chain, cause, script=True, **more)


def spent(code: Code, status: int, cause: Cause, **more: Any) -> Row:
    """A turn that was admitted and failed: the answer carries the next token."""
    return Row(code, status, "advanced", cause, token=True, script=True, **more)


TEXT = json.dumps({"messages": [{"role": "user", "content": "x"}], "temperature": CANARY}).encode()
TOOLS = json.dumps({"messages": [{"role": "user", "content": "x"}], "tools": [CANARY]}).encode()
TOO_LONG = {"error": {"message": CANARY, "code": "context_length_exceeded"}}
ERROR = {"error": {"message": CANARY, "code": CANARY, "type": CANARY}}
OWN_KEY = f"Bearer sk-{CANARY}"

ROWS = [
    Row("not_found", 404, None, causes.wrong_path),
    Row("method_not_allowed", 405, None, causes.wrong_method),
    Row("request_timeout", 408, "kept", causes.half_a_body, patience=Patience(body=0.1)),
    Row("payload_too_large", 413, "kept", plain(), said={"max_body_bytes": 20}),
    Row("unsupported_media_type", 415, "kept", plain(Content_Type=f"text/{CANARY}")),
    Row("headers_too_large", 431, "kept", plain(X_Big=CANARY * 1500)),
    Row("malformed_json", 400, "kept", with_body(f'{{"{CANARY}'.encode())),
    Row("header_repeated", 400, "kept", causes.a_header_twice),
    Row("unsupported_parameter", 400, "kept", with_body(TOOLS)),
    Row("invalid_request", 422, "kept", with_body(TEXT)),
    Row("origin_forbidden", 403, "kept", plain(Origin=f"https://{CANARY}.example")),
    asked("visitor_blocked", 403, "kept", causes.blocked),
    Row("timestamp_missing", 400, "kept", plain(Keyturn_Timestamp=None)),
    Row("timestamp_malformed", 400, "kept", plain(Keyturn_Timestamp=CANARY)),
    Row("timestamp_stale", 401, "kept", plain(Keyturn_Timestamp="1000000000000")),
    Row("fingerprint_missing", 400, "kept", plain(Keyturn_Fingerprint=None)),
    Row("fingerprint_malformed", 400, "kept", plain(Keyturn_Fingerprint=f"{CANARY} 9876543210")),
    asked("fingerprint_mismatch", 403, "kept", causes.another_fingerprint),
    Row("token_malformed", 401, "none", plain(Authorization=f"Bearer {CANARY}")),
    Row("token_malformed", 401, "none", plain(Authorization=f"Basic {CANARY}"), name="basic"),
    Row("token_forged", 401, "none", causes.forged),
    Row("token_expired", 401, "none", causes.expired),
    asked("chain_unknown", 401, "none", causes.forgotten),
    Row("chain_unknown", 401, "none", causes.from_the_future, name="future"),
    spent("chain_unknown", 401, causes.failed_over, name="failed-over"),
    asked("chain_revoked", 401, "revoked", causes.revoked),
    asked("rate_limited", 429, "kept", causes.asked_twice, said={"rate_limit": "1/minute"}),
    asked("start_limited", 429, "kept", causes.asked_twice, said={"start_limit": "1/hour"}),
    asked("too_many_streams", 429, "kept", causes.a_second_stream, said={"max_streams_per_ip": 1}),
    asked("token_reused", 401, "kept", causes.used_a_moment_ago),
    asked("token_reused", 401, "revoked", causes.used_long_ago, name="late"),
    spent("duplicate_request", 409, causes.repeated),
    asked("idempotency_conflict", 422, "kept", causes.repeated_otherwise),
    asked("budget_visitor", 429, "kept", plain(), said={"visitor_daily_budget_usd": "0"}),
    asked("budget_exhausted", 503, "kept", plain(), said={"daily_budget_usd": "0"}),
    asked("budget_exhausted", 503, "kept", causes.day_is_spent, name="by-control"),
    asked("paused", 503, "kept", causes.paused),
    Row("overloaded", 503, "kept", causes.a_second_stream, said={"max_streams": 1}),
    Row("overloaded", 503, "kept", causes.draining, name="draining"),
    Row("store_unavailable", 503, "kept", plain(), said={"redis_url": "unix:///no/where"}),
    Row("store_unavailable", 503, "unknown", causes.silent_store, name="silent"),
    spent("upstream_rejected", 502, upstream_says(status=403, body=ERROR)),
    spent("upstream_rejected", 400, upstream_says(status=400, body=TOO_LONG), name="too-long"),
    spent("upstream_rate_limited", 503, upstream_says(status=429, body=ERROR)),
    spent("upstream_timeout", 504, upstream_says(silent=True), patience=Patience(silence=0.1)),
    spent("upstream_unavailable", 502, upstream_says(status=500, body=ERROR)),
    Row("byok_disabled", 403, "none", plain(Authorization=OWN_KEY), said={"byok": "off"}),
    Row("byok_key_malformed", 401, "none", plain(Authorization=f"{OWN_KEY} {CANARY}")),
    asked("byok_key_rejected", 401, "none", causes.own_key_refused, till=False),
    Row("operator_only", 401, None, causes.no_operator, said={"admin_token": TOKEN}),
    Row(
        "operator_only",
        401,
        None,
        causes.no_scraper,
        said={"metrics_token": METRICS_TOKEN},
        name=READ,
    ),
    Row("internal_error", 500, None, plain(), part="gate"),
    spent("internal_error", 500, plain(), part="upstream", name="after-admission"),
]


def test_the_table_is_whole() -> None:
    """Every code that can stand on the wire has a row here, and every row is a code."""
    assert {row.code for row in ROWS} == set(PROBLEMS) == set(get_args(Code))


# What each route does for itself, and the rows that need a turn of its own to be caused.
BY_EACH = {"method_not_allowed", "request_timeout", "header_repeated", "fingerprint_mismatch"}
BY_EACH |= {"token_reused", "idempotency_conflict", "budget_visitor", "byok_key_rejected"}
BY_RESPONSES = [row for row in ROWS if row.token or row.code in BY_EACH]


@pytest.mark.parametrize(
    ("path", "row"),
    [*((CHAT, row) for row in ROWS), *((RESPONSES, row) for row in BY_RESPONSES)],
    ids=[
        "-".join(filter(None, (where, row.code, row.name)))
        for where, rows in (("", ROWS), ("responses", BY_RESPONSES))
        for row in rows
    ],
)
async def test_a_row_is_answered_exactly(
    path: str, row: Row, redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Status, body and headers are the table's, and nothing that was sent comes back."""
    caplog.set_level(logging.DEBUG)
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url, "redis_url": redis_url}
    around = break_part(row.part) if row.part else (lambda keyturn: keyturn)
    extra = {"Origin": ORIGIN, "X-Canary": CANARY, "Cookie": CANARY, "User-Agent": CANARY}
    async with (
        serving(settings_with(**{**urls, **row.said}), row.patience, around=around) as server,
        visiting(server, fingerprint="fingerprint-" + CANARY, extra=extra, path=path) as visitor,
    ):
        with redis.Redis.from_url(redis_url) as store:
            asked_ms = now_ms()
            answer = await row.cause(Scene(server, visitor, store))
            answered_ms = now_ms()
    require_body(answer, row)
    assert asked_ms <= answer.json["server_time_ms"] <= answered_ms
    require_headers(answer, row)
    require_cors(answer, row)
    assert CANARY not in repr(list(answer.headers.items())) + answer.body.decode()
    assert CANARY not in caplog.text


def require_body(answer: Answer, row: Row) -> None:
    """RFC 9457 around OpenAI's error object, and no field that is not of the contract."""
    said = answer.json
    assert (answer.status, said["code"], said.get("chain")) == (row.status, row.code, row.chain)
    assert said["status"] == row.status
    assert said["type"] == f"urn:keyturn:problem:{row.code}"
    assert said["title"]
    assert said["detail"]
    assert said["request_id"] == answer.headers["X-Request-Id"]
    known = {"type", "title", "status", "detail", "code", "request_id", "server_time_ms", "error"}
    assert set(said) - {"chain", "param"} == known
    error = said["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    assert (error["code"], error["param"]) == (row.code, said.get("param"))
    kind = "server_error" if row.status >= 500 else "invalid_request_error"
    assert error["type"] == ("rate_limit_error" if row.status == 429 else kind)


def require_headers(answer: Answer, row: Row) -> None:
    """Each header where the table has it, and nowhere else."""
    headers = answer.headers
    assert headers["Content-Type"] == "application/problem+json"
    assert int(headers["Content-Length"]) == len(answer.body)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", headers["X-Request-Id"])
    assert "Date" in headers
    assert ("Keyturn-Token" in headers) is row.token
    waits = headers.get("Retry-After")
    assert (waits is not None) is (row.status in (429, 503))
    assert waits is None or re.fullmatch(r"[1-9][0-9]*", waits)
    assert headers.get("x-should-retry") == (None if row.code in REPEATABLE else "false")
    assert headers.get("WWW-Authenticate") == ("Bearer" if row.status == 401 else None)
    assert headers.get("Allow") == ("POST" if row.status == 405 else None)
    assert ("Keyturn-Budget" in headers) is (row.script and row.till)
    assert "Keyturn-Max-Output" not in headers
    assert ("RateLimit" in headers) is ("RateLimit-Policy" in headers) is row.script
    if row.script:
        assert re.match(r'"address";r=\d+;t=\d+(, "start";r=\d+;t=\d+)?$', headers["RateLimit"])


def require_cors(answer: Answer, row: Row) -> None:
    """A page of an allowed origin can read the answer; a foreign one learns nothing."""
    headers = answer.headers
    assert headers["Vary"] == "Origin"
    allowed = row.code not in ("origin_forbidden", "operator_only") or row.name == READ
    assert headers.get("Access-Control-Allow-Origin") == (ORIGIN if allowed else None)
    exposed = {name.strip() for name in headers.get("Access-Control-Expose-Headers", "").split(",")}
    told = {"Keyturn-Token", "Keyturn-Budget", "Keyturn-Max-Output", "RateLimit"}
    told |= {"RateLimit-Policy", "Retry-After", "X-Request-Id", "Date"}
    assert (told <= exposed) is allowed
    assert "Access-Control-Allow-Credentials" not in headers


async def test_retry_after_is_what_upstream_asked_for(visitor: Visitor) -> None:
    """Upstream's own wait is passed on; nonsense becomes one second and ages are cut."""
    for said, told in (("7", "7"), ("soon", "1"), ("0", "1"), ("99999999999", "3600")):
        answer = await visitor.say(play(status=429, body={}, headers={"Retry-After": said}))
        assert (answer.code, answer.headers["Retry-After"]) == ("upstream_rate_limited", told)


async def test_a_breaker_that_opened_is_said_as_overloaded(
    visitor: Visitor, upstream: Upstream
) -> None:
    """After five failures in a row upstream is left alone, and the token is kept."""
    for _ in range(5):
        answer = await visitor.say(play(status=500, body={}))
        assert answer.code == "upstream_unavailable"
    answer = await visitor.say()
    assert (answer.status, answer.code, answer.json["chain"]) == (503, "overloaded", "kept")
    assert answer.headers["Retry-After"] == "1"
    assert len(await upstream.books()) == 5


async def test_a_spent_token_is_never_worth_repeating(redis_url: str, upstream: Upstream) -> None:
    """A turn cut short by a restart hands over the successor and forbids an SDK's own retry."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    async with serving(settings) as server, visiting(server) as visitor:
        asked = asyncio.create_task(visitor.say(play(silent=True)))
        await eventually(upstream.books)
        server.keyturn.turns.drain(0)
        answer = await asked
    assert (answer.status, answer.code, answer.json["chain"]) == (503, "overloaded", "advanced")
    assert answer.token
    assert answer.headers["x-should-retry"] == "false"


async def test_a_refused_parameter_is_named_and_nothing_else(visitor: Visitor) -> None:
    """The name of a refused parameter is told where it is a name, and never its value."""
    named = await visitor.say(top_k=CANARY)
    assert named.json["param"] == named.json["error"]["param"] == "top_k"
    odd = await visitor.post(TOOLS.replace(b"tools", b"<tools>"), visitor.headers())
    assert odd.code == "unsupported_parameter"
    assert "param" not in odd.json
    assert CANARY not in odd.body.decode() + named.body.decode()


def test_the_readme_tells_every_row() -> None:
    """README's failure table names each code once, beside its status."""
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| `")]
    for code, problem in PROBLEMS.items():
        statuses = [status for codes, status in rows if f"`{code}`" in codes]
        assert len(statuses) == 1, code
        assert str(problem.status) in statuses[0], code
