"""Settings of share groups that the broker keeps."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigSource, ResourceType  # type: ignore[attr-defined]

from gearshift.errors import NotSupported
from gearshift_kafka.admin_client import Entries, describe, number

__all__ = [
    "ISOLATION",
    "LOCK_MS",
    "RESET",
    "TIMEOUT_S",
    "GroupSettings",
    "broker_number",
    "group_settings",
    "no_share_groups",
]

TIMEOUT_S = 8.0

RESET, LOCK_MS = "share.auto.offset.reset", "share.record.lock.duration.ms"
ISOLATION = "share.isolation.level"
_DELIVERIES = "share.delivery.count.limit"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Settings of one share group.

    ``is_declared``: it was told where to begin. ``is_isolated``: it was told whether to hand out
    what a transaction has not committed, or it does not.
    """

    is_declared: bool
    is_isolated: bool
    lock_s: float
    deliveries: int


def group_settings(client: AdminClient, group: str) -> GroupSettings:
    """Ask the broker. Blocks; raises KafkaException, and NotSupported if it has no share groups."""
    entries = _group_entries(client, group)
    if RESET not in entries:
        raise no_share_groups()
    isolation = entries.get(ISOLATION)
    deliveries = entries.get(_DELIVERIES)  # before 4.3 only brokers have it
    return GroupSettings(
        is_declared=ConfigSource(entries[RESET].source) is ConfigSource.GROUP_CONFIG,
        is_isolated=isolation is None
        or isolation.value == "read_committed"
        or ConfigSource(isolation.source) is ConfigSource.GROUP_CONFIG,
        lock_s=int(str(entries[LOCK_MS].value)) / 1000,
        deliveries=broker_number(client, "group." + _DELIVERIES, 5)
        if deliveries is None
        else int(str(deliveries.value)),
    )


def no_share_groups() -> NotSupported:
    """The error for a broker that has none, or has them switched off."""
    return NotSupported(
        "the broker refuses share groups, which queues on Kafka need",
        hint='use Kafka 4.2 or newer with share.version 1, or semantics = "stream"',
    )


def broker_number(client: AdminClient, name: str, default: int) -> int:
    """A broker's setting; ``default``, Kafka's own, where we may not ask. Blocks."""
    node = next(iter(client.list_topics(timeout=TIMEOUT_S).brokers))
    found = number(client, ResourceType.BROKER, str(node), name)
    return default if found is None else found


def _group_entries(client: AdminClient, group: str) -> Entries:
    try:
        return describe(client, ResourceType.GROUP, group)
    except KafkaException as error:
        # Before 4.0 there are no settings of groups at all.
        if error.args[0].code() in (KafkaError.INVALID_REQUEST, KafkaError.UNSUPPORTED_VERSION):
            return {}
        raise
