"""Where turns may go, and what may be asked there, by the operator's keys and by visitors' own."""

import time
from dataclasses import replace
from typing import Final

from pydantic import SecretStr

from completions.operator_keys import OperatorKeys
from completions.prices import Price
from completions.request import Policy
from completions.upstream import Destination
from embedded import Parts
from provisions import NOTHING
from security.breaker import Breaker
from settings import Settings

_UNKNOWN: Final = Price(0, 0, 0)


def destinations(settings: Settings, parts: Parts) -> tuple[Destination, Destination]:
    """Where the operator's keys go, or the demo's word for one; and where visitors' keys go."""
    url, keys = settings.openai_base_url, settings.openai_api_key
    if parts.upstream_url:
        url, keys = parts.upstream_url, (SecretStr("demo"),)
    own_key = Destination(settings.byok_base_url, _keys(()), _breaker())
    return Destination(url, _keys(keys), _breaker()), own_key


def _keys(keys: tuple[SecretStr, ...]) -> OperatorKeys:
    return OperatorKeys(keys, clock=time.monotonic)


def policy_of(settings: Settings) -> Policy:
    """What visitors may ask for by the operator's key."""
    return policy_for(settings, destinations(settings, NOTHING)[0])


def policy_for(settings: Settings, upstream: Destination) -> Policy:
    """The same, at this upstream."""
    prices, identified = settings.prices, settings.safety_identifier
    return Policy(
        models=settings.allowed_models,
        default_model=settings.default_model,
        max_output_tokens=settings.max_output_tokens,
        max_messages=settings.max_messages,
        max_message_chars=settings.max_message_chars,
        system_prompt=settings.locked_prompt,
        prices={model: prices[model] for model in settings.allowed_models},
        allow_tools=settings.allow_tools,
        unstored=upstream.is_openai,
        identified=upstream.is_openai if identified is None else identified,
    )


def own_key_policy(policy: Policy, models: tuple[str, ...], upstream: Destination) -> Policy:
    """The same limits for visitors who pay; the models and the system prompt are theirs."""
    return replace(
        policy,
        system_prompt=None,
        models=models,
        default_model=policy.default_model if policy.default_model in models else models[0],
        prices={model: policy.prices.get(model, _UNKNOWN) for model in models},
        unstored=upstream.is_openai,
        identified=False,
    )


def _breaker() -> Breaker:
    return Breaker(failures=5, open_for=5, clock=time.monotonic)
