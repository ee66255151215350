"""The browser module under node's own test runner."""

import shutil
import subprocess

import pytest

from tests.stage import ROOT

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node is not on PATH: apt-get install nodejs")
def test_client_js_keeps_its_promises() -> None:
    """Every promise of client.test.mjs holds against a real HTTP server."""
    assert NODE
    tests = ROOT / "tests" / "browser" / "client.test.mjs"
    run = subprocess.run(
        [NODE, "--test", str(tests)], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert "# fail 0" in run.stdout or "ℹ fail 0" in run.stdout  # noqa: RUF001
