"""Lets go wrong what can, on real servers, and prints the figures beside the lines they keep to.

    make faults                          all that has a figure, each with as many as it says
    make faults ARGS="-k failover"       some of it; options go to pytest
    make faults ARGS="--write"           all of it, and the table into docs/proof.md

Nothing is drawn by lot, so there is no seed; ports and keys are new each time. A figure is the
worst, or the sum, of what the tests noted of it (tests/faults/figures.py). Controls are the same
scenes without what is to be shown. Exit code 1 where a test fails or a line is crossed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from bench import proof
from tests.faults.figures import FULL, LINES, NAME, Figure
from tests.stage import ROOT

TESTS = "tests/faults"


def run(options: list[str]) -> tuple[int, list[Figure]]:
    """Run the tests; how that ended, and all that they noted."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        written = (f"--junitxml={report}", "-o", "junit_family=xunit1")  # which knows properties
        command = (sys.executable, "-m", "pytest", TESTS, "-q", *written, *options)
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, FULL: "yes"}, check=False)
        figures = list(noted(report.read_text())) if report.exists() else []
        return ended.returncode, figures


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
    rows = ["| | measured | line | without | |", "| --- | ---: | ---: | ---: | --- |"]
    for name, line in LINES.items():
        of_name = [each for each in figures if each.name == name]
        ours = together(each for each in of_name if not each.control)
        control = together(each for each in of_name if each.control)
        if ours:
            verdict = "kept" if keeps(ours) else "CROSSED"
            bound = line if isinstance(line, str) else f"≤ {line:g}" if line else "0"
            rows.append(f"| {name} | {written(ours)} | {bound} | {written(control)} | {verdict} |")
    missing = [name for name in LINES if not any(each.name == name for each in figures)]
    return rows + [f"not measured: {', '.join(missing)}"] * bool(missing)


def written(figure: Figure | None) -> str:
    """A figure as it stands in the table."""
    if figure is None:
        return ""
    found = f"{figure.found:.2f}".rstrip("0").rstrip(".")
    return found if figure.of is None else f"{found} of {figure.of}"


WORDS = """\
Redis, Sentinels, clusters, upstream and workers are real processes on one machine, killed, stopped
and changed while visitors chat. A count is of all that were tried, of anything else the worst of
all tries stands. "Without" is the same scene without what is to be shown: the usual client library
by its defaults, a plain `finally`, a limiter that fails open, scripts without the line in question.
Memory of 2,000 open streams and of clients that read nothing stands [under load](#under-load)."""


def section(figures: list[Figure], seconds: float) -> str:
    """The table, and what was measured on, as Markdown."""
    took = f"{seconds / 60:.0f} minutes"
    where = f"{proof.date_and_size()}. {', '.join(proof.own_versions())}. {took}, no seed."
    return "\n\n".join((where, WORDS, "\n".join(table(figures))))


def main(given: list[str]) -> int:
    """Run, print the table, and write it down where that was asked for."""
    parser = argparse.ArgumentParser(
        prog="make faults", description="What can go wrong, in figures"
    )
    parser.add_argument("--write", action="store_true", help="into docs/proof.md")
    asked, options = parser.parse_known_args(given)
    since = time.monotonic()
    code, figures = run(options)
    print("\n" + "\n".join(table(figures)))
    if asked.write:
        text = section(figures, time.monotonic() - since)
        proof.write("faults", text, heading=proof.FAULTS_HEADING)
    kept = all(keeps(each) for each in figures if not each.control)
    return code or int(not kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
