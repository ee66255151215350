"""The house as other servers open it, and what it keeps when it is opened again: house.py."""

import re
import signal
import sys
from pathlib import Path

import pytest

from house import UNGUARDED
from tests.command_stage import (
    CANARY,
    SERVER_PY,
    START_LIMIT,
    UVICORN,
    alive,
    answers,
    ended,
    free_port,
    run,
    server_py,
    started,
    without_a_store,
)
from tests.stage import OPERATORS_KEY, SECRET, Upstream, visiting, wait_until

IMPORT = """
import sys
seen = []
sys.addaudithook(lambda event, details: seen.append((event, str(details))))
import server
names = [event for event, details in seen if event.startswith(("socket.", "subprocess."))]
files = [details for event, details in seen if event == "open" and ".env" in details]
print(names, files)
"""


def test_importing_the_server_reads_and_opens_nothing(tmp_path: Path) -> None:
    """`import server` succeeds under broken settings: no environment, no `.env`, no connection."""
    (tmp_path / ".env").write_text("PORT=eighty\n")
    broken = {"API_SECRET_KEY": "short", "RATE_LIMIT": "lots"}
    came = run(sys.executable, "-c", IMPORT, cwd=tmp_path, **broken)
    assert (came.returncode, came.stdout, came.stderr) == (0, "[] []\n", "")
    assert not (tmp_path / ".keyturn").exists()
    control = IMPORT.replace("import server", "import settings; settings.read_settings()")
    assert run(sys.executable, "-c", control, cwd=tmp_path, **broken).returncode == 1


PRINT_FROZEN = """
import asyncio, gc, house
async def main():
    async with house.from_environment():
        print(gc.get_freeze_count())
        began = gc.get_stats()[0]["collections"]
        turns = [[] for _ in range(4_000)]
        print(gc.get_stats()[0]["collections"] - began)
        more = [[] for _ in range(4_000)]
        print(gc.get_stats()[0]["collections"] - began)
asyncio.run(main())
"""


def test_the_collector_passes_over_what_stays(tmp_path: Path, redis_url: str) -> None:
    """What a worker made to start is no work for the garbage collector while it serves, nor is what
    some turns hold that run at once; but much that stays is looked at.
    """
    said = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET, "REDIS_URL": redis_url}
    came = run(sys.executable, "-c", PRINT_FROZEN, cwd=tmp_path, **said)
    frozen, looked_at_some, looked_at_much = map(int, came.stdout.split())
    assert frozen > 10_000, came.stderr
    assert (looked_at_some, looked_at_much) == (0, 1)


async def test_uvicorn_alone_brings_its_own_parts(tmp_path: Path) -> None:
    """`uvicorn server:app` starts embedded parts and ends them; a second one there is refused."""
    port = free_port()
    with started((*UVICORN, "--port", port), tmp_path, PORT=port) as running:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url) or ended(running), START_LIMIT)
        async with visiting(url) as visitor:
            assert (await visitor.say(max_tokens=4)).status == 200

        assert UNGUARDED in running.said

        second = run(*UVICORN, "--port", free_port(), cwd=tmp_path)
        assert second.returncode != 0
        assert "embedded parts serve one server: set REDIS_URL" in second.stderr
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        assert run(*SERVER_PY, "check", cwd=elsewhere).returncode == 0

        family = running.family()
        assert family
        running.end()
        wait_until(lambda: not alive(family), START_LIMIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_spent_stays_spent(
    tmp_path: Path, upstream: Upstream, number: signal.Signals
) -> None:
    """With the operator's key the store persists: after a restart old tokens are still refused."""
    said = {
        "OPENAI_API_KEY": OPERATORS_KEY,
        "OPENAI_BASE_URL": upstream.url,
        "API_SECRET_KEY": SECRET,
    }
    with server_py(tmp_path, **said) as running:
        async with visiting(running.url) as visitor:
            spent = (await visitor.say()).token
            following = (await visitor.say()).token
        family = running.family()
        running.end(number)
        wait_until(lambda: not alive(family), START_LIMIT)
    assert (tmp_path / ".keyturn" / "redis").is_dir()

    with server_py(tmp_path, **said) as running:
        assert "persistent in .keyturn/redis" in running.said
        async with visiting(running.url, token=spent) as visitor:
            assert (await visitor.say()).code == "token_reused"
            visitor.token = following
            assert (await visitor.say()).json["chain"] == "advanced"  # by the fence
            assert (await visitor.say()).status == 200
        assert OPERATORS_KEY not in running.said
        assert SECRET not in running.said


async def test_a_demo_forgets(tmp_path: Path) -> None:
    """Control: without the operator's key the store is in memory, and a restart ends all chains."""
    tokens: list[str | None] = [None]
    for _ in range(2):
        with server_py(tmp_path, API_SECRET_KEY=SECRET) as running:
            async with visiting(running.url, token=tokens[-1]) as visitor:
                answer = await visitor.say(max_tokens=4)
                tokens.append(answer.token)
            assert running.end() == 0
    assert (answer.code, answer.token) == ("chain_unknown", None)


@pytest.fixture
def no_store(tmp_path: Path) -> dict[str, str]:
    """An environment in which no redis-server can be found, neither on PATH nor in a package."""
    return without_a_store(tmp_path)


async def test_one_worker_can_do_without_redis(tmp_path: Path, no_store: dict[str, str]) -> None:
    """Where no redis-server is found fakeredis stands in, and says loudly what it is not."""
    command = (sys.executable, "-S", SERVER_PY[1])
    with server_py(tmp_path / "here", command, **no_store) as running:
        assert "  redis     fakeredis (in this process)\n" in running.said
        assert "WARNING keyturn no redis-server was found" in running.said
        async with visiting(running.url) as visitor:
            spent = (await visitor.say(max_tokens=4)).token
            assert (await visitor.say(max_tokens=4)).status == 200
            visitor.token = spent
            assert (await visitor.say(max_tokens=4)).code == "token_reused"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"WORKERS": "2"}, "WORKERS: more than one need a store to share"),
        ({"OPENAI_API_KEY": CANARY, "API_SECRET_KEY": SECRET}, "a store that persists needs"),
    ],
)
def test_fakeredis_is_for_one_worker_and_no_money(
    tmp_path: Path, no_store: dict[str, str], said: dict[str, str], reason: str
) -> None:
    """Several workers, or a key that costs money, are refused where no real store is found."""
    came = run(sys.executable, "-S", SERVER_PY[1], cwd=tmp_path, PORT="0", **no_store, **said)
    assert (came.returncode, came.stdout) == (1, "")
    assert re.search(rf"^Keyturn cannot start: {reason}.*set REDIS_URL", came.stderr)
    assert CANARY not in came.stderr
