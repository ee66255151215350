"""The runbook as a test reads it: what to do, what one sees then, and what visitors get."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.stage import ROOT

PAGE: Final = ROOT / "docs" / "runbook.md"
_STEP: Final = re.compile(
    r"^By HTTP(?:, in USD)?:\n\n```sh\n(?P<http>.*?)^```$"
    r"|^```sh\n(?P<run>.*?)^```$"
    r"|^```text\n(?P<see>.*?)^```$"
    r"|^<!-- then: (?P<then>.+?) -->$"
    r"|^(?P<who>[A-Z][a-z ]+) now: `(?P<told>[^`]+)`\.$",
    re.M | re.S,
)
_END: Final = "--- end of a command ---"


@dataclass(frozen=True)
class Step:
    """`kind` is run, http, see, then or told; `who` is told `text`."""

    kind: str
    text: str
    who: str = ""


def nights() -> dict[str, list[Step]]:
    """The steps under each heading of the page; those before the first are under ''."""
    head, *parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.M)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {name: list(steps(text)) for name, text in {"": head, **found}.items()}


def by_redis(night: list[Step]) -> list[Step]:
    """The steps of whoever has `redis-cli`."""
    return [step for step in night if step.kind != "http"]


def by_http(night: list[Step]) -> list[Step]:
    """The steps of whoever has `ADMIN_TOKEN`: each stands in the place of the one before it."""
    pairs = zip(night, [*night[1:], None], strict=True)
    return [step for step, following in pairs if not (following and following.kind == "http")]


def steps(text: str) -> Iterator[Step]:
    """The steps of a part of the page, in order."""
    for found in _STEP.finditer(text):
        if found["told"]:
            yield Step("told", found["told"], found["who"])
        else:
            kind = found.lastgroup or ""
            yield Step(kind, found[kind])


def misses(expected: str, seen: str) -> list[str]:
    """The lines that should stand in what was seen, in this order, and do not; … is anything."""
    lines, missing = iter(seen.splitlines()), []
    for line in expected.splitlines():
        words = [re.escape(part) for part in re.split(r"\s*…\s*", line)]
        pattern = re.compile(r"\s*.*\s*".join(words))
        if not any(pattern.fullmatch(each) for each in lines):
            missing.append(line)
            lines = iter(seen.splitlines())
    return missing


class Shell:
    """A shell in which commands are run one after the other, as an operator types them."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def run(self, command: str) -> str:
        """What it prints."""
        return await asyncio.wait_for(asyncio.to_thread(self._run, command), 60)

    def _run(self, command: str) -> str:
        to, said = self._process.stdin, self._process.stdout
        assert to
        assert said
        to.write(f"{command}\necho; echo '{_END}'\n")
        to.flush()
        lines: list[str] = []
        while (line := said.readline().rstrip("\n")) != _END:
            assert line or self._process.poll() is None, "the shell has ended"
            lines.append(line)
        return "\n".join(lines)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
