"""Fixtures of the tests in which things go wrong."""

import logging

import pytest

from tests.faults.log import Log


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The log from here on, as it stands by default."""
    caplog.set_level(logging.INFO, "keyturn")
    caplog.set_level(logging.INFO, "uvicorn.error")
    caplog.clear()
    return Log(caplog)
