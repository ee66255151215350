"""docs/operate.md on the operator's page: its lines for curl are run, and its words are true."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from operator_api import API
from tests.acl_stage import guarded
from tests.operator_stage import TOKEN, settings_for
from tests.stage import ROOT, Upstream, serving, visiting

PAGE = (ROOT / "docs" / "operate.md").read_text().partition("\n## The operator's page\n")[2]
SECTION = PAGE.partition("\n## ")[0]
LINES = re.findall(r"^```sh\n(.+?)^```$", SECTION, re.M | re.S)
NEEDS_CURL = pytest.mark.skipif(
    not shutil.which("curl"), reason="curl is not there: apt-get install curl"
)


def run(script: str, url: str) -> "subprocess.CompletedProcess[str]":
    """Run lines of the page in a shell, as they stand there but for the server's address."""
    assert "URL=http://127.0.0.1:8000 " in LINES[0]
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8000", url)],
        env={"ADMIN_TOKEN": TOKEN, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answers(said: str) -> list[Any]:
    """The JSON values that were printed one after another."""
    found, decoder = [], json.JSONDecoder()
    while said:
        value, end = decoder.raw_decode(said)
        found.append(value)
        said = said[end:].lstrip()
    return found


@NEEDS_CURL
async def test_every_line_for_curl_works(redis_url: str, upstream: Upstream) -> None:
    """In their order; each names a route, each route is named, and each says what came of it."""
    assert len(LINES) == 1
    named = re.findall(r"^(?:ask|tell) '?(\w+)", LINES[0], re.M)
    assert set(named) == set(API)
    async with serving(settings_for(redis_url, upstream)) as server:
        ran = await asyncio.to_thread(run, LINES[0], server.url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = answers(ran.stdout)
    assert len(said) == len(named)
    assert [each.get("paused") for each in said[3:5]] == [True, False]
    assert [each["cap_micro_usd"] for each in said[5:7]] == [8_000_000, 5_000_000]
    assert [len(each["blocked"]) for each in said[7:9]] == [1, 0]
    assert said[9]["revoked"] == 0


@NEEDS_CURL
async def test_a_refusal_is_no_success(redis_url: str, upstream: Upstream) -> None:
    """Curl fails where the server refuses, and shows why: so a script notices."""
    head = LINES[0].partition("\nask state")[0]
    async with serving(settings_for(redis_url, upstream)) as server:
        script = head.replace("$ADMIN_TOKEN", "wrong") + "\nask state"
        ran = await asyncio.to_thread(run, script, server.url)
    assert ran.returncode == 22
    assert "operator_only" in ran.stdout


KEPT = r"(history:\d+|history:\d+:refused|workers|admin:(known|ended|tries):[\w-]+)"
OF_SERVING = r"(chain|rate|start|inflight|spend|hold|closed|reject|control|blocked).*"


@NEEDS_CURL
async def test_every_line_works_as_the_user_of_the_page(tmp_path: Path, upstream: Upstream) -> None:
    """Under deploy/redis/users.acl; without what stands in parentheses there curl fails.

    And no key of the page's is any but those that are named.
    """
    with guarded(tmp_path) as store:
        async with serving(settings_for(store.url("keyturn"), upstream)) as server:
            async with visiting(server) as visitor:
                assert (await visitor.say()).status == 200
            whole = await asyncio.to_thread(run, LINES[0], server.url)
            assert store.denied() == []
            store.tell("ACL", "SETUSER", "keyturn", "clearselectors")
            less = await asyncio.to_thread(run, LINES[0], server.url)
        names = [key.decode().removeprefix("keyturn:{main}:") for key in store.tell("KEYS", "*")]
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert (less.returncode, "Redis lets this user read too little" in less.stdout) == (22, True)
    ours = [name for name in names if not re.fullmatch(OF_SERVING, name)]
    assert ours
    assert [name for name in ours if not re.fullmatch(KEPT, name)] == []
