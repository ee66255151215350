"""The API's description: what FastAPI knows, and the chat routes, which it does not."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from completions.chat import ChatBody
from completions.own_key_request import OwnKeyBody
from completions.responses import ResponsesBody
from problems import PROBLEMS

_REFERENCE: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {
    "type": "object",
    "required": [
        "type",
        "title",
        "status",
        "detail",
        "code",
        "request_id",
        "server_time_ms",
        "error",
    ],
    "properties": {
        "type": {"type": "string", "description": "urn:keyturn:problem:<code>"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "chain": {"enum": ["kept", "none", "revoked", "advanced", "unknown"]},
        "param": {"type": "string"},
        "request_id": {"type": "string"},
        "server_time_ms": {"type": "integer"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        },
    },
}
_PROBLEM_CONTENT: Final = {
    "application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}
}
_NOT_ON_CHAT: Final = frozenset({"not_found", "operator_only"})
_OF_CHAINS: Final = ("timestamp_", "fingerprint_", "token_", "chain_", "start_", "budget_")
_NOT_ON_OWN_KEY_CHAT: Final = frozenset(
    {
        *("not_found", "header_repeated", "duplicate_request", "idempotency_conflict", "paused"),
        "operator_only",
    }
)


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this server."""
    document = get_openapi(
        title="Keyturn",
        version="0.1.0",
        summary="A public page chats; the key stays here.",
        routes=app.routes,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    document["components"]["securitySchemes"] = {
        "OneTimeToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "The Keyturn-Token of the last answer; absent on a first turn. "
            "Or a visitor's own API key: then no header of Keyturn's is needed",
        }
    }
    for body in (ChatBody, ResponsesBody, OwnKeyBody):
        schema = body.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[body.__name__] = schema
    document["paths"]["/v1/chat/completions"] = {"post": _chat("chat_completions", "ChatBody")}
    document["paths"]["/v1/responses"] = {"post": _chat("responses", "ResponsesBody")}
    document["paths"]["/api/chat"] = {"post": _own_key_chat()}
    document["paths"]["/v1/models/{name}"] = {"get": _one_model()}
    return document


def _chat(operation: str, body: str) -> dict[str, Any]:
    return {
        "tags": ["chat"],
        "operationId": operation,
        "summary": "One turn of a chat, behind the four checks",
        "parameters": [
            _header(
                "Keyturn-Timestamp", "Unix time in milliseconds", r"^[0-9]{13}$", required=True
            ),
            _header(
                "Keyturn-Fingerprint", _FINGERPRINT, r"^[A-Za-z0-9._~-]{16,128}$", required=True
            ),
            _header("Idempotency-Key", "The same for every retry of one send", _IDEMPOTENCY_KEY),
            _header("X-Request-Id", f"A label for logs, {_LABEL}; any other is replaced"),
        ],
        "security": [{}, {"OneTimeToken": []}],
        "requestBody": _body(body),
        "responses": {
            "200": {
                "description": "The answer, whole or as a stream of events",
                "headers": _ADMITTED_HEADERS,
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            **_refusals(code for code in PROBLEMS if code not in _NOT_ON_CHAT),
        },
    }


def _own_key_chat() -> dict[str, Any]:
    return {
        "tags": ["chat"],
        "operationId": "own_key_chat",
        "summary": "One turn of a chat by the visitor's own key",
        "requestBody": _body("OwnKeyBody"),
        "responses": {
            "200": {
                "description": "The text of the answer as it comes",
                "headers": {"RateLimit": _text("What is left of the address limit")},
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **_refusals(
                code
                for code in PROBLEMS
                if code not in _NOT_ON_OWN_KEY_CHAT and not code.startswith(_OF_CHAINS)
            ),
        },
    }


def _one_model() -> dict[str, Any]:
    return {
        "tags": ["chat"],
        "operationId": "one_model",
        "summary": "One of the models that may be asked for",
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {
            "200": {
                "description": "The model",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "404": {"description": "not_found", "content": _PROBLEM_CONTENT},
        },
    }


_FINGERPRINT: Final = "What the page can say of its browser; the same for all of a chain"
_IDEMPOTENCY_KEY: Final = r"^[A-Za-z0-9._-]{16,64}$"
_LABEL: Final = "8 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_ADMITTED_HEADERS: Final = {
    "Keyturn-Token": _text("The next one-time token"),
    "RateLimit": _text("What is left of the limits"),
    "RateLimit-Policy": _text("The limits"),
    "Keyturn-Budget": _text("remaining, limit (µUSD) and reset (s) of the visitor's own day"),
    "Keyturn-Max-Output": _text("The output limit in tokens, where the budget shortened it"),
    "X-Request-Id": _text("The label of this request"),
}


def _header(
    name: str, description: str, pattern: str | None = None, *, required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string", **({"pattern": pattern} if pattern else {})},
    }


def _body(model: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=model)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _refusals(codes: Any) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    by_status.setdefault(400, []).append("upstream_rejected")
    return {
        str(status): {
            "description": ", ".join(dict.fromkeys(names)),
            "headers": _refusal_headers(status),
            "content": _PROBLEM_CONTENT,
        }
        for status, names in sorted(by_status.items())
    }


def _refusal_headers(status: int) -> dict[str, Any]:
    told = {
        "X-Request-Id": _text("The label of this request"),
        "X-Should-Retry": _text("false where an SDK should not repeat the request by itself"),
        "Keyturn-Token": _text("The next one-time token, where the one shown was consumed"),
        "RateLimit": _text("What is left of the limits, where they were asked"),
        "Keyturn-Budget": _text("What is left of the visitor's own day, where it was asked"),
    }
    if status in (429, 503):
        told["Retry-After"] = _text("Whole seconds to wait")
    if status == 401:
        told["WWW-Authenticate"] = _text("Bearer")
    return told
