"""The users of Redis in `deploy/redis/users.acl` may do what is needed, and nothing else."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from spend import look as look_for_spend
from tests.acl_app_stage import BASE, NOTHING, operate, serve
from tests.acl_stage import (
    FILE,
    PASSWORD,
    Guarded,
    commands_of,
    commands_of_page,
    filled_in,
    guarded,
    selector_without,
)
from tests.command_stage import run
from tests.runbook_stage import nights
from tests.stage import Upstream, settings_with


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("acl")) as store:
        yield store


@pytest.fixture
def store(_store: Guarded) -> Guarded:
    """The server under the file, empty, which has denied nothing yet."""
    _store.tell("FLUSHALL")
    _store.denied()
    return _store


async def test_the_app_needs_no_more_than_its_list(store: Guarded, upstream: Upstream) -> None:
    """Turns, own keys, money, `/readyz`, `check`, `/admin`, `/metrics`: nothing is denied."""
    assert await serve(store, upstream) == []
    assert await operate(store, upstream) == []
    assert store.denied() == []
    with store.client("keyturn") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.keys()
    assert store.denied() == ["keyturn: keys (command)"], "the control: a denial would be seen"


@pytest.mark.parametrize("command", commands_of("keyturn"))
async def test_the_app_needs_each_command_of_its_list(
    store: Guarded, upstream: Upstream, command: str
) -> None:
    """Without this one something goes wrong, and Redis names it as denied."""
    store.tell("ACL", "SETUSER", "keyturn", f"-{command}")
    try:
        assert await serve(store, upstream) != []
        assert f"keyturn: {command} (command)" in store.denied()
    finally:
        store.tell("ACL", "SETUSER", "keyturn", f"+{command}")


async def test_what_is_in_parentheses_is_for_the_operators_page(
    store: Guarded, upstream: Upstream
) -> None:
    """Without it all but `/admin` is served, metrics too, and nothing is denied."""
    store.tell("ACL", "SETUSER", "keyturn", "clearselectors")
    try:
        assert await serve(store, upstream) == []
        assert store.denied() == []
        assert await operate(store, upstream) != [], "the control"
    finally:
        store.tell("ACL", "SETUSER", "keyturn", selector_without())


@pytest.mark.parametrize("command", commands_of_page())
async def test_the_operators_page_needs_each_command_in_parentheses(
    store: Guarded, upstream: Upstream, command: str
) -> None:
    """Without this one something goes wrong there, and Redis names it as denied."""
    store.tell("ACL", "SETUSER", "keyturn", "clearselectors", selector_without(command))
    try:
        assert await operate(store, upstream) != []
        assert f"keyturn: {command} (command)" in store.denied()
    finally:
        store.tell("ACL", "SETUSER", "keyturn", "clearselectors", selector_without())


def by_client(*words: str) -> Callable[[Guarded], None]:
    """A command of the runbook."""

    def give(store: Guarded) -> None:
        with store.client("operator") as client:
            client.execute_command(*words)

    return give


def see_money(store: Guarded) -> None:
    """`python server.py spend` as the operator's user."""
    settings = settings_with(redis_url=store.url("operator"))
    said = asyncio.run(look_for_spend(settings, NOTHING, for_scripts=True))
    assert json.loads(said)


NEEDS: dict[str, Callable[[Guarded], None]] = {
    **dict.fromkeys(("time", "scan", "hmget", "zcount"), see_money),
    "hset": by_client("HSET", f"{BASE}control", "paused", "1"),
    "hdel": by_client("HDEL", f"{BASE}control", "paused"),
    "zadd": by_client("ZADD", f"{BASE}blocked", "9999999999999", "a"),
    "zrem": by_client("ZREM", f"{BASE}blocked", "a"),
    "del": by_client("DEL", f"{BASE}admin:tries:all"),
}


def test_the_operator_sees_the_money_and_rules(store: Guarded) -> None:
    """`spend`, pause, cap, blocking and forgotten attempts need what is listed, and no more."""
    for do in NEEDS.values():
        do(store)
    assert store.denied() == []
    assert set(NEEDS) == set(commands_of("operator"))


@pytest.mark.parametrize("command", commands_of("operator"))
def test_the_operator_needs_each_command_of_the_list(store: Guarded, command: str) -> None:
    """Without this one what needs it fails."""
    store.tell("ACL", "SETUSER", "operator", f"-{command}")
    try:
        with pytest.raises(Exception, match=r"lets this user read too little|no permissions"):
            NEEDS[command](store)
    finally:
        store.tell("ACL", "SETUSER", "operator", f"+{command}")


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("keyturn", ("SET", "elsewhere", "1")),
        ("keyturn", ("SET", "keyturn:{other}:control", "1")),
        ("keyturn", ("FLUSHALL",)),
        ("keyturn", ("CONFIG", "GET", "*")),
        ("keyturn", ("SCRIPT", "FLUSH")),
        ("keyturn", ("CLIENT", "LIST")),
        ("keyturn", ("PUBLISH", "a", "b")),
        ("operator", ("HSET", f"{BASE}spend:1", "spent", "0")),
        ("operator", ("ZREM", f"{BASE}holds", "a")),
        ("operator", ("DEL", f"{BASE}admin:ended:a")),
        ("operator", ("DEL", f"{BASE}spend:1")),
        ("operator", ("EVAL", "return 1", "0")),
        ("operator", ("GET", f"{BASE}rate:a")),
    ],
)
def test_what_no_user_may(store: Guarded, user: str, words: tuple[str, ...]) -> None:
    """Another tenant's keys, other keys, administration; the operator may not touch money."""
    with store.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*words)


def test_who_shows_no_password_gets_in_nowhere(store: Guarded) -> None:
    """The default user is off: an open port is no open store."""
    with (
        redis.Redis(unix_socket_path=store.socket, driver_info=None) as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()


def test_the_runbook_asks_for_no_more(store: Guarded) -> None:
    """Each command of its blocks is one that either user may give, the app's by its parentheses."""
    given = {
        word.lower()
        for night in nights().values()
        for step in night
        if step.kind == "run"
        for word in re.findall(r'redis-cli -u "\$REDIS_URL" ([A-Z]+)', step.text)
    }
    assert given == {"hset", "hdel", "zadd", "zrem"}
    assert given <= set(commands_of("operator"))
    assert given <= {*commands_of("keyturn"), *commands_of_page()}
    assert "hdel" not in commands_of("keyturn")
    assert store.denied() == []


def test_passwords_are_put_in_as_the_page_says(tmp_path: Path) -> None:
    """The commands of deploy/redis/README.md make a file that has our hashes and nothing else."""
    page = (FILE.parent / "README.md").read_text()
    commands = page.partition("```sh\n")[2].partition("redis-server ")[0]
    (tmp_path / "deploy").symlink_to(FILE.parent.parent)
    passwords = dict.fromkeys(("KEYTURN_PASSWORD", "OPERATOR_PASSWORD"), PASSWORD)
    run("bash", "-c", commands, cwd=tmp_path, **passwords)
    assert (tmp_path / "users.acl").read_text() == filled_in(FILE.read_text())


def test_redis_refuses_the_file_before_passwords_are_put_in(tmp_path: Path) -> None:
    """Nobody can forget to: the file as it stands here does not start."""
    program = shutil.which("redis-server")
    assert program
    words = ["--port", "0", "--unixsocket", str(tmp_path / "s"), "--aclfile", str(FILE)]
    came = subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=20, check=False
    )
    assert came.returncode == 1
    assert "The password hash must be exactly 64 characters" in came.stdout
