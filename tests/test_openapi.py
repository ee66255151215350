"""The API's description, and whether the server keeps to it, asked from outside."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from problems import PROBLEMS
from server import create_app
from tests.causes import break_part
from tests.stage import Server, Upstream, Visitor, now_ms, serving, settings_with

CHAT, RESPONSES, OWN_KEY = "/v1/chat/completions", "/v1/responses", "/api/chat"
# Left out: that whatever fits the schema is accepted. A blank message, a model that is not on the
# list, a key used twice and a parameter that must be false are refused for reasons of their own.
CHECKS = [
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "negative_data_rejection"),
    *("missing_required_header", "unsupported_method", "allow_header_conformance"),
]


async def examine(server: Server, directory: Path, *more: str) -> tuple[int, str]:
    """Let schemathesis ask the server, and return its exit code and its report."""
    arguments = [
        *("--checks", ",".join(CHECKS), "--header", f"Keyturn-Timestamp: {now_ms()}"),
        *("--seed", "1", "--generation-database", "none", "--suppress-health-check", "all"),
        *("--continue-on-failure", "--no-color", "--request-timeout", "10"),
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
        *(*arguments, *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
    )
    try:
        async with asyncio.timeout(100):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, report.decode()


def generous(redis_url: str, upstream: Upstream, **said: Any) -> Any:
    """Settings under which only the requests themselves are at fault."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
    return settings_with(redis_url=redis_url, timestamp_max_skew=3600, **urls, **said)


@pytest.mark.parametrize("tools", ["off", "on"])
async def test_the_server_keeps_to_its_description(
    redis_url: str, upstream: Upstream, tmp_path: Path, tools: str
) -> None:
    """Hundreds of good and bad requests: no 5xx, and no status, type or body that is not told."""
    settings = generous(redis_url, upstream, allow_tools=tools)
    async with serving(settings) as server:
        how = ("--phases", "coverage,fuzzing", "--max-examples", "40")
        code, report = await examine(server, tmp_path, *how)
    assert code == 0, report
    assert "Tested: 8" in report, report
    books = await upstream.books()
    assert {entry["path"] for entry in books} == {CHAT, RESPONSES}
    assert len(books) > 10, "hardly a request was good: the rest was never asked"


async def test_a_server_that_breaks_is_found_out(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """The control: with a part that raises, the same examination fails."""
    settings = generous(redis_url, upstream)
    async with serving(settings, around=break_part("upstream")) as server:
        how = ("--phases", "fuzzing", "--max-examples", "5", "--include-path", CHAT)
        code, report = await examine(server, tmp_path, *how)
    assert code == 1, report
    assert "Server error" in report, report


async def described(visitor: Visitor) -> dict[str, Any]:
    """The OpenAPI document."""
    async with visitor.session.get(visitor.url + "/openapi.json") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def test_every_route_is_described(visitor: Visitor) -> None:
    """The paths and methods that a client may use, and no others."""
    paths = (await described(visitor))["paths"]
    assert {path: list(said) for path, said in paths.items()} == {
        **{path: ["post"] for path in (CHAT, RESPONSES, OWN_KEY)},
        **{path: ["get"] for path in ("/v1/models", "/v1/models/{name}")},
        **{path: ["get"] for path in ("/api/health", "/healthz", "/readyz")},
    }


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_every_refusal_of_a_turn_is_described(visitor: Visitor, path: str) -> None:
    """Each code stands under its status, with the headers that say what to do next."""
    document = await described(visitor)
    told = document["paths"][path]["post"]["responses"]
    for code, problem in PROBLEMS.items():
        if code in ("not_found", "budget_visitor", "budget_exhausted", "operator_only"):
            continue
        answer = told[str(problem.status)]
        assert code in answer["description"].split(", ")
        assert {"X-Request-Id", "X-Should-Retry", "Keyturn-Token"} <= set(answer["headers"])
        assert "application/problem+json" in answer["content"]
    assert "upstream_rejected" in told["400"]["description"]
    assert "Retry-After" in told["429"]["headers"]
    assert "WWW-Authenticate" in told["401"]["headers"]
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(
        PROBLEMS
    )


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_what_a_turn_shows_and_gets_is_described(visitor: Visitor, path: str) -> None:
    """The headers of the gate, the body, and the next token in the answer."""
    turn = (await described(visitor))["paths"][path]["post"]
    required = {said["name"]: said["required"] for said in turn["parameters"]}
    assert required == {
        **dict.fromkeys(["Keyturn-Timestamp", "Keyturn-Fingerprint"], True),
        **dict.fromkeys(["Idempotency-Key", "X-Request-Id"], False),
    }
    assert set(turn["responses"]["200"]["headers"]) >= {"Keyturn-Token", "RateLimit"}
    assert set(turn["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert turn["security"] == [{}, {"OneTimeToken": []}]


async def test_tools_are_described_with_what_they_need(visitor: Visitor) -> None:
    """Whoever reads it learns that the operator has to allow them, and that they are functions."""
    schemas = (await described(visitor))["components"]["schemas"]
    chat = schemas["ChatBody"]
    places = [chat["properties"][name] for name in ("tools", "tool_choice", "parallel_tool_calls")]
    for place in (chat, *places, schemas["CallingMessage"], schemas["ToolMessage"]):
        assert "ALLOW_TOOLS=on" in place["description"]
    assert schemas["Tool"]["properties"]["type"]["const"] == "function"
    assert not {"functions", "function_call", "safety_identifier"} & set(chat["properties"])
    assert "safety_identifier" not in str(chat)


async def test_every_named_schema_is_there(visitor: Visitor) -> None:
    """No reference leads to nothing, and none is in the document that nobody refers to."""
    document = await described(visitor)
    schemas = set(document["components"]["schemas"])
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named == schemas


@pytest.mark.parametrize("word", ["sk-", "redis://", "unix://", "/home", "secret_key"])
async def test_the_description_tells_no_secret(visitor: Visitor, word: str) -> None:
    """The document is the same for every server: nothing of the settings is in it."""
    async with visitor.session.get(visitor.url + "/openapi.json") as answer:
        assert word not in await answer.text()


def test_the_app_can_be_described_without_settings() -> None:
    """Importing and describing the app reads no environment and opens nothing."""
    app = create_app()
    assert not hasattr(app.state, "keyturn")
