"""The scoreboard: a line for each heading, and below it one for each case that went wrong."""

from dataclasses import dataclass, field
from typing import Final

from attacks.case import Case, Result, in_words

_HEADS: Final = ("heading", "cases", "as expected", "controls that fall", "seconds")
_WIDTHS: Final = (34, 6, 12, 19, 8)

Fallen = tuple[Case, str | None]  # a control, and the harm that was done to the naive proxy


@dataclass
class Board:
    """What was found so far."""

    results: list[Result] = field(default_factory=list)
    controls: list[Fallen] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether all is as expected."""
        right = not any(result.faults for result in self.results)
        return right and all(harm for _, harm in self.controls)

    def head(self) -> str:
        """The names of the columns."""
        return _line(_HEADS)

    def row(
        self, heading: str, results: list[Result], controls: list[Fallen], seconds: float
    ) -> str:
        """A heading, and what is wrong in it."""
        self.results += results
        self.controls += controls
        wrong = [f"! {each.case.name}: {'; '.join(each.faults)}" for each in results if each.faults]
        wrong += [
            f"! {case.name}: the naive proxy withstood it" for case, harm in controls if not harm
        ]
        line = _line((heading, *_score(results, controls), f"{seconds:.1f}"))
        return "\n    ".join([line, *wrong])

    def total(self, seconds: float) -> str:
        """The last line."""
        line = _line(("all", *_score(self.results, self.controls), f"{seconds:.1f}"))
        return f"{line}\n{'All as expected.' if self.well else 'NOT AS EXPECTED, see above.'}"

    def listing(self, cases: list[Case]) -> str:
        """The cases as a Markdown table."""
        rows = [_row(case.heading, case.name, case.sends, in_words(case)) for case in cases]
        head = "| Heading | Case | What is sent | What must come back |"
        return "\n".join([head, "| --- | --- | --- | --- |", *rows])


@dataclass
class SideBySide:
    """The same cases at Keyturn and at others; below each heading what was done to whom."""

    names: list[str]
    ours: list[Result] = field(default_factory=list)
    theirs: list[list[Fallen]] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether all is as expected at Keyturn."""
        return not any(result.faults for result in self.ours)

    def head(self) -> str:
        """The names of the columns."""
        return _columns(["heading", "cases", "Keyturn", *self.names])

    def row(self, heading: str, ours: list[Result], theirs: list[list[Fallen]]) -> str:
        """A heading: how many cases were as expected, and the harm in those that were not."""
        self.ours += ours
        self.theirs = [
            a + b for a, b in zip(self.theirs or [[] for _ in theirs], theirs, strict=True)
        ]
        wrong = [f"! Keyturn, {each.case.name}: {each.faults[0]}" for each in ours if each.faults]
        for name, fallen in zip(self.names, theirs, strict=True):
            wrong += [f"- {name}, {case.name}: {harm}" for case, harm in fallen if harm]
        return "\n    ".join([self._line(heading, ours, theirs), *wrong])

    def total(self) -> str:
        """The last line."""
        return self._line("all", self.ours, self.theirs)

    def _line(self, heading: str, ours: list[Result], theirs: list[list[Fallen]]) -> str:
        right = sum(not result.faults for result in ours)
        others = [_withstood(fallen) for fallen in theirs]
        return _columns([heading, f"{len(ours)}", f"{right}", *others])


def _withstood(fallen: list[Fallen]) -> str:
    right = sum(harm is None for _, harm in fallen)
    return f"{right} of {len(fallen)}" if fallen else "not claimed"


def _columns(cells: list[str]) -> str:
    first, *rest = cells
    return "  ".join([first.ljust(_WIDTHS[0]), *(cell.rjust(16) for cell in rest)])


def _score(results: list[Result], controls: list[Fallen]) -> tuple[str, str, str]:
    right = sum(not result.faults for result in results)
    fallen = sum(harm is not None for _, harm in controls)
    return f"{len(results)}", f"{right}", f"{fallen} of {len(controls)}"


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
