"""docs/operate.md tells what is: the line of the log, every family of metrics, every alert."""

import re

import yaml

from metric_families import FAMILIES
from tests.stage import ROOT
from tests.test_turn_log import RECORD, WHEN
from turn_log import as_line
from turn_record import TurnRecord

PAGE = (ROOT / "docs" / "operate.md").read_text()


def section(title: str) -> str:
    """What stands under a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The rows of the table under a heading, their heads left out."""
    lines = section(title).splitlines()
    found = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in found]


def test_it_names_every_family_as_it_is_exposed() -> None:
    """Name, type, labels and help, in the same order; the control: none would be forgotten."""
    told = [(name, kind, labels, text) for name, kind, labels, text in rows("Metrics")]
    expected = [
        (
            f"`{family.name}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        )
        for family in FAMILIES
    ]
    assert told == expected


def test_its_line_of_the_log_is_one_that_is_written() -> None:
    """To the letter; and each field of it is explained."""
    assert as_line(RECORD, WHEN) in PAGE
    explained = {name for row in rows("Logs") for name in re.findall(r"`(\w+)`", row[0])}
    fields = {*TurnRecord.__slots__}
    assert explained <= fields
    assert fields - explained == {"route", "stream"}, "these say it themselves"


def test_it_says_what_to_do_at_each_alert() -> None:
    """Each of them, with its severity, and none that is not there."""
    (group,) = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    expected = [[f"`{rule['alert']}`", rule["labels"]["severity"]] for rule in group["rules"]]
    assert [row[:2] for row in rows("Alerts")] == expected
    assert all(row[2] for row in rows("Alerts"))


def test_what_it_links_to_is_there() -> None:
    """Files of this repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)", PAGE) if "://" not in link]
    assert len(links) > 4
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
