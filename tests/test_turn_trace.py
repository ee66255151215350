"""Traces: a real server sends its spans to a collector, by FastAPI's own telemetry and ours."""

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.attacks.canaries import TEXTS, VISITORS, hits
from tests.command_stage import server_py
from tests.stage import CHAT, OPERATORS_KEY, SECRET, Upstream, visiting
from turn_trace import trace_turn

SDK = importlib.util.find_spec("opentelemetry.sdk")
NEEDS_SDK = pytest.mark.skipif(SDK is None, reason="no opentelemetry-sdk: make install")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # of W3C's own example


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP collector: its URL, and what it was sent."""
    sent: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        sent.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    finally:
        await runner.cleanup()


def spans_of(sent: list[bytes]) -> list[Any]:
    """Every span, from OTLP's protobuf."""
    name = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
    wire = importlib.import_module(name).ExportTraceServiceRequest
    requests = [wire.FromString(each) for each in sent]
    resources = [each for request in requests for each in request.resource_spans]
    return [span for each in resources for scope in each.scope_spans for span in scope.spans]


def attributes(span: Any) -> dict[str, Any]:
    """What is said of a span."""
    values = ((each.key, each.value) for each in span.attributes)
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values}


@NEEDS_SDK
async def test_a_turn_can_be_traced(redis_url: str, upstream: Upstream, tmp_path: Path) -> None:
    """The span of a turn lies within that of its request, which lies within the page's own; and no
    header, text, token, key or address is in any of it."""
    said = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.url, "BYOK_BASE_URL": upstream.url}
    keys = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET}
    tokens: dict[str, str] = {}
    async with collector() as (url, sent):
        tracing = {
            **{"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url},
            **{"OTEL_METRICS_EXPORTER": "none", "OTEL_SERVICE_NAME": "keyturn"},
        }
        with server_py(tmp_path, **said, **keys, **tracing, TRUSTED_PROXIES="127.0.0.1") as running:
            extra = {"X-Forwarded-For": VISITORS["address"], "traceparent": PARENT}
            async with visiting(
                running.url, extra=extra, fingerprint=VISITORS["fingerprint"]
            ) as visitor:
                label = {"X-Request-Id": "a-label-of-mine"}
                assert (await visitor.say(TEXTS["message"], headers=label)).status == 200
                tokens["token"] = visitor.token or "none"
                assert (await visitor.say(TEXTS["message"], model=TEXTS["message"])).status == 422
                own = {"Authorization": f"Bearer {VISITORS['own key']}"}
                assert (await visitor.say(TEXTS["message"], headers=own)).status == 200
            assert await asyncio.to_thread(running.end) == 0
    spans = spans_of(sent)
    requests = [span for span in spans if span.name == "POST" and span.kind == 2]
    turns = [span for span in spans if span.name == "keyturn.turn"]
    assert len(requests) == len(turns) == 3
    assert {span.trace_id.hex() for span in requests + turns} == {PARENT.split("-")[1]}
    assert {span.parent_span_id for span in turns} == {span.span_id for span in requests}
    first = attributes(turns[0])
    assert first["keyturn.request_id"] == "a-label-of-mine"
    assert first["keyturn.code"] == "ok"
    assert first["gen_ai.usage.output_tokens"] == 3
    assert [attributes(span)["keyturn.code"] for span in turns] == ["ok", "invalid_request", "ok"]
    assert attributes(requests[0])["url.path"] == CHAT
    secret = VISITORS | TEXTS | tokens | {"operator's key": OPERATORS_KEY}
    assert hits(secret, b"".join(sent)) == []
    assert hits(secret, b"".join(sent) + VISITORS["own key"].encode()) == ["own key"]


def test_without_a_trace_there_is_no_span() -> None:
    """Nobody traces here: the record is not even looked at."""
    nothing: Any = None
    trace_turn(nothing)
