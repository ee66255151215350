"""The SDKs and what is written with them, put into files that a browser runs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.stage import ROOT

FOLDER: Final = ROOT / "tests" / "sdk"
SDKS: Final = FOLDER / "node_modules"
ESBUILD: Final = SDKS / ".bin" / "esbuild"
NEEDS_SDKS: Final = pytest.mark.skipif(
    not ESBUILD.exists(), reason="the SDKs are not there: apt-get install npm && make sdks"
)


def bundle(out: Path, *entries: Path) -> None:
    """Bundle each entry into `out`, under its folder's name and its own."""
    options = ["--bundle", "--format=esm", "--keep-names", "--log-level=warning"]
    command: list[str | Path] = [
        ESBUILD,
        *entries,
        *options,
        f"--outbase={ROOT}",
        f"--outdir={out}",
    ]
    environment = {**os.environ, "NODE_PATH": str(SDKS)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def version(package: str) -> str:
    """The version of an npm package that the lock file names."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])
