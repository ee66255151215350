"""A child process that never outlives us.

The law: the child runs in its own session, so that Ctrl-C reaches it only through us, and when
we die of anything, SIGKILL included, it is stopped and its directory removed. A small shell
waits at the other end of a pipe that only we hold open; the kernel closes it for us. This works
alike on Linux and macOS. (Linux's PR_SET_PDEATHSIG fires when the *thread* that started the
child ends, which is not the same thing, and macOS has none.) The child sees no secret of ours:
its environment is a short list of names.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from embedded.errors import ChildFailed

T = TypeVar("T")

STOP_LIMIT = 5.0
POLL_INTERVAL = 0.01
LAST_LINES = 8
LONGEST_BASE = 70  # a Unix socket's path holds 103 bytes on macOS, 107 on Linux
INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")

WATCHDOG = """
read -r pid || exit 0
read -r end
kill -TERM "$pid" 2>/dev/null
for second in 1 2 3 4 5; do
  kill -0 "$pid" 2>/dev/null || exec rm -rf -- "$1"
  sleep 1
done
kill -KILL "$pid" 2>/dev/null
rm -rf -- "$1"
"""


@dataclass(frozen=True)
class Child:
    """A running child and where its words go."""

    process: subprocess.Popen[bytes]
    log: Path

    def require_running(self) -> None:
        """Raise ChildFailed, with the child's last words, if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended at its start (exit code {code}){self.words}")

    @property
    def name(self) -> str:
        """The program's name, for messages."""
        return Path(os.fsdecode(self.process.args[0])).name  # type: ignore[arg-type, index]

    @property
    def words(self) -> str:
        """The last lines of the log, each on its own line, or nothing."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
        return "".join(f"\n  {line}" for line in lines)


@contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory that only this user can enter, its path short enough for a socket."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > LONGEST_BASE:
        base = "/tmp"  # noqa: S108  # mkdtemp makes it private
    path = Path(tempfile.mkdtemp(prefix="keyturn-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def child_process(
    argv: Sequence[str],
    directory: Path,
    *,
    cwd: Path | None = None,
    keep_fd: int | None = None,
    stop_limit: float = STOP_LIMIT,
) -> Iterator[Child]:
    """Run `argv` until the block ends, its output in `directory`/log.

    It is stopped by SIGTERM, and by SIGKILL after `stop_limit` seconds. `keep_fd` stays open in
    the child. Raises ChildFailed if the program cannot be started at all.
    """
    log = directory / "log"
    with watchdog(directory) as watch:
        process = start(argv, log, cwd, () if keep_fd is None else (keep_fd,))
        try:
            watch(process.pid)
            yield Child(process, log)
        finally:
            stop(process, stop_limit)


def start(
    argv: Sequence[str], log: Path, cwd: Path | None, keep_fds: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """Start `argv` in its own session, with nothing of ours but what is named here."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    try:
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603  # programs we found, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                pass_fds=keep_fds,
                start_new_session=True,
            )
    except OSError as error:
        raise ChildFailed(f"{argv[0]} cannot be started: {error.strerror}") from error


def stop(process: subprocess.Popen[bytes], limit: float) -> None:
    """End `process` and reap it: SIGTERM, then SIGKILL after `limit` seconds."""
    process.terminate()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def watchdog(directory: Path) -> Iterator[Callable[[int], object]]:
    """Yield the function that names the pid to stop, and `directory` to remove, if we die."""
    shell = subprocess.Popen(  # noqa: S603  # our own script
        ["/bin/sh", "-c", WATCHDOG, "keyturn-watchdog", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        start_new_session=True,
        bufsize=0,
    )
    pipe = shell.stdin
    assert pipe is not None  # noqa: S101  # PIPE was asked for
    try:
        yield lambda pid: pipe.write(b"%d\n" % pid)
    finally:
        # Killed before its pipe closes: it must not act on a pid that is free again.
        shell.kill()
        shell.wait()
        pipe.close()


def until(child: Child, probe: Callable[[], T | None], limit: float) -> T:
    """Return what `probe` finds, once it finds something.

    Raises ChildFailed if the child ends first or `limit` seconds pass.
    """
    deadline = time.monotonic() + limit
    while (found := probe()) is None:
        child.require_running()
        if time.monotonic() >= deadline:
            raise ChildFailed(f"{child.name} was not ready within {limit:g} s{child.words}")
        time.sleep(POLL_INTERVAL)
    return found
