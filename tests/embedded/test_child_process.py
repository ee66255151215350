"""A child process that never outlives us: embedded/child_process.py."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded.child_process import child_process, private_directory, until
from embedded.errors import ChildFailed

Parent = Callable[..., "subprocess.Popen[str]"]
Until = Callable[[Callable[[], object]], None]

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
SLEEP = "import time; time.sleep(300)"

PARENT = """
import sys, time
from embedded.child_process import child_process, private_directory
with private_directory() as directory:
    with child_process([sys.executable, "-c", sys.argv[1]], directory) as child:
        print(child.process.pid, directory, flush=True)
        time.sleep(300)
"""

ENVIRONMENT = """
import sys
from pathlib import Path
from embedded.child_process import child_process, private_directory
with private_directory() as directory:
    argv = [sys.executable, "-c", "import os; print(os.environ)"]
    with child_process(argv, directory) as child:
        child.process.wait(20)
        print(child.log.read_text(), flush=True)
"""

THREAD = """
import os, sys, threading
from contextlib import ExitStack
from embedded.child_process import child_process, private_directory

def begin():
    child = stack.enter_context(child_process(argv, stack.enter_context(private_directory())))
    children.append(child)

argv, children = [sys.executable, "-c", sys.argv[1]], []
with ExitStack() as stack:
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    print(children[0].process.pid, flush=True)
    sys.stdin.readline()
    print(children[0].process.poll(), flush=True)
"""


def alive(pid: int) -> bool:
    """Whether this process runs (one that waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_directory_is_private_short_and_removed() -> None:
    """Only this user can enter the directory, a socket fits in it, and it goes with the block."""
    with private_directory() as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(directory / "s.sock")) < 100
    assert not directory.exists()


def test_a_long_temporary_path_is_not_used() -> None:
    """A TMPDIR too long for a socket's path gives a short directory all the same."""
    script = (
        "from embedded.child_process import private_directory\n"
        "with private_directory() as directory: print(directory)"
    )
    with private_directory() as base:
        long = base / ("x" * 90)
        long.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"TMPDIR": str(long)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    assert len(run.stdout.strip()) < 90


def test_a_program_that_cannot_start_is_named(tmp_path: Path) -> None:
    """A program that is not there is an error with its path."""
    with (
        pytest.raises(ChildFailed, match="/nowhere/at-all cannot be started: No such file"),
        child_process(["/nowhere/at-all"], tmp_path),
    ):
        pass


def test_last_words_are_shown(tmp_path: Path) -> None:
    """A child that dies at its start is reported with its exit code and its last lines only."""
    script = "import sys; [print('line', n) for n in range(99)]; sys.exit(7)"
    with (
        pytest.raises(ChildFailed) as caught,
        child_process([sys.executable, "-c", script], tmp_path) as child,
    ):
        until(child, lambda: None, 20)
    assert "exit code 7" in str(caught.value)
    assert str(caught.value).endswith("line 97\n  line 98")
    assert "line 90" not in str(caught.value)


def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    """A child that runs but is not ready in time is an error, and is stopped."""
    with (
        pytest.raises(ChildFailed, match=r"was not ready within 0\.2 s"),
        child_process([sys.executable, "-c", SLEEP], tmp_path) as child,
    ):
        until(child, lambda: None, 0.2)
    assert child.process.returncode == -15


def test_a_deaf_child_is_killed(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed when its limit has passed."""
    argv = [sys.executable, "-c", f"{DEAF}; {SLEEP}"]
    with child_process(argv, tmp_path, stop_limit=0.2) as child:
        until(child, lambda: "deaf" in child.log.read_text() or None, 20)
    assert child.process.returncode == -9


def test_a_child_sees_no_secret(parent: Parent) -> None:
    """Of the environment only a few names reach the child, never a setting of ours."""
    env = os.environ | {"OPENAI_API_KEY": "sk-made-up", "API_SECRET_KEY": "made-up"}
    process = parent(ENVIRONMENT, env=env)
    said, _ = process.communicate(timeout=20)
    assert "PATH" in said
    assert "made-up" not in said
    assert "KEY" not in said


def test_ctrl_c_does_not_reach_the_child(tmp_path: Path) -> None:
    """The child leads a session of its own, so the terminal's signals pass it by."""
    with child_process([sys.executable, "-c", SLEEP], tmp_path) as child:
        assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)


def test_a_killed_parent_takes_its_child_along(parent: Parent, until: Until) -> None:
    """After SIGKILL of the parent the child ends and its directory goes."""
    process = parent(PARENT, SLEEP)
    assert process.stdout is not None
    pid, _, directory = process.stdout.readline().strip().partition(" ")
    assert alive(int(pid))
    process.kill()
    until(lambda: not alive(int(pid)))
    until(lambda: not Path(directory).exists())


def test_a_killed_parent_takes_a_deaf_child_along(parent: Parent, until: Until) -> None:
    """After SIGKILL of the parent even a child that ignores SIGTERM ends."""
    process = parent(PARENT, f"{DEAF}; {SLEEP}")
    assert process.stdout is not None
    pid, _, directory = process.stdout.readline().strip().partition(" ")
    until(lambda: "deaf" in Path(directory, "log").read_text())
    process.kill()
    until(lambda: not alive(int(pid)))


def test_the_end_of_a_thread_is_not_the_end_of_the_child(
    parent: Parent,
) -> None:
    """A child started in a thread lives on when the thread has ended, and ends with the block."""
    process = parent(THREAD, SLEEP)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    said, _ = process.communicate("go on\n", timeout=20)
    assert said == "None\n", "the child had ended before its parent looked"
    assert not alive(pid)
