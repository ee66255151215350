"""The demo upstream as a child process.

The law: it has a process of its own, so that what it costs is not charged to the server, and
it is ready before anybody hears of it.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.child_process import Child, child_process, private_directory, until

ROOT = Path(__file__).resolve().parent.parent
MODULE = "embedded.demo_upstream"
START_LIMIT = 20.0
DELAY_MS = 22


@contextmanager
def child_upstream(delay_ms: int = DELAY_MS) -> Iterator[str]:
    """Run the demo upstream until the block ends and yield its base URL, which ends with /v1.

    `delay_ms` passes between two words of an answer. Raises ChildFailed.
    """
    argv = [sys.executable, "-m", MODULE, "--delay-ms", str(delay_ms)]
    with private_directory() as directory, child_process(argv, directory, cwd=ROOT) as child:
        port = until(child, lambda: ready_port(child), START_LIMIT)
        yield f"http://127.0.0.1:{port}/v1"


def ready_port(child: Child) -> int | None:
    """The port in the child's line "ready <port>", None until the whole line is there."""
    match = re.search(r"^ready (\d+)\n", child.log.read_text("utf-8", "replace"), re.MULTILINE)
    return int(match[1]) if match else None
