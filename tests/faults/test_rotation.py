"""Keys change while visitors chat, and nobody notices: real workers, upstream and signals."""

import asyncio
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.command_stage import Running, answers, only, server_py, workers_of
from tests.completions.rows import error
from tests.stage import SECRET, Upstream, Visitor, eventually, visiting, wait_until

OLD, NEW = "sk-old-0123456789abcdef", "sk-new-0123456789abcdef"
NEWER_SECRET = "another-long-and-random-secret-for-tests-3Fx8"
REVOKED = {"status": 401, "body": error("invalid_api_key")}
VISITORS = 8
MANY = "100000/minute"
GENEROUS = {
    **dict.fromkeys(("RATE_LIMIT", "START_LIMIT", "START_LIMIT_GLOBAL"), MANY),
    "MAX_STREAMS_PER_IP": "1000",
    "VISITOR_DAILY_BUDGET_USD": "5",
    "REDIS_TIMEOUT_MS": "5000",  # a busy machine is not what is looked at here
    "REDIS_DEADLINE_MS": "15000",
}


@dataclass
class Crowd:
    """Visitors who chat, each turn on a connection of its own, and what became of their turns."""

    told: Counter[str] = field(default_factory=Counter)
    turns: list[int] = field(default_factory=lambda: [0] * VISITORS)
    stopped: bool = False

    @property
    def failed(self) -> dict[str, int]:
        """The turns that did not end well, by what they were told."""
        return {what: number for what, number in self.told.items() if what != "ok"}

    async def chat(self, visitor: Visitor, number: int) -> None:
        """Turn after turn; whoever is refused begins anew, as a page would."""
        while not self.stopped:
            answer = await visitor.say("hello")
            what = answer.code or answer.failure or "ok"
            self.told[what] += 1
            self.turns[number] += what == "ok"
            if what != "ok" and not answer.token:
                visitor.token = None

    async def goes_on(self, turns: int = 3) -> None:
        """Wait until each visitor had so many more turns."""
        wanted = [number + turns for number in self.turns]

        async def had() -> bool:
            return all(now >= then for now, then in zip(self.turns, wanted, strict=True))

        await eventually(had, 30)


@asynccontextmanager
async def crowd_at(url: str) -> AsyncIterator[Crowd]:
    """The visitors, until the block ends."""
    crowd = Crowd()
    async with asyncio.TaskGroup() as group:
        for number in range(VISITORS):
            group.create_task(_one(crowd, url, number))
        try:
            yield crowd
        finally:
            crowd.stopped = True


async def _one(crowd: Crowd, url: str, number: int) -> None:
    fingerprint = secrets.token_urlsafe(16)
    async with visiting(url, fingerprint=fingerprint, extra={"Connection": "close"}) as visitor:
        await crowd.chat(visitor, number)


@dataclass
class House:
    """A server of several workers, and its directory."""

    running: Running
    home: Path
    upstream: Upstream

    def write(self, **keys: str) -> None:
        """Write the keys into `.env`, all at once."""
        write(self.home, **keys)

    def hang_up(self) -> None:
        """Tell the server of it, as `kill -HUP` does."""
        self.running.process.send_signal(signal.SIGHUP)

    async def says(self, line: str, times: int) -> None:
        """Wait until the workers have said this so often, and no more often."""

        async def said() -> bool:
            return self.running.said.count(line) >= times

        await eventually(said, 30)
        assert self.running.said.count(line) == times, self.running.said

    async def asked_by(self) -> set[str]:
        """The keys by which upstream was asked since the books began."""
        return {entry["authorization"][7:] for entry in await self.upstream.books()}

    async def only_by(self, key: str) -> None:
        """Wait until upstream is asked by this key alone."""

        async def so() -> bool:
            await self.upstream.forget()
            await asyncio.sleep(0.1)
            return await self.asked_by() == {key}

        await eventually(so, 30)


def write(home: Path, **keys: str) -> None:
    """Write an `.env`, all at once."""
    home.mkdir(exist_ok=True)
    fresh = home / "fresh"
    fresh.write_text("".join(f"{name}={value}\n" for name, value in keys.items()))
    fresh.replace(home / ".env")


@asynccontextmanager
async def house(
    home: Path, redis_url: str, upstream: Upstream, *, workers: int = 4, **said: str
) -> AsyncIterator[House]:
    """`python server.py` with several workers, whose keys stand in `.env`."""
    if not (home / ".env").exists():
        write(home, OPENAI_API_KEY=OLD, API_SECRET_KEY=SECRET)
    environment = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.url, **GENEROUS}
    with ExitStack() as stack:
        started = server_py(home, **environment, WORKERS=str(workers), **said)
        running = await asyncio.to_thread(stack.enter_context, started)
        await asyncio.to_thread(all_answer, running)
        yield House(running, home, upstream)


def all_answer(running: Running) -> None:
    """Wait until each worker answers by itself: from then on it hears of new keys."""
    workers = workers_of(running)
    for worker in workers:
        with only(worker, workers):
            wait_until(lambda: answers(running.url), 30)


def spenders(redis_url: str) -> int:
    """How many visitors have spent something, by their hashed addresses."""
    with redis.Redis.from_url(redis_url) as client:
        return len(client.keys("keyturn:{main}:spend:*:*"))


