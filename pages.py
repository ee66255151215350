"""The routes that spend nothing: health, models, the API's documentation and the demo page."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from edge import now_ms
from house import Keyturn
from problems import body_of, headers_of
from schema import openapi
from security.errors import Rejection, StoreUnavailable
from security.ledger import Visitor, new_rid
from security.store import unsafe

PUBLIC: Final = Path(__file__).parent / "public"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; worker-src blob:; connect-src 'self'; "
    "img-src 'self' data: https:; base-uri 'none'; frame-ancestors 'none'"
)
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/client.js": ("client.js", "text/javascript; charset=utf-8"),
}


def add_pages(app: FastAPI) -> None:
    """Add the routes to the app."""
    app.add_api_route("/api/health", health, methods=["GET"], tags=["health"])
    app.add_api_route("/healthz", alive, methods=["GET"], tags=["health"])
    app.add_api_route("/readyz", ready, methods=["GET"], tags=["health"])
    app.add_api_route("/v1/models", models, methods=["GET"], tags=["chat"])
    for path in ("/openapi.json", "/docs", "/redoc"):
        app.add_route(path, documentation, methods=["GET"], include_in_schema=False)
    for path in FILES:
        app.add_route(path, public_file, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(HTTPException, as_problem)
    app.add_exception_handler(RequestValidationError, as_problem)


async def health() -> dict[str, str]:
    """Say that the server answers."""
    return {"status": "ok"}


async def alive() -> dict[str, str]:
    """Say that the process lives; touches nothing else."""
    return {"status": "ok"}


async def ready(request: Request) -> JSONResponse:
    """Say of every part whether it is fit to serve: 200, or 503 with a reason per part."""
    keyturn: Keyturn = request.app.state.keyturn
    found = await readiness(keyturn)
    return JSONResponse(found, 200 if is_ready(found) else 503, {"cache-control": "no-store"})


async def models(request: Request) -> JSONResponse:
    """The models that may be asked for, in OpenAI's shape; served from here."""
    allowed = request.app.state.keyturn.settings.allowed_models
    data = [
        {"id": model, "object": "model", "created": 0, "owned_by": "keyturn"} for model in allowed
    ]
    return JSONResponse({"object": "list", "data": data})


async def documentation(request: Request) -> Response:
    """The API's description, and two ways of reading it, where the operator shows them."""
    keyturn: Keyturn = request.app.state.keyturn
    if not keyturn.settings.docs_shown:
        raise Rejection("not_found")
    path = request.scope["path"]
    if path == "/openapi.json":
        return JSONResponse(openapi(request.app))
    page = get_swagger_ui_html if path == "/docs" else get_redoc_html
    html = page(openapi_url="/openapi.json", title="Keyturn")
    return HTMLResponse(html.body, headers={"content-security-policy": DOCS_POLICY})


async def public_file(request: Request) -> Response:
    """A file of the demo page or the browser module; the page only where it is switched on."""
    path = request.scope["path"]
    if path != "/client.js" and not request.app.state.keyturn.settings.demo_page:
        raise Rejection("not_found")
    name, media_type = FILES[path]
    headers = {"content-security-policy": PAGE_POLICY, "cache-control": "no-cache"}
    return FileResponse(PUBLIC / name, media_type=media_type, headers=headers)


async def as_problem(request: Request, error: Exception) -> Response:
    """Starlette's and FastAPI's own errors, as rows of the failure table."""
    status = error.status_code if isinstance(error, HTTPException) else 422
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")
    rejection = Rejection(code)  # type: ignore[arg-type]
    headers = {name.decode(): value.decode() for name, value in headers_of(rejection)}
    if isinstance(error, HTTPException) and error.headers and "Allow" in error.headers:
        headers["allow"] = error.headers["Allow"]
    request_id = request.scope["keyturn.request_id"]
    return Response(body_of(rejection, request_id=request_id, now_ms=now_ms()), status, headers)


async def readiness(keyturn: Keyturn) -> dict[str, str]:
    """Each part and its state in a word, or what is wrong with it and how to mend it."""
    working = await _works(keyturn)
    reasons = []
    if working:
        reasons = await unsafe(keyturn.store, must_persist=keyturn.settings.production)
    return {
        "settings": "ok",
        "redis": "ok" if working else "it does not answer in time, or takes no writes",
        "script": "ok" if working else "it cannot be run",
        "store": "; ".join(reasons) or "ok",
        "serving": "draining" if keyturn.turns.draining else "ok",
        "proxies": "; ".join(sorted(keyturn.noticed)) or "ok",
        "upstream": "demo" if keyturn.parts.upstream_url else "openai-compatible",
        "embedded": keyturn.parts.store_name or "none",
    }


async def _works(keyturn: Keyturn) -> bool:
    """Whether the admission script runs and writes, tried as a visitor that nobody is."""
    try:
        await keyturn.ledger.probe(new_rid(), Visitor("readyz"))
    except StoreUnavailable:
        return False
    except Rejection:
        pass  # asked too often, says the script
    return True


def is_ready(found: dict[str, str]) -> bool:
    """Whether nothing stands in the way of serving."""
    return all(found[part] == "ok" for part in ("settings", "redis", "script", "store", "serving"))
