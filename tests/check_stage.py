"""An upstream with a model for each way to answer, and `check` as its operator runs it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.command_stage import CANARY, SERVER_PY, run
from tests.stage import SECRET
from tests.upstream_shapes import chunk
from tests.wire import upstream_by_function

CHECK = (*SERVER_PY, "check")
STATES = ("ok", "warning", "fault")
NUMBERS = ["One", ", two", ", three", ", four"]
UPSTREAMS_WORDS = "what upstream says of itself"


@dataclass(frozen=True)
class Line:
    """One finding as it was printed."""

    group: str
    state: str
    text: str


@dataclass(frozen=True)
class Checked:
    """What `check` said, line by line, and its exit code."""

    code: int
    lines: list[Line]
    said: str

    def of(self, group: str, state: str | None = None) -> list[str]:
        """The texts of a group, of all states or of one."""
        return [
            line.text for line in self.lines if line.group == group and state in (None, line.state)
        ]


def check(cwd: Path, *options: str, **said: str) -> Checked:
    """Run `python server.py check` in `cwd`; it must say all on stdout, in its form."""
    came = run(*CHECK, *options, cwd=cwd, **said)
    assert came.stderr == ""
    *findings, blank, last = came.stdout.splitlines()
    assert (blank, bool(re.fullmatch(r"All is well\.|.*\d+ (fault|warning)s?\.", last))) == (
        "",
        True,
    )
    return Checked(came.returncode, list(_lines(findings)), came.stdout)


def _lines(findings: list[str]) -> Any:
    group = ""
    for finding in findings:
        group = finding[:10].strip() or group
        state, text = finding[11:19].strip(), finding[20:]
        assert state in STATES, finding
        assert text, finding
        yield Line(group, state, text)


async def check_live(cwd: Path, url: str, *models: str, **said: str) -> Checked:
    """`check --live` with these models behind an upstream in this loop."""
    prices = cwd / "prices.toml"
    prices.write_text("".join(_entry(model) for model in models))
    settings = {
        "OPENAI_API_KEY": CANARY,
        "OPENAI_BASE_URL": url,
        "API_SECRET_KEY": SECRET,
        "PRICES_FILE": str(prices),
        "ALLOWED_MODELS": ",".join(models),
        "DEFAULT_MODEL": models[0],
    }
    return await asyncio.to_thread(check, cwd, "--live", **{**settings, **said})


def _entry(model: str) -> str:
    reasoning = "true" if "reasoning" in model else "false"
    field = "max_tokens" if model.startswith("old") else "max_completion_tokens"
    return (
        f'[models."{model}"]\ninput = 1\ncached_input = 1\noutput = 10\n'
        f'reasoning = {reasoning}\noutput_limit_field = "{field}"\n'
    )


@asynccontextmanager
async def upstream_of_models(asked: list[Any]) -> AsyncIterator[str]:
    """An upstream that answers as the model's name says; yields its URL, and notes each body."""

    async def complete(request: web.Request) -> web.StreamResponse:
        asked.append(body := await request.json())
        return await _answer(request, body)

    async with upstream_by_function(complete) as url:
        yield url


async def _answer(request: web.Request, body: Any) -> web.StreamResponse:
    model = body["model"]
    if status := re.fullmatch(r".*status-(\d+)", model):
        error = {"message": UPSTREAMS_WORDS, "code": UPSTREAMS_WORDS}
        return web.json_response({"error": error}, status=int(status[1]))
    if model == "no-stream":
        return web.json_response({"choices": [{"message": {"content": UPSTREAMS_WORDS}}]})
    limit = body.get("max_completion_tokens" if model != "old-server" else "max_tokens")
    if model == "knows-max-tokens-only":
        limit = body.get("max_tokens")
    texts = NUMBERS if model.startswith("ignores") or limit is None else NUMBERS[:limit]
    count = len(texts)
    if model.endswith("in-one-piece"):
        texts = ["".join(texts)]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for text in [] if model == "reasoning" else texts:
        await response.write(chunk({"content": text}))
    if model == "breaks-off":
        return response
    await response.write(chunk({}, finish="length"))
    if "without-usage" not in model:
        usage = {"prompt_tokens": 14, "completion_tokens": count, "total_tokens": 14 + count}
        await response.write(chunk(None, usage=usage))
    await response.write(b"data: [DONE]\n\n")
    return response
