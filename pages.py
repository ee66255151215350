"""The routes that spend nothing: health, models, the API's documentation and the demo page."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from edge import now_ms
from house import Keyturn
from problems import body_of, headers_of
from schema import openapi
from security.errors import Rejection, StoreUnavailable
from security.ledger import new_rid
from security.scripts import Visitor
from security.store import unsafe, why_no_write, why_not

PUBLIC: Final = Path(__file__).parent / "public"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; worker-src blob:; connect-src 'self'; "
    "img-src 'self' data: https:; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
MODULE: Final = ("client.js", "client.d.ts")
PAGE: Final = (
    "index.html",
    *("page.css", "controls.css", "transcript.css", "markdown.css", "wire.css"),
    *("page.js", "theme.js", "site.js", "status.js", "composer.js", "own_key.js"),
    *("conversation.js", "kept.js"),
    *("transcript.js", "markdown.js", "blocks.js", "kinds.js", "entities.js", "copy.js"),
    *("answer.js", "wording.js", "wire.js", "checks.js", "record.js", "replay.js"),
    *("vendor/marked.js", "vendor/marked.txt"),
)
FILES: Final = {f"/{name}".removesuffix("index.html"): name for name in (*MODULE, *PAGE)}


def add_pages(app: FastAPI) -> None:
    """Add the routes to the app."""
    app.state.readiness = Readiness()
    app.add_api_route("/api/health", health, methods=["GET"], tags=["health"])
    app.add_api_route("/healthz", alive, methods=["GET"], tags=["health"])
    unfit: dict[int | str, dict[str, Any]] = {503: {"description": "Not fit; a reason per part"}}
    app.add_api_route("/readyz", ready, methods=["GET"], tags=["health"], responses=unfit)
    app.add_api_route("/v1/models", models, methods=["GET"], tags=["chat"])
    app.add_route("/v1/models/{name:path}", one_model, methods=["GET"], include_in_schema=False)
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
    found = await request.app.state.readiness.of(keyturn)
    return JSONResponse(found, 200 if is_ready(found) else 503, {"cache-control": "no-store"})


async def models(request: Request) -> JSONResponse:
    """The models that may be asked for, in OpenAI's shape, and what else a page may ask."""
    keyturn: Keyturn = request.app.state.keyturn
    data = [_model(name) for name in keyturn.policy.models]
    return JSONResponse({"object": "list", "data": data, "keyturn": _limits(keyturn)})


async def one_model(request: Request) -> JSONResponse:
    """One of them, by its name, which may hold slashes."""
    keyturn: Keyturn = request.app.state.keyturn
    name = request.path_params["name"]
    if name not in keyturn.policy.models:
        raise Rejection("not_found")
    return JSONResponse(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "keyturn"}


def _limits(keyturn: Keyturn) -> dict[str, Any]:
    """What a visitor would learn from refusals, told before there is one."""
    settings, policy = keyturn.settings, keyturn.policy
    return {
        "default_model": policy.default_model,
        "max_messages": policy.max_messages,
        "max_message_chars": policy.max_message_chars,
        "max_body_bytes": settings.max_body_bytes,
        "max_output_tokens": policy.max_output_tokens,
        "system_prompt": policy.system_prompt is not None,
        "byok": settings.byok,
        "byok_models": list(keyturn.own_key_policy.models) if settings.byok else [],
    }


async def documentation(request: Request) -> Response:
    """The API's description, and two ways of reading it, where the operator shows them."""
    keyturn: Keyturn = request.app.state.keyturn
    if not keyturn.settings.docs_shown:
        raise Rejection("not_found")
    path = request.scope["path"]
    if path == "/openapi.json":
        app: FastAPI = request.app
        app.openapi_schema = app.openapi_schema or openapi(app)
        return JSONResponse(app.openapi_schema)
    page = get_swagger_ui_html if path == "/docs" else get_redoc_html
    html = page(openapi_url="/openapi.json", title="Keyturn")
    return HTMLResponse(html.body, headers={"content-security-policy": DOCS_POLICY})


async def public_file(request: Request) -> Response:
    """A file of the demo page or the browser module; the page only where it is switched on."""
    path = request.scope["path"]
    name = FILES[path]
    is_itself = request.scope.get("raw_path") in (path.encode(), None)  # not vendor%2fmarked.js
    is_shown = name in MODULE or request.app.state.keyturn.settings.demo_page
    if not (is_itself and is_shown):
        raise Rejection("not_found")
    file = PUBLIC / name
    content = file.read_bytes()
    headers = file_headers(file, content)
    if headers["etag"] in request.headers.get("if-none-match", ""):
        del headers["content-type"]
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)


def file_headers(file: Path, content: bytes) -> dict[str, str]:
    """What a file of a page is served with: its type, and a policy under which only it runs."""
    return {
        "content-type": _TYPES[file.suffix],
        "content-security-policy": PAGE_POLICY,
        "cache-control": "no-cache",
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    }


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


class Readiness:
    """What stands in the way of serving: whoever asks while we look shares that look.

    Anybody may ask, and each look takes connections to Redis that visitors need.
    """

    def __init__(self) -> None:
        self._look: asyncio.Task[dict[str, str]] | None = None

    async def of(self, keyturn: Keyturn) -> dict[str, str]:
        """What `readiness` says of this server."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(readiness(keyturn))
        return await asyncio.shield(self._look)


async def readiness(keyturn: Keyturn) -> dict[str, str]:
    """Each part and its state in a word, or what is wrong with it and how to mend it."""
    settings = keyturn.settings
    redis = await _store_state(keyturn)
    reasons = []
    if redis == "ok":
        try:
            reasons = await unsafe(
                keyturn.store, must_persist=settings.production, fenced=keyturn.ledger.is_fenced
            )
        except (RedisError, OSError):
            reasons = ["it was lost a moment ago"]
    return {
        "settings": "ok",
        "redis": redis,
        "script": "ok" if redis == "ok" else "it cannot be run",
        "store": keyturn.ledger.distrust or "; ".join(reasons) or "ok",
        "serving": "draining" if keyturn.turns.draining else "ok",
        "proxies": "; ".join(sorted(keyturn.noticed)) or "ok",
        "upstream": "demo" if keyturn.parts.upstream_url else "openai-compatible",
        "embedded": keyturn.parts.store_name or "none",
        "docs": "on" if settings.docs_shown else "off",
        "byok": "on" if settings.byok else "off",
    }


async def _store_state(keyturn: Keyturn) -> str:
    """Whether the admission script runs and writes, tried as a visitor that nobody is.

    Of a store that is not trusted (yet) only whether it takes what is written.
    """
    if keyturn.ledger.distrust:
        return await why_no_write(keyturn.store, keyturn.ledger.prefix + "ready")
    try:
        await keyturn.ledger.probe(new_rid(), Visitor("readyz"))
    except StoreUnavailable:
        return await why_not(keyturn.store)
    except Rejection:  # asked too often, says the script, and it wrote nothing
        return await why_no_write(keyturn.store, keyturn.ledger.prefix + "ready")
    return "ok"


def is_ready(found: dict[str, str]) -> bool:
    """Whether nothing stands in the way of serving."""
    return all(found[part] == "ok" for part in ("settings", "redis", "script", "store", "serving"))
