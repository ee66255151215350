"""Where a running server's own store is, for commands of the same user: embedded/parts.py."""

import fcntl
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from embedded import EmbeddedInUse, Parts, embedded_parts, store_in_use
from embedded.parts import NOTE, read_note, try_lock

Parent = Callable[..., "subprocess.Popen[str]"]
Until = Callable[[Callable[[], object]], None]

KILLED = """
import sys
from pathlib import Path
from embedded import embedded_parts
with embedded_parts(
    Path(sys.argv[1]), store=True, upstream=False, secret=False, persistent=False
) as parts:
    print(parts.redis_url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def running(home: Path, *, store: bool = True, server: bool = True) -> Iterator[Parts]:
    """What a demo server runs in this directory; without `server` none is installed."""
    installed = {} if server else {"server": lambda: None}
    with embedded_parts(
        home, store=store, upstream=False, secret=True, persistent=False, **installed
    ) as parts:
        yield parts


def test_while_it_runs_its_store_can_be_found(tmp_path: Path) -> None:
    """The URL is told from the moment the store answers, and no longer than the server runs."""
    assert store_in_use(tmp_path) is None
    with running(tmp_path) as parts:
        url = store_in_use(tmp_path)
        assert url is not None
        assert url == parts.redis_url
        with Redis.from_url(url) as redis:
            assert redis.ping()
    assert store_in_use(tmp_path) is None
    assert not (tmp_path / NOTE).exists()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """The note, its directory and the socket's directory are this user's alone."""
    home = tmp_path / "home"
    with running(home) as parts:
        socket = Path(urlsplit(parts.redis_url or "").path)
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (home / NOTE, home, socket.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_looking_takes_nothing(tmp_path: Path) -> None:
    """Whoever looks leaves no file behind, and the lock is free for the next server."""
    assert store_in_use(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "lock").touch()
    assert store_in_use(tmp_path) is None
    with (tmp_path / "lock").open("ab") as lock:
        assert try_lock(lock.fileno())


def test_two_may_look_at_once(tmp_path: Path) -> None:
    """One that looks is not taken for a server by another one."""
    (tmp_path / "lock").touch()
    (tmp_path / NOTE).write_text("memory://\n")
    with (tmp_path / "lock").open("rb") as looking:
        assert try_lock(looking.fileno(), fcntl.LOCK_SH)
        assert store_in_use(tmp_path) is None


def test_a_note_that_was_left_is_not_believed(tmp_path: Path, parent: Parent, until: Until) -> None:
    """A killed server leaves its note; once its store is gone, nobody is said to run."""
    process = parent(KILLED, str(tmp_path))
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert store_in_use(tmp_path) == url
    process.kill()
    until(lambda: store_in_use(tmp_path) is None)
    assert read_note(tmp_path / NOTE) == url, "the control: whoever only reads it is misled"
    with running(tmp_path) as parts:
        assert store_in_use(tmp_path) == parts.redis_url != url


def test_half_a_note_is_none(tmp_path: Path) -> None:
    """What another process is still writing is not read as a shorter path."""
    note = tmp_path / NOTE
    assert read_note(note) is None
    note.write_text("unix:///tmp/keyt")
    assert read_note(note) is None
    note.write_text("unix:///tmp/keyturn/s.sock\n")
    assert read_note(note) == "unix:///tmp/keyturn/s.sock"


def test_a_server_without_a_store_of_its_own(tmp_path: Path) -> None:
    """Where the lock is held but no store is named, one is told so after a moment."""
    (tmp_path / NOTE).write_text("unix:///tmp/of-an-earlier-server\n")
    with (
        running(tmp_path, store=False),
        pytest.raises(EmbeddedInUse, match="set REDIS_URL if it has one"),
    ):
        store_in_use(tmp_path)


def test_a_store_in_memory_is_named_as_such(tmp_path: Path) -> None:
    """fakeredis has no socket: the note says where it is, so that nobody looks for one."""
    with running(tmp_path, server=False):
        assert store_in_use(tmp_path) == "memory://"
        assert read_note(tmp_path / NOTE) == "memory://"
