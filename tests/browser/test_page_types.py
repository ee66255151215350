"""The demo page's modules under TypeScript: what their comments say of types holds."""

import shutil
from pathlib import Path

from pages import PUBLIC
from tests.browser.test_client_js import NEEDS_TSC, compile_

# In the place of what others wrote, which is not ours to check: what of it is used.
MARKED = """export class Lexer {
  constructor(options?: { gfm?: boolean });
  tokens: { links: object };
  lex(text: string): { type: string, raw: string }[];
}
"""


@NEEDS_TSC
def test_the_pages_comments_are_types(tmp_path: Path) -> None:
    """Under checkJs and strict nothing is amiss in any of its modules; a slip would be."""
    folder = tmp_path / "public"
    shutil.copytree(PUBLIC, folder)
    (folder / "vendor" / "marked.js").unlink()
    check = ["--noEmit", *sorted(file.name for file in folder.glob("*.js"))]
    marked = {"vendor/marked_d_ts": MARKED}
    assert compile_(folder, *check, **marked) == ""
    slips = {
        "page.js": ("messages = now;", "messages = now.length;"),
        "wire.js": ("newRecord(label, ownKey)", "newRecord(ownKey, label)"),
        "blocks.js": ("new Lexer({ gfm: true })", "new Lexer({ gfn: true })"),
    }
    for name, (right, wrong) in slips.items():
        text = (folder / name).read_text()
        assert right in text
        (folder / name).write_text(text.replace(right, wrong))
        assert f"{name}(" in compile_(folder, *check)
        (folder / name).write_text(text)
