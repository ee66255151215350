"""Fixtures of the tests in which things go wrong."""

import logging
import os
from collections.abc import Callable

import pytest

from tests.faults.figures import FULL, Figures
from tests.faults.log import Log


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where figures are told, only the tests that measure them; the others are among the tests."""
    if FULL in os.environ:
        silent = [each for each in items if "figures" not in getattr(each, "fixturenames", ())]
        config.hook.pytest_deselected(items=silent)
        items[:] = [each for each in items if each not in silent]


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
