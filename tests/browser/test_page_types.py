"""The modules of both pages under TypeScript: what their comments say of types holds."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from operator_page import FOLDER
from pages import PUBLIC
from tests.browser.test_client_js import NEEDS_TSC, compile_

MARKED = """export class Lexer {
  constructor(options?: { gfm?: boolean });
  tokens: { links: object };
  lex(text: string): { type: string, raw: string }[];
}
"""
UPLOT = """export default class uPlot {
  constructor(options: object, data: (number | null)[][], place: HTMLElement);
  setSize(size: { width: number, height: number }): void;
  setData(data: (number | null)[][]): void;
  destroy(): void;
  cursor: { idx?: number | null };
  static tzDate(date: Date, zone: string): Date;
}
"""


@dataclass
class Page:
    """A page, what others wrote for it, what of that is used, and a slip for some modules."""

    folder: Path
    vendor: str
    used: str  # in the place of what others wrote, which is not ours to check
    slips: dict[str, tuple[str, str]]


DEMO = Page(
    *(PUBLIC, "marked", MARKED),
    slips={
        "page.js": ("messages = now;", "messages = now.length;"),
        "wire.js": ("newRecord(label, ownKey)", "newRecord(ownKey, label)"),
        "blocks.js": ("new Lexer({ gfm: true })", "new Lexer({ gfn: true })"),
    },
)
OPERATORS = Page(
    *(FOLDER, "uplot", UPLOT),
    slips={
        "admin.js": ("say('You are logged out.')", "say(404)"),
        "plots.js": ("this.chart?.destroy()", "this.chart?.destruct()"),
        "tables.js": ("element('caption', label, 'unseen')", "element(1, label, 'unseen')"),
        "amounts.js": ("micro / MICRO)", "micro / MICRO, 'x')"),
    },
)


@NEEDS_TSC
@pytest.mark.parametrize("page", [DEMO, OPERATORS], ids=["demo", "operator"])
def test_the_pages_comments_are_types(page: Page, tmp_path: Path) -> None:
    """Under checkJs and strict nothing is amiss in any of its modules; each slip would be."""
    folder = tmp_path / "page"
    shutil.copytree(page.folder, folder)
    (folder / "vendor" / f"{page.vendor}.js").unlink()
    (folder / "vendor" / f"{page.vendor}.d.ts").write_text(page.used)
    check = ["--noEmit", *sorted(file.name for file in folder.glob("*.js"))]
    assert compile_(folder, *check) == ""
    for name, (right, wrong) in page.slips.items():
        text = (folder / name).read_text()
        assert right in text
        (folder / name).write_text(text.replace(right, wrong))
    amiss = re.findall(r"^(\S+)\(\d+,\d+\): error", compile_(folder, *check), re.MULTILINE)
    assert set(amiss) == set(page.slips)
