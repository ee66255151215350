"""The unit in deploy/, as far as it can be tried without a systemd that runs."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_stage import scrubbed
from tests.stage import OPERATORS_KEY, ROOT, SECRET, redis_process

UNIT = (ROOT / "deploy" / "keyturn.service").read_text()
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 20  # tenths; a unit without a word of hardening has 96
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1

needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="apt-get install systemd")


def said(name: str) -> list[str]:
    """What the unit says under a name."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.M)


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run systemd-analyze."""
    assert ANALYZE
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, its paths those of this checkout."""
    here = UNIT.replace("/opt/keyturn/.venv/bin/python", sys.executable)
    path = tmp_path / "keyturn.service"
    path.write_text(here.replace("/opt/keyturn", str(ROOT)))
    return path


@needs_analyze
def test_systemd_reads_the_unit(unit: Path) -> None:
    """Without a complaint; the control is the same unit with one word spelt wrong."""
    assert analyze("verify", str(unit)).stderr == ""
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSystems="))
    assert "ProtectSystems" in analyze("verify", str(unit)).stderr


@needs_analyze
def test_the_unit_is_hardened(unit: Path) -> None:
    """Systemd's own count of what a service could reach; without its hardening it would fail."""
    judge = ("security", "--offline=true", f"--threshold={MOST_EXPOSED}")
    assert analyze(*judge, str(unit)).returncode == 0
    bare = re.sub(r"(?m)^(Protect|Private|Restrict|SystemCall|Capability|NoNew).*\n", "", UNIT)
    unit.write_text(bare)
    assert analyze(*judge, str(unit)).returncode == 1


def test_the_parent_is_told_and_ends_its_workers() -> None:
    """SIGTERM to the parent alone: told too, workers would end before it could say so."""
    assert said("KillMode") == ["mixed"]
    assert said("Restart") == ["always"]
    (start,) = said("ExecStart")
    assert start.endswith(" server.py")
    assert (ROOT / "server.py").is_file()


def test_it_serves_without_memory_that_can_be_written_and_run(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute, as the kernel keeps it: all that a check loads and opens still works.

    The control: the same process cannot map a page that is both.
    """
    assert said("MemoryDenyWriteExecute") == ["yes"]
    refuse = (
        "import ctypes, mmap, runpy, sys\n"
        f"if ctypes.CDLL(None).prctl({PR_SET_MDWE}, {REFUSE_EXEC_GAIN}, 0, 0, 0):\n"
        "    sys.exit(3)\n"
        "try:\n    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)\n    sys.exit(4)\n"
        "except PermissionError:\n    pass\n"
        "sys.argv = ['server.py', 'check']\nrunpy.run_path('server.py', run_name='__main__')\n"
    )
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("PR_SET_MDWE came with Linux 6.3")
    with redis_process("--appendonly", "yes", "--maxmemory-policy", "noeviction") as url:
        settings = {
            "KEYTURN_ENV": "production",
            "REDIS_URL": url,
            "OPENAI_API_KEY": OPERATORS_KEY,
            "API_SECRET_KEY": SECRET,
            "ALLOWED_ORIGINS": "https://page.example",
        }
        run = subprocess.run(
            [sys.executable, "-c", refuse],
            cwd=ROOT,
            env=scrubbed(**settings) | {"HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "the admission script runs and writes" in run.stdout
