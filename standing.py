"""What answers tell of the limits: the RateLimit fields, and the visitor's own money."""

from dataclasses import dataclass

from problems import Headers
from security.errors import Quota, Standing


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """The two policies as they stand in the RateLimit-Policy field."""

    address: str
    start: str


def limit_headers(standing: Standing | None, policy: LimitPolicy) -> Headers:
    """What the script said is left: RateLimit (draft-ietf-httpapi-ratelimit-headers) and money."""
    if standing is None:
        return []
    policies, quotas = [policy.address], [_quota("address", standing.address)]
    if standing.start:
        policies.append(policy.start)
        quotas.append(_quota("start", standing.start))
    headers = [
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(quotas).encode()),
    ]
    if budget := standing.budget:
        left = f"remaining={budget.remaining}, limit={budget.limit}, reset={budget.reset_in}"
        headers.append((b"keyturn-budget", left.encode()))
    return headers


def _quota(name: str, quota: Quota) -> str:
    return f'"{name}";r={quota.remaining};t={quota.regained_in}'
