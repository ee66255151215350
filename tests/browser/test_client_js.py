"""The browser module under node's own test runner, its size, and its types under TypeScript's."""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pages import PUBLIC
from tests.stage import ROOT

NODE = shutil.which("node")
FILES = sorted(path.name for path in (ROOT / "tests" / "browser").glob("client_*.test.mjs"))
TSC = ROOT / "tests" / "sdk" / "node_modules" / ".bin" / "tsc"
STRICT = ["--strict", "--allowJs", "--checkJs", "--target", "esnext", "--module", "esnext"]
NEEDS_TSC = pytest.mark.skipif(
    not TSC.exists() and os.environ.get("CI") != "true",
    reason="no typescript: npm ci --ignore-scripts in tests/sdk",
)
MODULE = (PUBLIC / "client.js").read_text()
TYPES = (PUBLIC / "client.d.ts").read_text()

AGREE = """
import * as emitted from './emitted.js';
import * as written from './client.js';
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
const same: Same<typeof emitted, typeof written> = true;
export default same;
"""

USE = """
import { createFetch, readEvents, trimHistory } from './client.js';
import type { Exchange, Store } from './client.js';
const storage: Store = localStorage;
const seen: Exchange[] = [];
const keyturn: typeof fetch = createFetch({
  baseURL: new URL('https://chat.example.org/v1'), fingerprint: async () => 'x'.repeat(16),
  storage, ownKey: () => undefined, maxWait: 0, onExchange: (exchange) => { seen.push(exchange); },
});
const items: ({ role: 'user'; content: string } | { type: 'item_reference'; id: string })[] = [];
const kept: typeof items = trimHistory(items, { maxMessages: 20 });
for await (const data of readEvents(await keyturn('/v1/responses'))) data.trimEnd();
const remedy = seen[0]?.remedy === 'new chain' && seen[0].problem?.code.length;
export { kept, remedy };
"""


@pytest.mark.skipif(NODE is None, reason="node is not on PATH: apt-get install nodejs")
@pytest.mark.parametrize("file", FILES)
def test_client_js_keeps_its_promises(file: str) -> None:
    """Every promise of the file holds against a real HTTP server."""
    assert NODE
    tests = ROOT / "tests" / "browser" / file
    run = subprocess.run(
        [NODE, "--test", str(tests)], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:]
    told = re.search(r"^(?:# |ℹ )pass (\d+)$", run.stdout, re.MULTILINE)  # noqa: RUF001
    assert told
    assert int(told[1]) > 0


def test_it_is_small() -> None:
    """One file without a dependency, under 4,000 bytes as any proxy sends it."""
    assert len(gzip.compress(MODULE.encode(), 6)) < 4000
    assert not re.search(r"^import |\bimport\(['\"](?!\./client\.d\.ts)", MODULE, re.MULTILINE)


def compile_(folder: Path, *arguments: str, **files: str) -> str:
    """What TypeScript says of these files, all in one folder; nothing, if all is well."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    run = subprocess.run(
        [TSC, *STRICT, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode == 0) == (not run.stdout), run.stderr
    return run.stdout


@NEEDS_TSC
def test_its_comments_are_types(tmp_path: Path) -> None:
    """Under checkJs and strict nothing is amiss in client.js; a slip of any kind would be."""
    check = ("--noEmit", "client.js")
    assert compile_(tmp_path, *check, client_js=MODULE, client_d_ts=TYPES) == ""
    for right, wrong in [
        ("maxWait = 30", "maxWait = '30'"),
        ("return 'right clock'", "return 'right cluck'"),
        ("signal.throwIfAborted()", "signal.throwIfStopped()"),
        ("export async function* readEvents(response)", "export async function* readEvents(r, s)"),
    ]:
        assert right in MODULE
        broken = MODULE.replace(right, wrong)
        assert "error TS" in compile_(tmp_path, *check, client_js=broken, client_d_ts=TYPES)


@NEEDS_TSC
def test_the_types_beside_it_are_its_own(tmp_path: Path) -> None:
    """client.d.ts says of each function what TypeScript reads from the comments in client.js."""
    emit = ("--declaration", "--emitDeclarationOnly", "--outDir", "out", "emitted.js")
    assert compile_(tmp_path, *emit, emitted_js=MODULE, client_d_ts=TYPES) == ""
    out = tmp_path / "out"
    agree = ("--noEmit", "agree.ts")
    assert compile_(out, *agree, agree_ts=AGREE, client_d_ts=TYPES) == ""
    for right, wrong in [
        ("maxBytes?: number", "maxBytes?: string"),
        ("AsyncGenerator<string, void, unknown>", "AsyncGenerator<unknown, void, unknown>"),
        ("createFetch(options?: Options)", "createFetch(options: Options)"),
        ("export function readEvents", "export function more(): void;\nexport function readEvents"),
    ]:
        assert right in TYPES
        broken = TYPES.replace(right, wrong)
        assert "error TS2322" in compile_(out, *agree, client_d_ts=broken)


@NEEDS_TSC
def test_a_page_in_typescript_may_use_it(tmp_path: Path) -> None:
    """What it returns is a fetch, each option takes what it says, and histories keep their type."""
    check = ("--noEmit", "use.ts")
    assert compile_(tmp_path, *check, use_ts=USE, client_d_ts=TYPES) == ""
    misspelt = USE.replace("maxWait", "maxWaits")
    assert "'maxWaits' does not exist" in compile_(
        tmp_path, *check, use_ts=misspelt, client_d_ts=TYPES
    )
