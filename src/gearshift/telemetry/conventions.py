"""Attributes of spans and metrics, by OpenTelemetry's semantic conventions for messaging.

They are still in development: https://opentelemetry.io/docs/specs/semconv/messaging/
"""

from __future__ import annotations

from typing import Any

from gearshift.delivery import BaseDelivery

__all__ = ["error_type", "of_delivery", "operation"]


def operation(backend: str, channel: str, name: str, kind: str) -> dict[str, Any]:
    """What is done to which channel; ``kind`` is send, receive, process or settle."""
    return {
        "messaging.system": backend,
        "messaging.destination.name": channel,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


def of_delivery(delivery: BaseDelivery[Any], name: str, kind: str) -> dict[str, Any]:
    """As ``operation``, and for which group."""
    attributes = operation(delivery.backend, delivery.channel, name, kind)
    attributes["messaging.consumer.group.name"] = delivery.group
    return attributes


def error_type(error: BaseException | None) -> dict[str, str]:
    """The attribute of an operation that failed; none if it did not."""
    return {} if error is None else {"error.type": type(error).__qualname__}
