"""The files of the demo page and the browser module: as they stand in public/, under a policy."""

import hashlib
import json
import re

import pytest

from pages import FILES, PAGE_POLICY, PUBLIC
from tests.stage import Upstream, Visitor, serving, settings_with, visiting
from tests.test_pages import DOCS, get

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
IN_PUBLIC = {
    file.relative_to(PUBLIC).as_posix(): TYPES[file.suffix]
    for file in sorted(PUBLIC.rglob("*"))
    if file.is_file()
}
MODULE = "/client.js"
FOR_ALL = [MODULE, "/client.d.ts"]
PAGES = [path for path in ("/", *map("/{}".format, IN_PUBLIC)) if path not in FOR_ALL]
PAGES.remove("/index.html")


@pytest.mark.parametrize("path", [*PAGES, *FOR_ALL])
async def test_the_page_is_served_with_its_policy(visitor: Visitor, path: str) -> None:
    """The file as it stands in public/, its type, and a policy under which only it runs."""
    answer = await get(visitor, path)
    name = "index.html" if path == "/" else path[1:]
    assert (answer.status, answer.body) == (200, (PUBLIC / name).read_bytes())
    headers = answer.headers
    assert headers["Content-Type"] == IN_PUBLIC[name]
    assert headers["Content-Security-Policy"] == PAGE_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    for known, status in ((headers["ETag"], 304), (f"W/{headers['ETag']}", 304), ('"other"', 200)):
        assert (await get(visitor, path, **{"If-None-Match": known})).status == status


@pytest.mark.parametrize("range_", ["x", "bytes=x", "bytes=0-0,2-2", "bytes=999999-"])
async def test_nobody_gets_a_part_of_a_file(visitor: Visitor, range_: str) -> None:
    """A Range may be ignored (RFC 9110, 14.2), and is: no answer of another kind comes of it."""
    answer = await get(visitor, MODULE, Range=range_)
    assert (answer.status, answer.body) == (200, (PUBLIC / "client.js").read_bytes())


def test_every_public_file_is_served() -> None:
    """What stands in public/ has its one address, here and in the rule of Vercel's CDN."""
    assert sorted(FILES.values()) == sorted(IN_PUBLIC)
    assert sorted(FILES) == sorted([*PAGES, *FOR_ALL])
    rule = json.loads((PUBLIC.parent / "vercel.json").read_text())["headers"][0]["source"]
    assert [path for path in [*FILES, "/index.html"] if not re.fullmatch(rule, path)] == []
    assert [path for path in [*DOCS, "/v1/models", "/readyz"] if re.fullmatch(rule, path)] == []


def test_what_others_wrote_is_as_they_wrote_it() -> None:
    """Each file of public/vendor has a note beside it: version, origin, licence and its SHA-256."""
    for file in (PUBLIC / "vendor").glob("*.js"):
        note = file.with_suffix(".txt").read_text()
        assert f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in note
        assert "Permission is hereby granted, free of charge" in note
        version = re.search(r" v([\d.]+) - ", file.read_text())
        assert version
        assert note.startswith(f"{file.stem} {version[1]}, ")


def test_the_pages_policy_lets_nothing_foreign_run() -> None:
    """Nothing is allowed that is not from here: no inline script, no frame, no form, no base."""
    rules = dict(rule.strip().split(" ", 1) for rule in PAGE_POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert rules["trusted-types"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in PAGE_POLICY


WRITES_MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b"


def test_the_page_lives_within_its_policy() -> None:
    """No inline script, style or handler, and nothing from elsewhere, in any of its files."""
    html = (PUBLIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    from_elsewhere = r"""(src|href|url\(|from|import)[=( ]+["']?https?://"""
    for name in IN_PUBLIC:
        text = (PUBLIC / name).read_text()
        assert not re.search(from_elsewhere, text)
        assert name == "vendor/marked.js" or not re.search(WRITES_MARKUP, text)


async def test_without_the_page_the_module_stays(redis_url: str, upstream: Upstream) -> None:
    """DEMO_PAGE=off hides the page and its parts; other pages still get the browser module."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url, demo_page="off")
    async with serving(settings) as server, visiting(server) as visitor:
        for path in PAGES:
            assert (await get(visitor, path)).code == "not_found"
        for path in FOR_ALL:
            assert (await get(visitor, path)).status == 200
