"""`make admin-demo`: something to see on the operator's page, which ends by itself."""

import asyncio
import sys
from pathlib import Path

from tests.command_stage import START_LIMIT, Running, alive, ended, free_port, started
from tests.operator_stage import operating, settings_for
from tests.stage import Upstream, eventually, serving, wait_until

DEMO = (sys.executable, "-m", "bench.admin_demo")


def told(running: Running, name: str) -> str:
    """What it says on the line of this name."""
    lines = [line.split() for line in running.said.splitlines() if line.split()[:1] == [name]]
    return lines[0][1]


async def test_visitors_come_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """Turns and refusals of several visitors are in the history; Ctrl-C ends all of it, well."""
    with started((*DEMO, "--minutes", "5", "--port", free_port()), tmp_path) as running:
        wait_until(lambda: "Ctrl-C" in running.said or ended(running), START_LIMIT)
        url = told(running, "open").removesuffix("/admin")
        async with operating(url, told(running, "token")) as operator:

            async def is_seen() -> bool:
                drawn = await operator.look("history")
                top = (await operator.look("visitors"))["top"]
                return sum(drawn["answered"]) > 5 and len(drawn["refused"]) > 1 and len(top) > 3

            await eventually(is_seen, START_LIMIT)
        family = running.family()
        assert family
        assert await asyncio.to_thread(running.press_ctrl_c) == 0
        wait_until(lambda: not alive(family), START_LIMIT)
    assert not (tmp_path / ".keyturn").exists()


async def test_a_demo_that_is_ended_leaves_no_server_behind(tmp_path: Path) -> None:
    """SIGTERM ends what it started, too."""
    with started((*DEMO, "--minutes", "5", "--port", free_port()), tmp_path) as running:
        wait_until(lambda: "Ctrl-C" in running.said or ended(running), START_LIMIT)
        family = running.family()
        assert family
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, START_LIMIT) == 0
        wait_until(lambda: not alive(family), START_LIMIT)


async def test_it_ends_by_itself(tmp_path: Path) -> None:
    """After its minutes, and it uses nothing of the environment it was started in."""
    said = {"REDIS_URL": "redis://127.0.0.1:1", "OPENAI_API_KEY": "sk-not-to-be-used"}
    command = (*DEMO, "--minutes", "0.02", "--port", free_port())
    with started(command, tmp_path, **said) as running:
        code = await asyncio.to_thread(running.process.wait, START_LIMIT)
        assert (code, "turns and attempts" in running.said) == (0, True), running.said


async def test_its_visitors_chat_with_no_other_server(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """Where one runs at its port, with a key that costs money, it says so and ends."""
    async with serving(settings_for(redis_url, upstream)) as server:
        port = server.url.rpartition(":")[2]
        command = (*DEMO, "--minutes", "0.02", "--port", port)
        with started(command, tmp_path) as running:
            code = await asyncio.to_thread(running.process.wait, START_LIMIT)
        assert (code, f"Port {port} is in use" in running.said) == (1, True), running.said
    assert await upstream.books() == []
