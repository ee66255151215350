"""A span for each turn when it is over, for who traces; nothing where nobody does.

FastAPI makes the span of the request, and what it knows of it is HTTP. Ours lies within it and says
what became of the turn.
"""

import time
from typing import Final

from opentelemetry import trace

from turn_record import TurnRecord

_NAMES: Final = {
    "request_id": "keyturn.request_id",
    "code": "keyturn.code",
    "model": "gen_ai.request.model",
    "visitor": "keyturn.visitor",
    "own_key": "keyturn.own_key",
    "stream": "keyturn.stream",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cost_micro_usd": "keyturn.cost_micro_usd",
    "ttfb_ms": "keyturn.ttfb_ms",
}


def is_tracing() -> bool:
    """Whether anybody was to be told of spans when this was asked: at the start of a worker."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def trace_turn(record: TurnRecord) -> None:
    """Make the span, where the request has one."""
    if not trace.get_current_span().get_span_context().is_valid:
        return
    end = time.time_ns()
    known = {name: getattr(record, field) for field, name in _NAMES.items()}
    span = trace.get_tracer("keyturn").start_span(
        "keyturn.turn",
        start_time=end - int(record.duration_ms * 1_000_000),
        attributes={name: value for name, value in known.items() if value is not None},
    )
    span.end(end)
