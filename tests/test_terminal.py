"""A server that was started from a terminal ends with it, though SIGHUP means new keys."""

import fcntl
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.command_stage import SERVER_PY, START_LIMIT, Running, alive, answers, ended, scrubbed
from tests.stage import wait_until


def in_a_terminal() -> None:
    """As a shell starts a program, whoever runs the tests and whatever they ignore."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_terminal_ends_what_was_started_from_it(tmp_path: Path, workers: str) -> None:
    """Parent, workers and embedded parts are gone; what was told by SIGHUP before did not do it."""
    ours, its = pty.openpty()
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            SERVER_PY,
            cwd=tmp_path,
            env=scrubbed(PORT="0", WORKERS=workers),
            stdin=its,
            stdout=to_out,
            stderr=to_err,
            start_new_session=True,
            preexec_fn=in_a_terminal,
        )
    os.close(its)
    running = Running(process, out, err)
    try:
        wait_until(lambda: "  workers " in running.said or ended(running), START_LIMIT)
        wait_until(lambda: answers(running.url) or ended(running), START_LIMIT)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "no new keys" in running.said, START_LIMIT)
        assert answers(running.url)
        family = running.family()
        os.close(ours)
        assert process.wait(START_LIMIT) == 0
        wait_until(lambda: not alive(family), START_LIMIT)
    finally:
        process.kill()
        process.wait(10)
