"""Keyturn under gunicorn's ASGI worker, by the configuration that deploy/ ships."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.command_stage import CANARY, Running, answers, ended, started
from tests.faults.test_drain import environment, exit_code, frame_of, in_flight
from tests.stage import ROOT, Upstream, Visitor, eventually, visiting, wait_until
from tests.wire import DONE, END, ByHand, Call, asking, event, free_port

COMMAND = (
    *(sys.executable, "-m", "gunicorn", "-c", str(ROOT / "deploy" / "gunicorn.conf.py")),
    "server:app",
)
CROWD = 10


@contextmanager
def under_gunicorn(folder: Path, **said: str) -> Iterator[tuple[Running, str]]:
    """As the page says, from a directory that holds nothing; yields where it listens too.

    All its workers do: one that is told to end while it begins does not hear it.
    """
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    with started(COMMAND, folder, PORT=port, **said) as running:
        wait_until(lambda: answers(url, "/readyz") or ended(running), 40)
        assert not ended(running), running.said
        workers = int(said.get("WORKERS", "1"))
        wait_until(lambda: running.said.count("ASGI server listening") == workers, 20)
        yield running, url


@asynccontextmanager
async def told(running: Running) -> AsyncIterator[None]:
    """Told to stop in the end, and ended well."""
    yield
    running.process.send_signal(signal.SIGTERM)
    assert await exit_code(running, 20) == 0, running.said


@asynccontextmanager
async def stream(
    url: str, hand: ByHand, stack: AsyncExitStack
) -> AsyncIterator[tuple[aiohttp.ClientResponse, Call]]:
    """A stream whose first word was read: gunicorn keeps the head until there is a body."""
    visitor = await stack.enter_async_context(visiting(url))
    async with asking(visitor) as asked:
        call = await hand.call()
        await call.begin()
        await call.say(event("one"))
        answer = await asyncio.wait_for(asked, 5)
        assert answer.headers["Keyturn-Token"]
        assert await answer.content.readuntil(b"\n\n") == event("one")
        yield answer, call


@asynccontextmanager
async def crowd(url: str, hand: ByHand) -> AsyncIterator[list[tuple[aiohttp.ClientResponse, Call]]]:
    """Ten of them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stream(url, hand, stack)) for _ in range(CROWD)]


async def test_words_arrive_one_by_one_and_hang_ups_are_passed_on(
    redis_url: str, hand: ByHand, tmp_path: Path
) -> None:
    """Each before the next is said; upstream is closed within a second of a hang-up."""
    with under_gunicorn(tmp_path / "kt", **environment(redis_url, hand.url)) as (running, url):
        async with told(running), AsyncExitStack() as stack:
            async with stream(url, hand, stack) as (answer, call):
                for word in ("two", "three"):
                    await call.say(event(word))
                    async with asyncio.timeout(5):
                        assert await answer.content.readuntil(b"\n\n") == event(word)
                left_at = time.monotonic()
                answer.close()
                assert await call.closed(1)
                assert time.monotonic() - left_at < 1
            await eventually(lambda: _none_in_flight(redis_url))


async def _none_in_flight(redis_url: str) -> bool:
    return not in_flight(redis_url)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_streams_under_way_end_well(
    redis_url: str, hand: ByHand, tmp_path: Path, workers: str
) -> None:
    """All complete after SIGTERM; all are settled; it exits with 0."""
    said = environment(redis_url, hand.url, WORKERS=workers)
    with under_gunicorn(tmp_path / "kt", **said) as (running, url):
        async with crowd(url, hand) as under_way:
            running.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(1.5)  # longer than its workers take to notice
            bodies = []
            for answer, call in under_way:
                await call.end(event("two") + END)
                bodies.append(await answer.read())
        assert await exit_code(running, 20) == 0
    assert bodies == [event("two") + END] * CROWD
    assert in_flight(redis_url) == []
    assert not re.findall(r"Traceback|\[ERROR\]|\[CRITICAL\]", running.said)


async def test_streams_that_last_too_long_end_with_a_frame(
    redis_url: str, hand: ByHand, tmp_path: Path
) -> None:
    """Past DRAIN_SECONDS each is told, and all settled, before gunicorn would cut it."""
    said = environment(redis_url, hand.url, DRAIN_SECONDS="1")
    with under_gunicorn(tmp_path / "kt", **said) as (running, url):
        async with crowd(url, hand) as under_way:
            running.process.send_signal(signal.SIGTERM)
            bodies = [await answer.read() for answer, _ in under_way]
        assert await exit_code(running, 20) == 0
    assert {frame_of(body)["code"] for body in bodies} == {"overloaded"}
    assert not any(DONE in body for body in bodies)
    assert in_flight(redis_url) == []


async def test_what_a_visitor_writes_of_himself_is_not_logged_or_believed(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Behind a named proxy the last hop counts, as everywhere, and no log names an address."""
    limits = {"RATE_LIMIT": "1/day", "TRUSTED_PROXIES": "127.0.0.1"}
    said = environment(redis_url, upstream.url) | limits
    with under_gunicorn(tmp_path / "kt", **said) as (running, url):
        async with told(running), visiting(url) as visitor:
            for spoof, other, code in (
                ("198.51.100.1", "203.0.113.1", None),
                ("198.51.100.2", "203.0.113.1", "rate_limited"),
                ("198.51.100.1", "203.0.113.2", None),
            ):
                headers = visitor.headers(X_Forwarded_For=f"{spoof}, {other}")
                assert (await visitor.post(visitor.body(), headers)).code == code
    assert "203.0.113" not in running.said
    assert "198.51.100" not in running.said


async def test_any_worker_tells_what_all_have_counted(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Ten turns of two workers are ten in every answer of /metrics, whichever gives it."""
    limits = {"WORKERS": "2", "METRICS_TOKEN": CANARY}
    said = environment(redis_url, upstream.url) | limits
    with under_gunicorn(tmp_path / "kt", **said) as (running, url):
        async with told(running), visiting(url, extra={"Connection": "close"}) as visitor:
            for _ in range(CROWD):
                assert (await visitor.say()).status == 200
            await eventually(lambda: _all_say_ten(visitor))


async def _all_say_ten(visitor: Visitor) -> bool:
    headers = {"Authorization": f"Bearer {CANARY}", "Connection": "close"}
    for _ in range(4):
        async with visitor.session.get(visitor.url + "/metrics", headers=headers) as answer:
            lines = (await answer.text()).splitlines()
        turns = [line for line in lines if line.startswith("keyturn_turns_total{")]
        if sum(float(line.split()[-1]) for line in turns) != CROWD:
            return False
    return True
