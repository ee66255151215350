"""Settings that mean the same on every machine, and what is said against wrong ones."""

from typing import Any

import pytest
from pydantic import ValidationError

from settings import Settings, _say

# pydantic-settings reads the environment whatever file it is given; under a prefix that nobody
# uses it finds nothing there, and the tests mean the same on every machine.
NOWHERE = "KEYTURN_TESTS_ALONE_"


def chosen(**said: Any) -> Settings:
    """Settings of which only these were chosen, whatever the environment says."""
    return Settings(_env_file=None, _env_prefix=NOWHERE, **said)


def refusal(**said: Any) -> str:
    """What is said against these, as `NAME: reason` lines."""
    with pytest.raises(ValidationError) as refused:
        chosen(**said)
    return "\n".join(line for error in refused.value.errors() for line in _say(error))
