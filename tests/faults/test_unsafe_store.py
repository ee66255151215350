"""A store that could forget what it acknowledged is refused at start, and says how to mend it."""

import asyncio
import contextlib
import re
import resource
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from embedded import Parts
from house import Keyturn
from provisions import require_safe_store
from security.store import unsafe
from tests.command_stage import SERVER_PY, UVICORN, answers, ended, run, server_py, started
from tests.command_stage import START_LIMIT as LIMIT
from tests.faults.log import Log
from tests.faults.store_stage import FAULTS, OwnRedis
from tests.faults.test_store import HEALED, succeeds
from tests.stage import (
    OPERATORS_KEY,
    SECRET,
    Upstream,
    eventually,
    redis_process,
    serving,
    settings_with,
    visiting,
    wait_until,
)

PRODUCTION = {
    "KEYTURN_ENV": "production",
    "OPENAI_API_KEY": OPERATORS_KEY,
    "API_SECRET_KEY": SECRET,
    "ALLOWED_ORIGINS": "https://page.example",
}


@dataclass(frozen=True)
class Unsafe:
    """A Redis that could forget: its options, Keyturn's environment, and the cure we name."""

    name: str
    options: tuple[str, ...]
    cures: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


NOEVICTION, APPEND = "CONFIG SET maxmemory-policy noeviction", "CONFIG SET appendonly yes"
UNSAFE = [
    Unsafe("allkeys-lru", ("--maxmemory-policy", "allkeys-lru"), (NOEVICTION,)),
    Unsafe("volatile-lru", ("--maxmemory-policy", "volatile-lru"), (NOEVICTION,)),
    Unsafe("no AOF in production", (), (APPEND,), PRODUCTION),
    Unsafe("replica", ("--replicaof", "127.0.0.1", "1"), ("REPLICAOF NO ONE",)),
    Unsafe("both", ("--maxmemory-policy", "volatile-ttl"), (NOEVICTION, APPEND), PRODUCTION),
]


@pytest.mark.parametrize("unsafe", UNSAFE, ids=lambda unsafe: unsafe.name)
def test_an_unsafe_store_is_refused_at_start(tmp_path: Path, unsafe: Unsafe) -> None:
    """One line per reason, exit code 1, no worker; it is mended by what the lines say."""
    said = {"WORKERS": "2", **unsafe.environment}
    with redis_process(*unsafe.options) as url:
        came = run(*SERVER_PY, cwd=tmp_path, PORT="0", REDIS_URL=url, **said)
        assert (came.returncode, came.stdout) == (1, "")
        head, *reasons = came.stderr.splitlines()
        assert head == "Keyturn cannot start:"
        assert len(reasons) == len(unsafe.cures)
        for reason, cure in zip(reasons, unsafe.cures, strict=True):
            assert reason.startswith("  - REDIS_URL: it ")
            assert cure in reason
            assert f"`{cure.removeprefix('CONFIG SET ')}`" in reason or "REPLICAOF" in cure
            with redis.Redis.from_url(url) as client:
                client.execute_command(cure)
        came = run(*SERVER_PY, "check", cwd=tmp_path, REDIS_URL=url, **said)
        assert (came.returncode, came.stderr) == (0, "")


def test_one_worker_is_refused_too(tmp_path: Path) -> None:
    """And so is `check`, which names the reason under `store`."""
    with redis_process("--maxmemory-policy", "allkeys-lru") as url:
        came = run(*SERVER_PY, cwd=tmp_path, PORT="0", REDIS_URL=url)
        found = run(*SERVER_PY, "check", cwd=tmp_path, REDIS_URL=url)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr.count("\n") == 2
    assert found.returncode == 1
    assert re.search(r"^store +fault +it may evict keys \(allkeys-lru\): run ", found.stdout, re.M)


def test_another_server_is_refused_as_by_a_wrong_setting(tmp_path: Path) -> None:
    """Bare `uvicorn server:app` does not start, by the same reason; with a safe store it does."""
    with redis_process("--maxmemory-policy", "allkeys-random") as url:
        came = run(*UVICORN, "--port", "0", cwd=tmp_path, REDIS_URL=url)
        assert came.returncode != 0
        assert "SettingsError: REDIS_URL: it may evict keys (allkeys-random): run" in came.stderr
        assert "Application startup failed" in came.stderr
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "noeviction")
        with started((*UVICORN, "--port", "0"), tmp_path, REDIS_URL=url) as running:
            wait_until(lambda: "startup complete" in running.said or ended(running), LIMIT)
            assert not ended(running), running.said


async def test_a_store_that_comes_unsafe_lets_nobody_in(
    tmp_path: Path, upstream: Upstream, log: Log
) -> None:
    """After a start without it too: the log and /readyz say why, and how to mend it."""
    store = OwnRedis(tmp_path)
    settings = settings_with(redis_url=f"unix://{store.socket}", openai_base_url=upstream.url)
    async with serving(settings) as server, visiting(server) as visitor:
        store.start("--maxmemory-policy", "allkeys-lru")
        try:
            store.ready()
            await eventually(lambda: is_logged(log, "allkeys-lru"), HEALED)
            for _ in range(20):
                answer = await visitor.say()
                assert (answer.status, answer.code) == (503, "store_unavailable")
                own_key = await visitor.say(headers={"Authorization": "Bearer sk-own-key-of-mine"})
                assert own_key.code == "store_unavailable"
            async with visitor.session.get(f"{server.url}/readyz") as ready:
                said = await ready.json()
            assert (ready.status, said["redis"]) == (503, "ok")
            cure = re.search(r"run redis-cli (CONFIG SET \S+ \S+),", said["store"])
            assert cure
            assert sum("allkeys-lru" in line for line in log.lines()) == 1, "said once"
            assert await upstream.books() == []
            assert all("ready" in key for key in keys_of(store)), "nothing of an admission"
            store.tell(*cure[1].split())
            await eventually(lambda: succeeds(visitor), HEALED)
            await eventually(lambda: is_logged(log, "the store is there, and safe"), HEALED)
        finally:
            store.kill()


