"""GET /metrics: for a Prometheus that shows METRICS_TOKEN, and for nobody else."""

import asyncio
import hmac

from fastapi import FastAPI, Request
from pydantic import SecretStr
from starlette.responses import Response

from house import Keyturn
from metrics import CONTENT_TYPE, added, as_text, money_of
from security.day import Day
from security.errors import Rejection
from security.spending import OutOfSight, in_sight, read_day


def add_metrics(app: FastAPI) -> None:
    """Add the route to the app; it is no part of the API's description."""
    app.add_route("/metrics", metrics, methods=["GET"], include_in_schema=False)


async def metrics(request: Request) -> Response:
    """What all workers counted, how they stand, and the day's money."""
    keyturn: Keyturn = request.app.state.keyturn
    if keyturn.metrics is None or keyturn.settings.metrics_token is None:
        raise Rejection("not_found")
    require_bearer(request, keyturn.settings.metrics_token)
    counted, day = await asyncio.gather(keyturn.metrics.of_all(), today(keyturn))
    text = as_text(added([counted, money_of(day)]))
    return Response(text, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})


def require_bearer(request: Request, token: SecretStr) -> None:
    """Refuse whoever does not show the token; how long that takes says nothing of it."""
    expected = f"Bearer {token.get_secret_value()}".encode()
    shown = request.headers.get("authorization", "").encode("latin-1")
    if not hmac.compare_digest(shown, expected):
        raise Rejection("operator_only", "Show METRICS_TOKEN as Authorization: Bearer.")


async def today(keyturn: Keyturn) -> Day | None:
    """The day's money, or None where Redis does not tell it in time."""
    settings = keyturn.settings
    try:
        async with asyncio.timeout(settings.redis_deadline_ms / 1000), in_sight(keyturn.store):
            return await read_day(keyturn.store, tenant=settings.tenant, cap=settings.caps.day)
    except (OutOfSight, TimeoutError):
        return None
