"""The files of the operator's page: served as they stand, and what they say of types holds."""

import hashlib
import re
import shutil
from pathlib import Path

from operator_page import FILES, FOLDER
from pages import _TYPES, PAGE_POLICY, PUBLIC
from tests.browser.test_client_js import NEEDS_TSC, compile_
from tests.operator_stage import operating, settings_for
from tests.stage import Upstream, serving
from tests.test_public import WRITES_MARKUP

# In the place of what others wrote, which is not ours to check: what of it is used.
UPLOT = """export default class uPlot {
  constructor(options: object, data: (number | null)[][], place: HTMLElement);
  setSize(size: { width: number, height: number }): void;
  setData(data: (number | null)[][]): void;
  destroy(): void;
  cursor: { idx?: number | null };
  static tzDate(date: Date, zone: string): Date;
}
"""
OURS = sorted(file for file in FOLDER.rglob("*") if file.is_file())


async def test_each_is_served_as_it_stands(redis_url: str, upstream: Upstream) -> None:
    """Whether or not there is a demo page; none that stands there is left out."""
    settings = settings_for(redis_url, upstream, demo_page="off")
    shared = [PUBLIC / name for name in ("controls.css", "page.css", "theme.js")]
    assert sorted(FILES.values()) == sorted([*OURS, *shared])
    async with serving(settings) as server, operating(server, None) as nobody:
        for path, file in FILES.items():
            answer = await nobody.ask("GET", path)
            assert (answer.status, answer.body) == (200, file.read_bytes())
            assert answer.headers["Content-Type"] == _TYPES[file.suffix]
            assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
            known = {"If_None_Match": answer.headers["ETag"]}
            assert (await nobody.ask("GET", path, **known)).status == 304


def test_the_page_lives_within_its_policy() -> None:
    """No inline script, style or handler, nothing from elsewhere, no markup made of strings."""
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    from_elsewhere = r"""(src|href|url\(|from|import)[=( ]+["']?https?://"""
    for file in OURS:
        text = file.read_text()
        assert file.parent.name == "vendor" or not re.search(from_elsewhere, text)
        assert not re.search(WRITES_MARKUP, text)


def test_what_others_wrote_is_as_they_wrote_it() -> None:
    """The note beside it tells version, origin, licence, and the SHA-256 of each file."""
    note = (FOLDER / "vendor" / "uplot.txt").read_text()
    for name in ("uplot.js", "uplot.css"):
        content = (FOLDER / "vendor" / name).read_bytes()
        assert f"{name} SHA-256 {hashlib.sha256(content).hexdigest()}" in note
    version = re.search(r"\(v([\d.]+)\)", (FOLDER / "vendor" / "uplot.js").read_text())
    assert version
    assert note.startswith(f"uplot {version[1]}, ")
    assert "Permission is hereby granted, free of charge" in note


@NEEDS_TSC
def test_the_pages_comments_are_types(tmp_path: Path) -> None:
    """Under checkJs and strict nothing is amiss in any of its modules; a slip would be."""
    folder = tmp_path / "admin"
    shutil.copytree(FOLDER, folder)
    (folder / "vendor" / "uplot.js").unlink()
    check = ["--noEmit", *sorted(file.name for file in folder.glob("*.js"))]
    assert compile_(folder, *check, **{"vendor/uplot_d_ts": UPLOT}) == ""
    slips = {
        "admin.js": ("say('You are logged out.')", "say(404)"),
        "plots.js": ("this.chart?.destroy()", "this.chart?.destruct()"),
        "tables.js": ("element('caption', label, 'unseen')", "element(1, label, 'unseen')"),
        "amounts.js": ("micro / MICRO)", "micro / MICRO, 'x')"),
    }
    for name, (right, wrong) in slips.items():
        text = (folder / name).read_text()
        assert right in text
        (folder / name).write_text(text.replace(right, wrong))
        assert f"{name}(" in compile_(folder, *check)
        (folder / name).write_text(text)