def keys_of(store: OwnRedis) -> list[str]:
    """The name of every key."""
    with store.client() as client:
        return list(client.scan_iter())


async def is_logged(log: Log, word: str) -> bool:
    """Whether a line of the log has this word."""
    return any(word in line for line in log.lines())


async def test_without_that_look_it_admits(tmp_path: Path, upstream: Upstream) -> None:
    """The control: a house that trusts whatever comes lets visitors spend on such a store."""
    store = OwnRedis(tmp_path)
    settings = settings_with(redis_url=f"unix://{store.socket}", openai_base_url=upstream.url)

    def trusting(keyturn: Keyturn) -> Keyturn:
        keyturn.ledger.distrust = None
        return keyturn

    async with serving(settings, around=trusting) as server, visiting(server) as visitor:
        store.start("--maxmemory-policy", "allkeys-lru")
        try:
            store.ready()
            await eventually(lambda: succeeds(visitor), HEALED)
        finally:
            store.kill()


async def test_a_store_that_hides_itself_is_believed(tmp_path: Path, upstream: Upstream) -> None:
    """A hosted store may refuse INFO, where the operator gave up the fence, and is told so where
    not; one that is only busy now is asked again."""
    store = OwnRedis(tmp_path)
    store.start("--maxmemory-policy", "allkeys-lru")
    try:
        store.ready()
        store.tell("ACL", "SETUSER", "guest", "on", ">word", "~*", "+@all", "-info")
        hidden = f"unix://guest:word@{store.socket}"
        settings = settings_with(redis_url=hidden, openai_base_url=upstream.url)
        async with serving(settings) as server, visiting(server) as visitor:
            assert (await visitor.say()).code == "store_unavailable"
            assert "run INFO, or set FAILOVER_FENCE=off" in (server.keyturn.ledger.distrust or "")
        settings = settings_with(
            redis_url=hidden, openai_base_url=upstream.url, failover_fence="off"
        )
        async with serving(settings) as server, visiting(server) as visitor:
            assert (await visitor.say()).status == 200
            hiding = server.keyturn.store
            assert await unsafe(hiding, must_persist=True, fenced=False) == []
        busy = next(fault for fault in FAULTS if fault.name == "busy")
        settings = settings_with(redis_url=f"unix://{store.socket}", openai_base_url=upstream.url)
        busy.strike(store, None)  # type: ignore[arg-type]
        async with serving(settings) as server, visiting(server) as visitor:
            assert server.keyturn.ledger.distrust == "it was not looked at yet"
            busy.heal(store, None)  # type: ignore[arg-type]
            await eventually(lambda: tells_policy(server.keyturn), HEALED)
            assert (await visitor.say()).code == "store_unavailable"
    finally:
        store.kill()


async def tells_policy(keyturn: Keyturn) -> bool:
    """Whether the store was looked at and found to evict."""
    return "allkeys-lru" in (keyturn.ledger.distrust or "")


class OnFullDisk(OwnRedis):
    """A Redis whose files cannot grow past 16 KiB."""

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", *options],
            stdout=subprocess.DEVNULL,
            cwd=Path(self.socket).parent,
            restore_signals=False,  # SIGXFSZ stays ignored: a write fails instead
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14)),
        )


def test_a_store_that_cannot_write_to_its_disk_is_refused(tmp_path: Path) -> None:
    """In production, as soon as it says so itself."""
    store, url = OnFullDisk(tmp_path), f"unix://{tmp_path}/s"
    store.start("--appendonly", "yes")
    try:
        store.ready()
        with server_py(tmp_path / "1", REDIS_URL=url, **PRODUCTION) as running:
            assert answers(running.url), "the control: there is room yet"
            running.end()
        with store.client() as client:
            with contextlib.suppress(redis.RedisError):
                client.set("ballast", "x" * (1 << 15))
            wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "err")
        came = run(*SERVER_PY, cwd=tmp_path, PORT="0", REDIS_URL=url, **PRODUCTION)
    finally:
        store.kill()
    assert (came.returncode, came.stdout) == (1, "")
    assert "  - REDIS_URL: it cannot write to its disk" in came.stderr


async def test_looking_ends_with_the_house(tmp_path: Path) -> None:
    """A server that never saw its store stops at once, and leaves no task behind."""
    settings = settings_with(redis_url=f"unix://{tmp_path}/nobody")
    async with serving(settings):
        names = [str(task.get_coro()) for task in asyncio.all_tasks()]
        assert any("_until_trusted" in name for name in names)
    assert not any("_until_trusted" in str(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_store_without_persistence_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Outside production a real key before a store that forgets at its end is said, and runs."""
    nothing = Parts(None, None, None, None)
    with redis_process() as url:
        await require_safe_store(settings_with(redis_url=url), nothing)
        assert caplog.text.count("the store may forget today's money: it does not persist") == 1
        caplog.clear()
        await require_safe_store(settings_with(redis_url=url, openai_api_key=None), nothing)
        assert not caplog.text
    with redis_process("--appendonly", "yes") as url:
        await require_safe_store(settings_with(redis_url=url), nothing)
        assert not caplog.text
