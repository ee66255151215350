"""`.env.example` names every setting, says why, and has the defaults that are true."""

import re
from itertools import pairwise
from pathlib import Path

from settings import Settings
from tests.settings_stage import NOWHERE, chosen
from tests.stage import ROOT

LINES = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
SET = re.compile(r"([A-Z][A-Z0-9_]*)=(.+)")
UNSET = re.compile(r"# ([A-Z][A-Z0-9_]*)=(.*)")


def found(pattern: re.Pattern[str]) -> dict[str, str]:
    """Names and values of the lines that are written like this."""
    lines = [match for line in LINES if (match := pattern.fullmatch(line))]
    return {match[1]: match[2] for match in lines}


def read(lines: list[str], folder: Path) -> Settings:
    """The settings that such a file gives, whatever the environment says."""
    file = folder / ".env"
    file.write_text("\n".join(NOWHERE + line for line in lines if SET.fullmatch(line)))
    return Settings(_env_file=file, _env_prefix=NOWHERE)


def test_it_names_exactly_the_settings_there_are() -> None:
    """None is missing, none is made up, none stands there twice."""
    names = [*found(SET), *found(UNSET)]
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)
    written = [line for line in LINES if SET.fullmatch(line) or UNSET.fullmatch(line)]
    assert len(written) == len(names)


def test_what_it_sets_are_the_defaults(tmp_path: Path) -> None:
    """Copied as it is, it changes nothing; what has no default is left to be set."""
    assert {**read(LINES, tmp_path).model_dump(), "prices_file": 0} == {
        **chosen().model_dump(),
        "prices_file": 0,
    }
    assert ROOT / found(SET)["PRICES_FILE"] == chosen().prices_file
    assert set(found(UNSET).values()) == {""}
    for name in found(UNSET):
        assert not getattr(chosen(), name.lower()), f"{name} has a default"


def test_a_default_that_is_not_true_would_be_noticed(tmp_path: Path) -> None:
    """The control: one figure changed."""
    lines = [line.replace("TOKEN_TTL=1800", "TOKEN_TTL=1801") for line in LINES]
    assert read(lines, tmp_path) != chosen()
    assert read(lines, tmp_path).token_ttl == 1801


def test_it_says_why_of_every_setting() -> None:
    """A sentence stands right above each."""
    for before, line in pairwise(LINES):
        if SET.fullmatch(line) or UNSET.fullmatch(line):
            assert before.startswith("# "), line
            assert not UNSET.fullmatch(before), line


def test_it_holds_no_secret() -> None:
    """Nobody runs on a secret that everybody can read here."""
    secrets = {"OPENAI_API_KEY", "API_SECRET_KEY", "IDENTITY_KEY", "REDIS_URL", "METRICS_TOKEN"}
    assert secrets <= set(found(UNSET))
