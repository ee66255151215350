"""What a worker does when it is told to stop, or when who started it is gone."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Final

from completions.turns import Turns

_LAST_CALL: Final = 2  # seconds in which a server that was told to stop has closed its door


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Stop this worker when the process that started it is gone, as if told to."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent.sentinel, stop)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)


class Terminal:
    """The terminal from which this process was started, if it is to end with it.

    When a terminal is closed its programs are sent SIGHUP, by which ours are told of new keys too.
    """

    def __init__(self) -> None:
        self._minded = signal.getsignal(signal.SIGHUP) == signal.SIG_DFL and _has_terminal()
        if self._minded:
            signal.signal(signal.SIGHUP, self.hang_up)
        else:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @property
    def is_gone(self) -> bool:
        """Whether it was closed meanwhile."""
        return self._minded and not _has_terminal()

    def hang_up(self, number: int, frame: FrameType | None) -> None:
        """Stop where the terminal is gone."""
        if self.is_gone:
            signal.raise_signal(signal.SIGTERM)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def draining_on_signal(turns: Turns, seconds: float) -> Iterator[None]:
    """Drain from the moment this process is told to stop, before the server acts on it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def drain_first(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(partial(turns.drain, seconds, last_call=_LAST_CALL))
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, drain_first)
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(TypeError, ValueError):
                signal.signal(number, handler)
