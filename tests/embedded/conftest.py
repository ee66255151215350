"""Things that every test of the embedded parts needs: real processes, watched from outside."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from embedded.child_upstream import child_upstream

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 20.0

Until = Callable[[Callable[[], object]], None]
Parent = Callable[..., "subprocess.Popen[str]"]


def poll(condition: Callable[[], object]) -> None:
    """Wait until the condition holds, for LIMIT seconds at most."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, for LIMIT seconds at most."""
    return poll


@pytest.fixture
def parent() -> Iterator[Parent]:
    """Start a Python script in a process of its own; whatever still runs is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(
        script: str, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """One demo upstream for all tests of a file, in no hurry to be believed."""
    with child_upstream(delay_ms=0) as url:
        yield url


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    """The real SDK, which checks nothing away: strict validation is on."""
    async with AsyncOpenAI(
        api_key="demo",
        base_url=base_url,
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as sdk:
        yield sdk
