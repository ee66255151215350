"""A line of JSON for each turn when it is over, bare, so that a machine can read it."""

import json
import logging
from datetime import UTC, datetime
from typing import Final

from turn_record import TurnRecord

log = logging.getLogger("keyturn.turn")

_text: Final = json.encoder.encode_basestring_ascii
_WORDS: Final = {None: "null", True: "true", False: "false"}


def write_turn(record: TurnRecord) -> None:
    """Write the line, at level info; without looking for who called, which takes longer."""
    if log.isEnabledFor(logging.INFO):
        line = as_line(record, datetime.now(UTC))
        log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, line, None, None))


def as_line(record: TurnRecord, now: datetime) -> str:
    """All that the record holds and when, `time` as in RFC 3339, durations to a tenth of a ms.

    Written out here, as JSON would be written by the library at four times the cost.
    """
    return (
        f'{{"time": "{now.isoformat(timespec="milliseconds")}", '
        f'"request_id": {_text(record.request_id)}, "route": {_text(record.route)}, '
        f'"status": {record.status}, "code": {_text(record.code)}, '
        f'"model": {_text_or_null(record.model)}, "visitor": {_text_or_null(record.visitor)}, '
        f'"own_key": {_WORDS[record.own_key]}, "stream": {_WORDS[record.stream]}, '
        f'"input_tokens": {_number(record.input_tokens)}, '
        f'"output_tokens": {_number(record.output_tokens)}, '
        f'"cost_micro_usd": {_number(record.cost_micro_usd)}, '
        f'"ttfb_ms": {_tenths(record.ttfb_ms)}, "duration_ms": {_tenths(record.duration_ms)}}}'
    )


def _text_or_null(text: str | None) -> str:
    return "null" if text is None else _text(text)


def _number(number: int | None) -> str:
    return "null" if number is None else str(number)


def _tenths(milliseconds: float | None) -> str:
    return "null" if milliseconds is None else f"{milliseconds:.1f}"
