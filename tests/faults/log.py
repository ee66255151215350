"""What an operator reads while things go wrong."""

import pytest


class Log:
    """Every line of the log so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def lines(self) -> list[str]:
        """The lines without their time and level; those of the test's own tools left out."""
        records = self._caplog.records
        return [r.getMessage() for r in records if r.name in ("keyturn", "uvicorn.error")]

    def first_words(self) -> list[str]:
        """The first word of each line."""
        return [line.split()[0] for line in self.lines()]
