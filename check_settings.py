"""What the settings say by themselves: whether anybody could chat, and what an operator may regret.

Nothing is connected to here.
"""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from completions.chat import parse_chat
from completions.prices import Price
from completions.request import Policy
from completions.responses import LEAST_OUTPUT
from findings import Finding, State
from money_report import usd
from policies import policy_of
from security.store_url import read_store_url
from settings import OPENAI_URL, Settings

_OURS: Final = "KEYTURN_"
_ALIKE: Final = 0.8
_LIKE_OURS: Final = 0.7
_A_HASH: Final = "h" * 22
_KNOWN: Final = {name.upper() for name in Settings.model_fields}


def about_names(names: Iterable[str]) -> list[Finding]:
    """Names in the environment that look like settings and are none; no value is looked at."""
    found = []
    for name in sorted({name.upper() for name in names} - _KNOWN):
        bare = name.removeprefix(_OURS)
        meant = get_close_matches(bare, _KNOWN, 1, _ALIKE)
        if bare != name:
            meant = meant or get_close_matches(name, _KNOWN, 1, _LIKE_OURS)
        if meant or bare != name:
            hint = f"did you mean {meant[0]}?" if meant else "it has no effect, remove it"
            found.append(Finding("settings", "warning", f"{name} is no setting: {hint}"))
    return found


def about_settings(settings: Settings) -> list[Finding]:
    """The settings as such: for what they are fit, and what would be missing in production."""
    missing = [reason.partition(":")[0] for reason in settings.missing_in_production()]
    if settings.production:
        found = [Finding("settings", "ok", "valid, for production")]
    else:
        also = f"; production would also need {', '.join(missing)}" if missing else ""
        found = [Finding("settings", "ok", f"valid, for development{also}")]
    if not settings.production and not _is_loopback(settings.host):
        text = f"HOST={settings.host} lets others in: set KEYTURN_ENV=production for them"
        found.append(Finding("settings", "warning", text))
    found += _about_keys(settings)
    if settings.max_output_tokens < LEAST_OUTPUT:
        text = f"OpenAI's Responses asks for {LEAST_OUTPUT} or more: raise MAX_OUTPUT_TOKENS"
        found.append(Finding("settings", "warning", text))
    if settings.metrics_token:
        text = "GET /metrics is open to whoever shows METRICS_TOKEN"
        found.append(Finding("metrics", "ok", text))
    if settings.admin_token:
        text = "/admin is open to whoever shows ADMIN_TOKEN"
        found.append(Finding("operator", "ok", text))
    if settings.production and settings.docs_shown:
        text = "/docs is open to everybody: set DOCS=off if it need not be"
        found.append(Finding("settings", "warning", text))
    return found


def _about_keys(settings: Settings) -> list[Finding]:
    """How many there are, and what becomes of visitors when the oldest goes."""
    operators, tokens = len(settings.openai_api_key), len(settings.api_secret_key)
    found = []
    if operators > 1:
        text = f"OPENAI_API_KEY: {operators}; where one is refused the next is asked"
        found.append(Finding("keys", "ok", text))
    if tokens > 1:
        found.append(Finding("keys", "ok", f"API_SECRET_KEY: {tokens} verify, the last signs"))
    if tokens > 1 and not settings.identity_key:
        text = (
            "when the oldest API_SECRET_KEY goes, all limits and visitors' budgets begin anew: "
            "set IDENTITY_KEY to that very key before"
        )
        found.append(Finding("keys", "warning", text))
    return found


def about_prices(settings: Settings) -> list[Finding]:
    """Each allowed model's prices, and whether its shortest and its fullest turn fit the caps."""
    policy = policy_of(settings)
    return [_about_model(settings, policy, model) for model in settings.allowed_models]


def about_budget(settings: Settings) -> list[Finding]:
    """The caps, one against the other."""
    day, visitor = settings.daily_budget_usd, settings.visitor_daily_budget_usd
    names = {"DAILY_BUDGET_USD": day, "VISITOR_DAILY_BUDGET_USD": visitor}
    found = [Finding("budget", "ok", f"{name}={usd(cap)}") for name, cap in names.items() if cap]
    found += [
        Finding("budget", "fault", f"{name}=0 admits nobody: raise it, or stop the server")
        for name, cap in names.items()
        if cap == 0
    ]
    found += [
        Finding("budget", "warning", f"{name}=off: there is no cap on that, write one out in USD")
        for name, cap in names.items()
        if cap is None
    ]
    if day is not None and visitor is not None and visitor > day:
        text = "one visitor can use up the whole day: lower VISITOR_DAILY_BUDGET_USD"
        found.append(Finding("budget", "warning", text))
    return found


