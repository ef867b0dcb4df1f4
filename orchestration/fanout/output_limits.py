"""How long an answer may be: every call is sent with a limit, so that its worst case is known."""

from django.conf import settings

from orchestration.domain.routing import Target
from orchestration.fanout.prices import max_output_tokens_of
from orchestration.fanout.providers import endpoints, providers_of


def output_limit_of(target: Target) -> int:
    """``max_tokens`` of a call to ``target``: the least of REX_MAX_OUTPUT_TOKENS, its persona's
    limit, and what the model can write by LiteLLM's table (some refuse a call that asks for more).
    """
    provider = providers_of(endpoints()).get(target.provider)
    limit: int = settings.MAX_OUTPUT_TOKENS
    for own in (target.max_tokens, max_output_tokens_of(target, provider)):
        limit = limit if own is None else min(limit, own)
    return limit
