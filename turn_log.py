"""A line of JSON for each turn when it is over, bare, so that a machine can read it."""

import json
import logging
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

from turn_record import TurnRecord

log = logging.getLogger("keyturn.turn")

_FIELDS: Final = tuple(field.name for field in fields(TurnRecord))
_TIMES: Final = ("ttfb_ms", "duration_ms")


def write_turn(record: TurnRecord) -> None:
    """Write the line, at level info."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s", as_line(record, datetime.now(UTC)))


def as_line(record: TurnRecord, now: datetime) -> str:
    """Everything that the record holds, and when: times in ms to a tenth, `time` as in RFC 3339."""
    said: dict[str, Any] = {"time": now.isoformat(timespec="milliseconds")}
    said |= {name: getattr(record, name) for name in _FIELDS}
    said |= {name: round(said[name], 1) for name in _TIMES if said[name] is not None}
    return json.dumps(said)