def about_network(settings: Settings) -> list[Finding]:
    """Who may come, from where, and where keys go."""
    return [
        _about_proxies(settings),
        *_about_origins(settings),
        *_about_own_keys(settings),
        *_about_redis(settings),
        *_about_upstream(settings),
    ]


def _about_model(settings: Settings, policy: Policy, model: str) -> Finding:
    price = policy.prices[model]
    least, fullest = least_for(policy, model), _fullest(settings, price)
    prices = f"{usd(price.input)} in, {usd(price.cached_input)} cached, {usd(price.output)} out"
    state: State = "ok"
    verdict = f"a full turn up to {usd(fullest)}"
    if above := _caps_below(settings, least):
        state = "fault"
        verdict = f"even a turn of {usd(least)} is above {above}: raise it, nobody could chat"
    elif above := _caps_below(settings, fullest):
        state = "warning"
        verdict += (
            f" is above {above}: raise it or lower MAX_BODY_BYTES, long chats will be refused"
        )
    return Finding("prices", state, f"{model}: {prices}; {verdict}")


def _caps_below(settings: Settings, cost: int) -> str:
    """The names of the caps that so many µUSD do not fit."""
    caps = {
        "VISITOR_DAILY_BUDGET_USD": settings.visitor_daily_budget_usd,
        "DAILY_BUDGET_USD": settings.daily_budget_usd,
    }
    return " and ".join(name for name, cap in caps.items() if cap is not None and cost > cap)


def least_for(policy: Policy, model: str) -> int:
    """What must be left for the shortest question and an answer that is still one, in µUSD."""
    ask = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    return parse_chat(json.dumps(ask).encode(), policy, safety_identifier=_A_HASH).worst.least


def _fullest(settings: Settings, price: Price) -> int:
    """The most that the longest plain chat and the longest answer can cost, in µUSD."""
    prompt = settings.locked_prompt or ""
    return price.worst_case(
        body_bytes=settings.max_body_bytes + len(json.dumps(prompt)),
        messages=settings.max_messages + 1,
        max_output=settings.max_output_tokens,
    ).total


def _about_proxies(settings: Settings) -> Finding:
    if settings.trusted_proxies:
        return Finding("proxies", "ok", "TRUSTED_PROXIES names whose X-Forwarded-For is believed")
    if settings.client_ip_header:
        text = "CLIENT_IP_HEADER is believed of no proxy: name yours in TRUSTED_PROXIES"
        return Finding("proxies", "warning", text)
    if settings.production or not _is_loopback(settings.host):
        text = "behind a proxy all visitors share one limit: name it in TRUSTED_PROXIES"
        return Finding("proxies", "warning", text)
    return Finding("proxies", "ok", "none: whoever connects is the visitor")


def _about_origins(settings: Settings) -> list[Finding]:
    alone = "" if settings.require_origin else ", and who names none (REQUIRE_ORIGIN=off)"
    found = [Finding("origins", "ok", f"{', '.join(sorted(settings.origins))}{alone}")]
    if settings.production:
        plain = [origin for origin in sorted(settings.origins) if _is_plain(origin)]
        text = "its pages can be changed on their way: name its https:// in ALLOWED_ORIGINS"
        found += [Finding("origins", "warning", f"{origin}: {text}") for origin in plain]
    return found


def _about_own_keys(settings: Settings) -> list[Finding]:
    if not settings.byok:
        return [Finding("byok", "ok", "off")]
    if _is_plain(settings.byok_base_url):
        text = "visitors' own keys would travel in the clear: make BYOK_BASE_URL https://"
        return [Finding("byok", "warning", text)]
    return [Finding("byok", "ok", f"on: visitors' own keys go to {settings.byok_base_url}")]


def _about_upstream(settings: Settings) -> list[Finding]:
    if not settings.openai_api_key:
        return [Finding("upstream", "ok", "demo: answers are made up (set OPENAI_API_KEY)")]
    if settings.openai_base_url != OPENAI_URL and _is_plain(settings.openai_base_url):
        text = f"{settings.openai_base_url}: your key travels in the clear, make it https://"
        return [Finding("upstream", "warning", text)]
    return [Finding("upstream", "ok", settings.openai_base_url)]


def _about_redis(settings: Settings) -> list[Finding]:
    given = settings.redis_url.get_secret_value() if settings.redis_url else ""
    options = read_store_url(given).options if given else {}
    no_host = options.get("ssl_check_hostname", "true").lower() in ("false", "0", "no")
    if options.get("ssl_cert_reqs", "required") == "required" and not no_host:
        return []
    text = "whoever is on the way could pass for it: take ssl_cert_reqs, ssl_check_hostname away"
    return [Finding("redis", "warning", text)]


def _is_plain(url: str) -> bool:
    """Whether others on the way can read along."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
