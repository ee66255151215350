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


def _score(results: list[Result], controls: list[Fallen]) -> tuple[str, str, str]:
    right = sum(not result.faults for result in results)
    fallen = sum(harm is not None for _, harm in controls)
    return f"{len(results)}", f"{right}", f"{fallen} of {len(controls)}"


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
