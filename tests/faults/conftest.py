"""Fixtures of the tests in which things go wrong."""

import logging
from collections.abc import Callable

import pytest

from tests.faults.figures import Figures
from tests.faults.log import Log


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Where a test notes what it measured."""
    return Figures(record_property)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The log from here on, as it stands by default."""
    caplog.set_level(logging.INFO, "keyturn")
    caplog.set_level(logging.INFO, "uvicorn.error")
    caplog.clear()
    return Log(caplog)