async def test_both_kinds_of_keys_change_and_no_turn_fails(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """The operator's key, the tokens' key, the oldest of them: 0 failed turns, budgets go on."""
    async with (
        house(tmp_path / "home", redis_url, upstream, NEW_KEY_SIGNS_AFTER="1") as server,
        crowd_at(server.running.url) as crowd,
    ):
        await crowd.goes_on()
        server.write(OPENAI_API_KEY=f"{OLD},{NEW}", API_SECRET_KEY=SECRET)
        server.hang_up()
        await server.says("OPENAI_API_KEY: in use from now on: 2 keys", 4)
        await upstream.answer_keys(**{OLD: REVOKED})
        await crowd.goes_on()
        server.write(OPENAI_API_KEY=NEW, API_SECRET_KEY=f"{SECRET},{NEWER_SECRET}")
        server.hang_up()
        await server.says("OPENAI_API_KEY: in use from now on: 1 key\n", 4)
        await server.says("2 keys verify; the last signs", 4)
        await crowd.goes_on()
        server.write(OPENAI_API_KEY=NEW, API_SECRET_KEY=NEWER_SECRET, IDENTITY_KEY=SECRET)
        server.hang_up()
        await server.says("1 key verify; the last signs", 4)
        await crowd.goes_on()
        await server.only_by(NEW)
    assert crowd.failed == {}
    assert sum(crowd.told.values()) > 100
    assert spenders(redis_url) == 1, "whoever spent before is known after"
    for key in (OLD, NEW, SECRET, NEWER_SECRET):
        assert key not in server.running.said


async def test_the_control_of_the_operators_key(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """One key, revoked under load before the new one is there: turns fail until it is."""
    async with (
        house(tmp_path / "home", redis_url, upstream) as server,
        crowd_at(server.running.url) as crowd,
    ):
        await crowd.goes_on()
        await upstream.answer_keys(**{OLD: REVOKED})

        async def are_some_refused() -> bool:
            return crowd.told["upstream_rejected"] > 0

        await eventually(are_some_refused)
        server.write(OPENAI_API_KEY=NEW, API_SECRET_KEY=SECRET)
        server.hang_up()
        await server.only_by(NEW)
        await crowd.goes_on()
    assert set(crowd.failed) == {"upstream_rejected"}


async def test_a_new_secret_that_not_every_worker_has_yet(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """It verifies and does not sign: 0 failed turns. Signing at once, the control, breaks chats."""
    failed = {}
    for seconds in ("600", "0"):
        home = tmp_path / seconds
        async with (
            house(home, redis_url, upstream, NEW_KEY_SIGNS_AFTER=seconds) as server,
            crowd_at(server.running.url) as crowd,
        ):
            await crowd.goes_on()
            server.write(OPENAI_API_KEY=OLD, API_SECRET_KEY=f"{SECRET},{NEWER_SECRET}")
            os.kill(workers_of(server.running)[0], signal.SIGHUP)
            await server.says("API_SECRET_KEY: 2 keys verify; the last", 1)
            await crowd.goes_on(8)
        failed[seconds] = crowd.failed
    assert failed["600"] == {}
    assert set(failed["0"]) == {"token_forged"}


async def test_key_files_are_read_again_when_they_change(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """Replaced as mounted secrets are, by a link that turns elsewhere; nobody sends a signal."""
    home = tmp_path / "home"
    turn_to = mounted(home, openai=OLD + "\n", secret=SECRET)
    write(home)
    async with (
        house(home, redis_url, upstream, workers=2, NEW_KEY_SIGNS_AFTER="3", **FILES) as server,
        crowd_at(server.running.url) as crowd,
    ):
        await crowd.goes_on()
        turn_to("second", openai=f"{OLD}\n{NEW}\n", secret=f"{SECRET}\n{NEWER_SECRET}\n")
        await server.says("OPENAI_API_KEY: in use from now on: 2 keys", 2)
        await upstream.answer_keys(**{OLD: REVOKED})
        await server.says("2 keys verify; the last signs", 2)
        await crowd.goes_on()
        turn_to("third", openai="", secret="short")
        await server.says("the keys stay as they are: OPENAI_API_KEY: is missing in the file", 2)
        await crowd.goes_on()
        await server.only_by(NEW)
    assert crowd.failed == {}
    assert "API_SECRET_KEY: has a key shorter than 32 bytes" in server.running.said


FILES = {
    "OPENAI_API_KEY_FILE": "secrets/now/openai",
    "API_SECRET_KEY_FILE": "secrets/now/secret",
}


def mounted(home: Path, **files: str) -> Callable[..., None]:
    """A directory of secrets behind a link, as Kubernetes mounts them, and how to change it."""
    base = home / "secrets"
    base.mkdir(parents=True)

    def turn_to(name: str, **files: str) -> None:
        (base / name).mkdir()
        for each, text in files.items():
            (base / name / each).write_text(text)
        (base / "next").symlink_to(name)
        (base / "next").replace(base / "now")

    turn_to("first", **files)
    return turn_to


async def test_one_worker_is_told_itself(
    tmp_path: Path, redis_url: str, upstream: Upstream
) -> None:
    """SIGHUP does not end it; nothing new, and what cannot be used, is said and changes nothing."""
    async with (
        house(tmp_path / "home", redis_url, upstream, workers=1) as server,
        visiting(server.running.url) as visitor,
    ):
        server.hang_up()
        await server.says("no new keys: .env and key files were read", 1)
        server.write(OPENAI_API_KEY=OLD, API_SECRET_KEY=NEWER_SECRET, TOKEN_TTL="60")
        server.hang_up()
        await server.says("API_SECRET_KEY: without its oldest key visitors' limits and budgets", 1)
        assert (await visitor.say()).status == 200
        server.write(OPENAI_API_KEY=NEW, API_SECRET_KEY=SECRET, TOKEN_TTL="60")
        server.hang_up()
        await server.says("these changed too and need a restart: TOKEN_TTL", 1)
        assert (await visitor.say()).status == 200
        assert await server.asked_by() == {OLD, NEW}
        assert server.running.end() == 0
