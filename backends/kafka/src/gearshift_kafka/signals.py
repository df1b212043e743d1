"""Callbacks of a client: when the brokers were heard, and what is wrong with them."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from gearshift_kafka.errors import REFUSED_ACCESS

__all__ = ["Heard", "Signals"]

log = logging.getLogger("gearshift.kafka")


class Heard:
    """Time at which the brokers last said anything: ``at``, on the clock of ``time.monotonic``.

    Only the client's statistics tell. One thread, that of the client's polls.

    A member of a group hears from its coordinator every few seconds, whatever there is to read. A
    producer that has nothing to send hears of its topic, which it has to ask for.
    """

    #: Add it to a client's configuration. Its health is judged by tens of seconds.
    INTERVAL_MS = 3000

    #: A producer's cheap question: how its topic is. Milliseconds.
    ASK_MS = 5000

    #: Silence is logged after that many seconds, once.
    WARN_AFTER_S = 10.0

    def __init__(self) -> None:
        self.at = time.monotonic()
        self._has_warned = False

    def conf(self) -> dict[str, Any]:
        """Settings of the client whose brokers are listened to, over what a profile says."""
        return {"statistics.interval.ms": self.INTERVAL_MS, "stats_cb": self._on_statistics}

    def producer_conf(self) -> dict[str, Any]:
        """The same for a producer, which has to ask."""
        return self.conf() | {"topic.metadata.refresh.interval.ms": self.ASK_MS}

    def watch(self, topic: str) -> None:
        """Log when the broker falls silent, and when it is heard again."""
        silent_s = time.monotonic() - self.at
        if self._has_warned == (silent_s > self.WARN_AFTER_S):
            return
        self._has_warned = not self._has_warned
        if self._has_warned:
            log.warning("topic %r: the broker has said nothing for %.0f s", topic, silent_s)
        else:
            log.info("topic %r: the broker is heard again", topic)

    def _on_statistics(self, text: str) -> None:
        """The client's callback, inside a poll."""
        brokers = json.loads(text)["brokers"].values()
        # Microseconds since something was received; -1 before anything was, on this connection.
        idle = [broker["rxidle"] for broker in brokers if broker["rxidle"] >= 0]
        if idle and (at := time.monotonic() - min(idle) / 1e6) > self.at:
            self.at = at


@dataclass(slots=True)
class Signals:
    """Collects a client's errors: the last ones, and those that end a driver."""

    recent: deque[KafkaError] = field(default_factory=lambda: deque(maxlen=20))
    failures: deque[Exception] = field(default_factory=deque)
    heard: Heard = field(default_factory=Heard)

    def on_error(self, error: KafkaError) -> None:
        """Runs inside a poll: brokers come and go, which the client heals by itself."""
        self.recent.append(error)
        if error.fatal() or error.code() in REFUSED_ACCESS:
            self.failures.append(KafkaException(error))

    def raise_failure(self) -> None:
        """Raise the first error that no waiting will mend."""
        if self.failures:
            raise self.failures.popleft()

    def first(self, codes: frozenset[int] | set[int]) -> KafkaError | None:
        """The first of the last errors that has one of these codes."""
        return next((error for error in self.recent if error.code() in codes), None)
