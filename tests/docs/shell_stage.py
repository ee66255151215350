"""A shell for the commands of the documentation."""

import subprocess
from pathlib import Path
from typing import Final

from tests.command_stage import scrubbed

LIMIT: Final = 110.0
OURS: Final = ("-o", ".venv/.made", "-o", ".venv/.runtime", "-o", ".venv/.dev")  # installed already


def shell(text: str, cwd: Path, **said: str) -> "subprocess.CompletedProcess[str]":
    """What a shell makes of this."""
    return subprocess.run(
        ["bash", "-c", text],
        cwd=cwd,
        env=scrubbed(**said),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def in_one_shell(texts: list[str], cwd: Path, out: Path, **said: str) -> list[tuple[int, str]]:
    """Exit code and words of each command, one after the other in the same shell."""
    parts = [
        f"{{ {text}\n}} >{out}/{at} 2>&1; echo $? >{out}/{at}.code" for at, text in enumerate(texts)
    ]
    shell("\n".join(parts), cwd, **said)
    found = [(out / f"{at}.code", out / f"{at}") for at, _ in enumerate(texts)]
    return [(int(code.read_text()), words.read_text()) for code, words in found]
