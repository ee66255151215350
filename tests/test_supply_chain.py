"""Every dependency is a door to the key: few, with a reason, locked, and told to who runs us."""

import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.stage import ROOT

LOCKS = ["requirements.txt", "requirements-embedded.txt", "requirements-dev.txt"]
LOCKS += ["requirements-otel.txt", "requirements-audit.txt"]
# Of setuptools, which Python 3.11 puts into a new virtual environment; 3.12 does not.
EXPECTED_PTH = {"distutils-precedence.pth"}
IMAGE = {"sys_platform": "linux", "python_version": "3.13", "python_full_version": "3.13.0"}
REASON = re.compile(r"^[a-z][^#]*==[^#]+  # \w.{10,}$")


def locked(name: str) -> dict[str, str]:
    """Each locked requirement of a file, as one line with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    return {line.split("==")[0].strip().lower(): line for line in lines}


def applies(line: str) -> bool:
    """Whether a locked line is for the image's platform and Python."""
    marker = Requirement(line.split("--hash")[0].strip()).marker
    return marker is None or marker.evaluate(IMAGE)


def direct(name: str) -> list[str]:
    """The lines of a file that ask for something."""
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#-"]


@pytest.fixture(scope="module")
def sbom() -> Any:
    """What `make sbom` wrote."""
    return json.loads((ROOT / "docs" / "sbom.json").read_text())


def test_production_asks_for_ten_packages_at_the_most() -> None:
    """Each pinned exactly, and with its reason in the same line."""
    asked = direct("requirements.in")
    assert 0 < len(asked) <= 10
    assert [line for line in asked if not REASON.match(line)] == []


@pytest.mark.parametrize("line", ["redis==8.1.0", "redis  # the client of the ledger", "redis>=8"])
def test_a_line_without_reason_or_pin_would_be_found(line: str) -> None:
    """The control."""
    assert not REASON.match(line)


@pytest.mark.parametrize("name", LOCKS)
def test_whatever_is_installed_is_locked_by_its_hashes(name: str) -> None:
    """One exact version of each, at least one SHA-256, and no other place to install from."""
    lines = locked(name)
    assert lines
    for line in lines.values():
        assert re.match(r"[\w.-]+==[\w.+!-]+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line
    assert not re.search(r"https?://|--index|--find-links|@ ", (ROOT / name).read_text())


def test_the_bill_of_materials_is_what_production_installs(sbom: Any) -> None:
    """Every locked package that applies here, at its version, and nothing more; each with a
    licence."""
    lines = locked("requirements.txt")
    wanted = {f"{name}@{_version(line)}" for name, line in lines.items() if applies(line)}
    told = {component["purl"].removeprefix("pkg:pypi/") for component in sbom["components"]}
    assert told == wanted
    assert [c["name"] for c in sbom["components"] if not c.get("licenses")] == []


def _version(line: str) -> str:
    return line.split("==")[1].split()[0]


def test_no_licence_asks_for_our_source(sbom: Any) -> None:
    """Permissive licences only: an operator may run this behind anything."""
    told = json.dumps([component["licenses"] for component in sbom["components"]])
    assert not re.search(r"[AL]?GPL|SSPL|BUSL|Commons Clause", told)
    assert "MIT" in told


def test_nothing_runs_before_us() -> None:
    """A .pth file runs code at every start of Python: none is there that nobody knows."""
    found = {path.name for path in Path(sysconfig.get_path("purelib")).glob("*.pth")}
    assert found <= EXPECTED_PTH
