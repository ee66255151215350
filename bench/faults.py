"""Runs what can go wrong, on real servers, and prints the figures beside the lines they keep to.

    make faults                          all of tests/faults
    make faults ARGS="-k failover"       some of it; options go to pytest

A figure is the worst, or the sum, of what the tests noted of it (tests/faults/figures.py). Controls
are the same scenes without what is to be shown. Exit code 1 where a test fails or a line is
crossed.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.faults.figures import LINES, NAME, Figure

TESTS = "tests/faults"


def run(options: list[str]) -> tuple[int, list[Figure]]:
    """Run the tests; how that ended, and all that they noted."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        written = (f"--junitxml={report}", "-o", "junit_family=xunit1")  # which knows properties
        code = pytest.main([TESTS, "-q", *written, *options])
        return int(code), list(noted(report.read_text()))


def noted(report: str) -> Iterator[Figure]:
    """The figures in a report of pytest."""
    for said in ElementTree.fromstring(report).iter("property"):  # noqa: S314  # our own
        if said.get("name") == NAME:
            yield Figure.read(said.get("value") or "")


def together(figures: Iterable[Figure]) -> Figure | None:
    """All of one name: counts are summed, of what is no count the worst stands."""
    known = list(figures)
    if not known:
        return None
    if known[0].of is None:
        return max(known, key=lambda figure: figure.found)
    found, of = sum(each.found for each in known), sum(each.of or 0 for each in known)
    return Figure(known[0].name, found, of, known[0].control)


def keeps(figure: Figure) -> bool:
    """Whether a figure keeps to its line."""
    line = LINES[figure.name]
    return figure.found == figure.of if isinstance(line, str) else figure.found <= line


def table(figures: list[Figure]) -> list[str]:
    """One line for each figure that was measured, and one for the others."""
    rows = ["| | measured | line | without | |", "| --- | --- | --- | --- | --- |"]
    for name, line in LINES.items():
        of_name = [each for each in figures if each.name == name]
        ours = together(each for each in of_name if not each.control)
        control = together(each for each in of_name if each.control)
        if ours:
            verdict = "kept" if keeps(ours) else "CROSSED"
            rows.append(f"| {name} | {written(ours)} | {line} | {written(control)} | {verdict} |")
    missing = [name for name in LINES if not any(each.name == name for each in figures)]
    return rows + [f"not measured: {', '.join(missing)}"] * bool(missing)


def written(figure: Figure | None) -> str:
    """A figure as it stands in the table."""
    if figure is None:
        return ""
    found = f"{figure.found:.2f}".rstrip("0").rstrip(".")
    return found if figure.of is None else f"{found} of {figure.of}"


def main() -> int:
    """Run, and print the table."""
    code, figures = run(sys.argv[1:])
    print("\n" + "\n".join(table(figures)))
    kept = all(keeps(each) for each in figures if not each.control)
    return code or int(not kept)


if __name__ == "__main__":
    sys.exit(main())
