"""The files of the operator's page: served as they stand, within the policy of the page."""

import hashlib
import re

from operator_page import FILES, FOLDER
from pages import _TYPES, PAGE_POLICY, PUBLIC
from tests.operator_stage import operating, settings_for
from tests.stage import Upstream, serving
from tests.test_public import WRITES_MARKUP

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
