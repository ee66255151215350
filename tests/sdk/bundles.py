"""The SDKs and what is written with them, put into files that a browser runs."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.stage import ROOT

FOLDER: Final = ROOT / "tests" / "sdk"
EXAMPLES: Final = ROOT / "examples"
WITH_SDKS: Final = ("openai-js", "ai-sdk", "langchain")
SDKS: Final = FOLDER / "node_modules"
ESBUILD: Final = SDKS / ".bin" / "esbuild"
NEEDS_SDKS: Final = pytest.mark.skipif(
    not ESBUILD.exists(), reason="the SDKs are not there: apt-get install npm && make sdks"
)


def bundle(out: Path, entries: Mapping[str, Path]) -> None:
    """Bundle each of these into `out`, under its name."""
    options = ["--bundle", "--format=esm", "--keep-names", "--log-level=warning"]
    named = [f"{name}={path}" for name, path in entries.items()]
    command: list[str | Path] = [ESBUILD, *named, *options, f"--outdir={out}"]
    environment = {**os.environ, "NODE_PATH": str(SDKS)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def version(package: str) -> str:
    """The version of an npm package that the lock file names."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


def ordinary(example: str) -> str:
    """An example without the lines that are Keyturn's."""
    lines = (EXAMPLES / f"{example}.js").read_text().splitlines()
    return "\n".join(line for line in lines if not line.endswith("// Keyturn"))
