"""How a request is turned away.

    Rejection                 any row of the failure table, by its code
    ├── InvalidRequest        the visitor's own mistake in the body: names field, limit and count
    ├── StoreUnavailable      Redis cannot answer, so nobody gets in
    └── UpstreamFailure       admitted, but upstream did not answer: the token was spent

A rejection carries what was learned and nothing else: no exception text, no upstream text and no
echo of the input. How it looks on the wire is decided in `problems`.
"""

from typing import Literal, NamedTuple, Self

Chain = Literal["kept", "none", "revoked", "advanced", "unknown"]

Code = Literal[
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "headers_too_large",
    "malformed_json",
    "header_repeated",
    "unsupported_parameter",
    "invalid_request",
    "origin_forbidden",
    "visitor_blocked",
    "timestamp_missing",
    "timestamp_malformed",
    "timestamp_stale",
    "fingerprint_missing",
    "fingerprint_malformed",
    "fingerprint_mismatch",
    "token_malformed",
    "token_forged",
    "token_expired",
    "chain_unknown",
    "chain_revoked",
    "rate_limited",
    "start_limited",
    "too_many_streams",
    "token_reused",
    "duplicate_request",
    "idempotency_conflict",
    "budget_visitor",
    "budget_exhausted",
    "paused",
    "overloaded",
    "store_unavailable",
    "upstream_rejected",
    "upstream_rate_limited",
    "upstream_timeout",
    "upstream_unavailable",
    "byok_disabled",
    "byok_key_malformed",
    "byok_key_rejected",
    "operator_only",
    "internal_error",
]


class Quota(NamedTuple):
    """What is left of one rate limit: requests now, and seconds until one more is regained."""

    remaining: int
    regained_in: int


class Budget(NamedTuple):
    """What is left of a visitor's money for today, in µUSD, and the seconds until midnight UTC."""

    remaining: int
    limit: int
    reset_in: int


class Standing(NamedTuple):
    """A visitor's limits as the admission script left them."""

    address: Quota
    start: Quota | None = None
    budget: Budget | None = None


class Rejection(Exception):
    """A request that is turned away; `code` names the row of the failure table."""

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        *,
        status: int | None = None,
        chain: Chain | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.status = status
        self.chain = chain
        self.param = param
        self.retry_after = retry_after
        self.standing: Standing | None = None
        self.next_token: str | None = None

    def with_limits(self, standing: Standing | None) -> Self:
        """The same rejection, telling the visitor what is left of the limits."""
        self.standing = standing
        return self

    def with_successor(self, next_token: str | None) -> Self:
        """The same rejection, handing over the token that follows the one just spent."""
        self.next_token = next_token
        return self


class InvalidRequest(Rejection):
    """The body asks for something it may not; the token is kept."""


class StoreUnavailable(Rejection):
    """Redis is down, slow, full, read-only or answers nonsense."""

    def __init__(self, *, chain: Chain = "kept", retry_after: float = 1) -> None:
        super().__init__("store_unavailable", chain=chain, retry_after=retry_after)


class UpstreamFailure(Rejection):
    """Upstream refused, failed or fell silent before the first byte of an answer."""
