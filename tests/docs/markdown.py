"""The documentation as its readers and their shells see it: pages, headings, links, commands."""

import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.stage import ROOT

PATTERNS: Final = ("*.md", "docs/**/*.md", "examples/*.md", "deploy/**/*.md")
SHELLS: Final = ("sh", "bash", "shell", "console")
_FENCE: Final = re.compile(r" *(`{3,}|~{3,}) *(\w*)")
_LINK: Final = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_REFERENCE: Final = re.compile(r"^ *\[[^\]]+\]: *<?(\S+?)>?$")
_CODE: Final = re.compile(r"(`+)(?:.*?)\1")
_HEADING: Final = re.compile(r"#{1,6} +(.+?)(?: +#+)?$")
_HEREDOC: Final = re.compile(r"<<-? *['\"]?(\w+)['\"]?")
_MAY_GO_ON: Final = re.compile(r"['\"({|&`]|\b(?:if|for|while|until|case)\b")
_ANCHOR: Final = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, however many lines it takes, without its comment."""

    page: Path
    line: int
    text: str

    @property
    def where(self) -> str:
        """For whoever has to look at it."""
        return f"{named(self.page)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the number of its first line, and its lines without indent."""

    language: str
    line: int
    lines: tuple[str, ...]


def pages(root: Path = ROOT) -> list[Path]:
    """Every page."""
    return sorted({page for pattern in PATTERNS for page in root.glob(pattern)})


def named(page: Path) -> str:
    """A page as it is spoken of."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def split(text: str) -> tuple[list[tuple[int, str]], list[Block]]:
    """The lines of prose with their numbers, and the fenced blocks."""
    prose, blocks = list[tuple[int, str]](), list[Block]()
    fence, inside, start, indent = "", list[str](), 0, 0
    language = ""
    for number, line in enumerate(text.splitlines(), 1):
        opening = _FENCE.match(line)
        if not fence and opening:
            fence, language = opening[1], opening[2]
            inside, start, indent = [], number + 1, len(line) - len(line.lstrip())
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            blocks.append(Block(language, start, tuple(inside)))
            fence = ""
        elif fence:
            inside.append(line[min(indent, len(line) - len(line.lstrip())) :])
        else:
            prose.append((number, line))
    assert not fence, f"a block that begins at line {start - 1} has no end"
    return prose, blocks


def links(text: str) -> Iterator[tuple[int, str]]:
    """Where each link leads, with its line; what stands in code is none."""
    for number, line in split(text)[0]:
        plain = _CODE.sub(lambda code: "x" * len(code[0]), line)
        # Code in the words of a link is no harm, and an address has none.
        yield from ((number, found[1]) for found in _LINK.finditer(plain))
        if reference := _REFERENCE.match(plain):
            yield number, reference[1]


def anchors(text: str) -> set[str]:
    """What can be linked to on a page, as GitHub names headings."""
    found, seen = set[str](), Counter[str]()
    for _, line in split(text)[0]:
        found.update(_ANCHOR.findall(line))
        if heading := _HEADING.match(line):
            name = slug(heading[1])
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def slug(heading: str) -> str:
    """Lower case, words joined by hyphens, all else left out."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def commands(page: Path, text: str) -> list[Command]:
    """Every command in the blocks of a shell, in order."""
    found: list[Command] = []
    for block in split(text)[1]:
        if block.language in SHELLS:
            lines = block.lines
            if block.language == "console":  # what is said to the shell, and what it answers
                said = [line.removeprefix("$ ") if line.startswith("$ ") else "" for line in lines]
                lines = tuple(said)
            found += (Command(page, block.line + at, one) for at, one in _joined(lines))
    return found


def _joined(lines: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Lines that belong together, as one."""
    rest = iter(enumerate(lines))
    for start, line in rest:
        whole, end = line, _HEREDOC.search(line)
        while goes_on(whole) or (end and whole.split("\n")[-1] != end[1]):
            more = next(rest)[1]
            one = whole.endswith("\\")
            whole = f"{whole[:-1].rstrip()} {more.strip()}" if one else f"{whole}\n{more}"
        if text := without_comment(whole).strip():
            yield start, text


def goes_on(text: str) -> bool:
    """Whether a shell would wait for another line."""
    if text.endswith("\\"):
        return True
    if not _MAY_GO_ON.search(text):
        return False  # most lines: a shell need not be asked
    said = subprocess.run(
        ["bash", "-n"],
        input=text,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "unexpected" in said.stderr and ("EOF" in said.stderr or "end of file" in said.stderr)


def is_open(text: str) -> bool:
    """Whether a quote has no end yet."""
    try:
        shlex.split(text, comments=True)
    except ValueError as error:
        return "quotation" in str(error)
    return False


def without_comment(text: str) -> str:
    """A command without what is said about it behind a #."""
    for found in re.finditer(r"(?:^|\s)#", text):
        if not is_open(text[: found.start()]):
            return text[: found.start()]
    return text
