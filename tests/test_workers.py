"""Several workers as one server, from outside: command.py."""

import os
import re
import shutil
import signal
from pathlib import Path

from tests.command_stage import (
    START_LIMIT,
    alive,
    only,
    server_py,
    turn,
    workers_of,
)
from tests.stage import ROOT, wait_until


def count(pids: list[int], pattern: str) -> int:
    """How many of these processes have such a command line."""
    return sum(bool(re.search(pattern, line)) for line in alive(pids))


async def test_all_workers_share_what_is_embedded(tmp_path: Path) -> None:
    """Four workers have one store and one demo upstream: each knows the other's tokens."""
    with server_py(tmp_path, WORKERS="4") as running:
        workers = workers_of(running)
        family = running.family()
        assert len(workers) == 4
        assert count(family, r"embedded\.demo_upstream") == 1
        assert count(family, r"(redis|valkey)-server") == 1

        token = None
        for number in range(8):
            with only(workers[number % 4], workers):
                answer = await turn(running.url, token)
            assert answer.status == 200, answer.body
            with only(workers[(number + 1) % 4], workers):
                assert token is None or (await turn(running.url, token)).code == "token_reused"
            token = answer.token

        assert running.end() == 0
        wait_until(lambda: not alive(family), START_LIMIT)
        assert "Traceback" not in running.said
        assert running.said.count('"code": "token_reused"') == 7, "workers log as the only one does"


def test_nothing_outlives_it(tmp_path: Path) -> None:
    """After SIGKILL of the process that was started, workers and embedded parts are gone."""
    with server_py(tmp_path, WORKERS="2") as running:
        family = running.family()
        assert len(workers_of(running)) == 2
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: not alive(family), START_LIMIT)


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """A dead worker's place is taken by another, unless that cannot start: then all of it ends."""
    prices = tmp_path / "prices.toml"
    shutil.copy(ROOT / "prices.toml", prices)
    with server_py(tmp_path, WORKERS="2", PRICES_FILE=str(prices)) as running:
        first, second = workers_of(running)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len({*workers_of(running)} - {first, second}) == 1, START_LIMIT)
        wait_until(lambda: "a worker died (exit code -9)" in running.said, START_LIMIT)
        os.kill(second, signal.SIGSTOP)
        answer = await turn(running.url)
        os.kill(second, signal.SIGCONT)
        assert answer.status == 200

        family = running.family()
        prices.unlink()
        os.kill(second, signal.SIGKILL)
        assert running.process.wait(START_LIMIT) == 1
        wait_until(lambda: not alive(family), START_LIMIT)
        assert "PRICES_FILE" in running.said
