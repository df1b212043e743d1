"""A consumer's policy, out of its channel's settings and what the broker can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gearshift._core.consuming.dead_letters import DeadLetters
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.subscription import ConsumerPolicy
from gearshift.capabilities import Capabilities
from gearshift.codecs import codec_named, decode
from gearshift.config import ChannelSettings
from gearshift.driver import ConsumerSpec
from gearshift.errors import ConfigError
from gearshift.message import Message, Semantics

__all__ = ["MOST_PREFETCH", "checked_prefetch", "consumer_policy"]

MOST_PREFETCH = 10_000


def consumer_policy(
    backend: str,
    spec: ConsumerSpec,
    settings: ChannelSettings,
    capabilities: Capabilities,
    dead_letters: DeadLetters | None,
    value_type: Any,
) -> ConsumerPolicy:
    """The policy of a consumer for ``spec``."""
    channel = spec.channel
    codec = codec_named(settings.codec)

    def decode_message(message: Message) -> Any:
        content = message.content_type, value_type, message.content_encoding
        return decode(codec, message.body, *content)

    return ConsumerPolicy(
        backend=backend,
        channel=channel.name,
        group=spec.group,
        decode=decode_message,
        retry=RetryPolicy(
            max_attempts=settings.max_attempts,
            delay_s=settings.retry_delay_s,
            max_delay_s=settings.retry_max_delay_s,
        ),
        dead_letters=dead_letters,
        holds_retries=_holds_retries(capabilities),
        can_seek=capabilities.seek and channel.semantics is Semantics.STREAM,
        observes=spec.ephemeral,
    )


def _holds_retries(capabilities: Capabilities) -> Callable[[float], bool]:
    def holds(delay_s: float) -> bool:
        return not capabilities.native_retry or (delay_s > 0 and not capabilities.native_delay)

    return holds


def checked_prefetch(prefetch: int) -> int:
    """``prefetch``, or ConfigError."""
    is_number = isinstance(prefetch, int) and not isinstance(prefetch, bool)
    if not is_number or not 1 <= prefetch <= MOST_PREFETCH:
        raise ConfigError(
            f"prefetch {prefetch!r} is out of range", hint=f"use 1 to {MOST_PREFETCH}"
        )
    return prefetch
