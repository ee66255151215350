"""What an operator reads while things go wrong."""

import json

import pytest


class Log:
    """Every line of the log so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def lines(self) -> list[str]:
        """The lines without their time and level; turns, and the test's own tools, left out."""
        records = self._caplog.records
        return [r.getMessage() for r in records if r.name in ("keyturn", "uvicorn.error")]

    def turns(self) -> list[str]:
        """How each turn ended."""
        records = self._caplog.records
        return [json.loads(r.getMessage())["code"] for r in records if r.name == "keyturn.turn"]

    def amiss(self) -> list[str]:
        """How each turn ended that did not end well, and every line besides."""
        return [code for code in self.turns() if code != "ok"] + self.lines()
