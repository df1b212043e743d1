"""Limits of record timestamps: a broker deletes and refuses records by theirs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ResourceType  # type: ignore[attr-defined]

from gearshift_kafka.admin_client import describe

__all__ = ["RecordTimes", "topic_times"]

log = logging.getLogger("gearshift.kafka")

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_NEVER_MS = 2**63 - 1

#: A message that has used up more of the topic's retention than this when it is sent is stored
#: with the time of sending. So each stays for nine tenths of the retention at least.
_USED_UP = 10


class RecordTimes(NamedTuple):
    """Limits of a topic in milliseconds: the age of a record that is stored, how far ahead it is.

    Kafka's retention goes by the records' timestamps. A dead letter, a redriven copy or a backfill
    that were stored with a message's old time would be deleted minutes later.
    """

    oldest_ms: int
    newest_ms: int

    def limits(self, now_s: float) -> tuple[int, int]:
        """The earliest and the latest time that a record may have. At least 1: to the clients 0
        means now."""
        now_ms = int(now_s * 1000)
        return max(1, now_ms - self.oldest_ms), now_ms + self.newest_ms


#: The broker's defaults: a week, and an hour ahead.
_DEFAULTS = RecordTimes(7 * _DAY_MS // _USED_UP, _HOUR_MS)


def topic_times(client: AdminClient, topic: str) -> RecordTimes:
    """Ask the broker for the topic's settings; its defaults where it does not tell. Blocks."""
    try:
        return _times(describe(client, ResourceType.TOPIC, topic))
    except (KafkaException, KeyError, TypeError, ValueError) as error:
        log.info("topic %r: its retention is not known, 7 days are assumed: %s", topic, error)
        return _DEFAULTS


def _times(settings: Mapping[str, ConfigEntry]) -> RecordTimes:
    def number(name: str, default: int) -> int:  # brokers before 3.6 lack the last two
        return int(str(settings[name].value)) if name in settings else default

    retention_ms = number("retention.ms", 7 * _DAY_MS)
    deletes = "delete" in str(settings["cleanup.policy"].value) and retention_ms >= 0
    refused_ms = number("message.timestamp.before.max.ms", _NEVER_MS)
    oldest_ms = min(retention_ms // _USED_UP if deletes else _NEVER_MS, refused_ms)
    ahead_ms = number("message.timestamp.after.max.ms", _HOUR_MS)
    return RecordTimes(oldest_ms, ahead_ms)
