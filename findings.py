"""What `check` finds, and how it is printed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; the text of all but `ok` says how to mend it."""

    group: str
    state: State
    text: str


def has_fault(findings: Sequence[Finding]) -> bool:
    """Whether anything must be mended before visitors can be served well."""
    return any(finding.state == "fault" for finding in findings)


def as_lines(findings: Sequence[Finding]) -> str:
    """One line per finding, in groups, and one that sums up."""
    lines = []
    for group, found in groupby(findings, lambda finding: finding.group):
        names = (group, *[""] * len(findings))
        lines += [
            f"{name:<10} {each.state:<8} {each.text}"
            for name, each in zip(names, found, strict=False)
        ]
    return "\n".join([*lines, "", _sum(findings)])


def _sum(findings: Sequence[Finding]) -> str:
    states = [finding.state for finding in findings]
    faults, warnings = states.count("fault"), states.count("warning")
    if not faults and not warnings:
        return "All is well."
    said = [_count(faults, "fault")] if faults else []
    said += [_count(warnings, "warning")] if warnings else []
    return " and ".join(said) + "."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"
