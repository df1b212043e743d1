"""One share consumer: what it has acquired, settling it, and giving up what its lock has left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple, Protocol

from confluent_kafka import AcknowledgeType, KafkaException, ShareConsumer
from confluent_kafka import Message as Record

from gearshift.driver import SettleFailure
from gearshift.message import Message
from gearshift_kafka.queue.delays import Past

__all__ = ["Lane", "LaneFactory", "Membership", "Source", "Token"]

#: How long the broker may take to answer a batch of acknowledgements.
_COMMIT_S = 4.0

#: A fetch is sent when the one before it was answered; the first of these may have been under way,
#: and the count of them is a moment old.
_FETCHES_IN_VAIN = 3

#: What nobody has taken goes back after this part of its lock, and whoever takes it has the rest.
_WAITS = 0.5


class Source(Enum):
    """The topic that a lane reads: the channel's, or one of the group's own."""

    CHANNEL = auto()
    RETRIES = auto()
    SUSPECTS = auto()


class Token(NamedTuple):
    """Identifies a received message: the lane that holds it, partition and offset."""

    lane: Lane
    partition: int
    offset: int


class Membership:
    """Notices that a share consumer was given partitions, and fetches in vain, which only its
    statistics say."""

    def __init__(self) -> None:
        self.is_assigned = False
        self.is_drained = False
        self._fetches: dict[str, int] = {}  # at first, per broker

    def on_statistics(self, text: str) -> None:
        """The client's callback, inside a poll."""
        if self.is_assigned and self.is_drained:
            return
        now = json.loads(text)
        self.is_assigned = now.get("cgrp", {}).get("assignment_size", 0) > 0
        counts = {name: one["req"].get("ShareFetch", 0) for name, one in now["brokers"].items()}
        fetches = {name: count for name, count in counts.items() if count}
        self._fetches = fetches | self._fetches
        self.is_drained = bool(fetches) and all(
            count - self._fetches[name] >= _FETCHES_IN_VAIN for name, count in fetches.items()
        )

    def came_some(self) -> None:
        """Records came, so that there may be more."""
        self.is_drained = False
        self._fetches.clear()


class Lane:
    """A share consumer of one topic. One thread; raises KafkaException.

    The client fetches again only when everything from its last poll is acknowledged (measured: it
    raises). So a lane is either idle, and may be polled, or holds up to ``size`` messages under
    one lock. Several lanes keep one slow handler from holding up all others.
    """

    def __init__(
        self,
        consumer: ShareConsumer,
        topic: str,
        *,
        size: int,
        lock_s: float,
        beginnings: Mapping[int, int],
        membership: Membership,
        source: Source,
    ) -> None:
        self.size = size
        self.membership = membership
        self.source = source
        self._consumer = consumer
        self._topic = topic
        self._lock_s = lock_s
        self._beginnings = beginnings
        self._held: dict[Token, tuple[Message, Past] | None] = {}
        self._untold: set[Token] = set()  # acknowledged, and the broker does not know
        self._asked: float | None = None  # when the last poll began, if it brought nothing
        self.locked_until = 0.0  #: when the lock on what was polled last is over
        self.return_at = 0.0  #: and when it goes back if nobody has taken it
        consumer.subscribe([topic])

    @property
    def is_idle(self) -> bool:
        """True if it may be polled."""
        return not self._held

    @property
    def has_asked(self) -> bool:
        """True after a poll in vain: what comes later is locked by this lane, polled or not."""
        return self._asked is not None

    @property
    def is_drained(self) -> bool:
        """True if there is nothing for it; one that holds something cannot look."""
        return self.is_idle and self.membership.is_drained

    def token(self, record: Record) -> Token:
        """The token of ``record``, which this lane has polled."""
        partition, offset = record.partition(), record.offset()
        assert partition is not None
        assert offset is not None
        return Token(self, partition, offset)

    def holds(self, token: Token) -> bool:
        """True if the message is locked by this lane, as far as it knows.

        Not once the lock is over, though it was not given up yet: a process that stood still would
        store again what others have.
        """
        return token in self._held and time.monotonic() < self.locked_until

    def remember(self, token: Token, message: Message, past: Past) -> None:
        """Note what a message that this lane holds is, in case that it goes back."""
        self._held[token] = (message, past)

    def recall(self, token: Token) -> tuple[Message, Past] | None:
        """The note about a message, once; None if there is none, or it is held no more."""
        known = self._held.get(token) if self.holds(token) else None
        if known is not None:
            self._held[token] = None
        return known

    def held(self) -> list[Token]:
        """All that this lane holds."""
        return list(self._held)

    def poll(self, timeout_s: float) -> list[Record]:
        """Records that were acquired, and errors that came instead. Only while idle."""
        started = time.monotonic()
        records = list(self._consumer.poll(timeout_s))
        # What a poll in vain has asked for may have come, and be locked, ever since.
        since = self._asked or started
        self.locked_until = since + self._lock_s
        self.return_at = since + self._lock_s * _WAITS
        self._asked = None if records else started
        if records:
            self.membership.came_some()
        return [record for record in records if record.error() or self._take(record)]

    def acknowledge(self, token: Token, how: AcknowledgeType) -> None:
        """Settle a message that this lane holds; ``commit`` tells the broker."""
        self._held.pop(token, None)
        self._consumer.acknowledge_offset(self._topic, token.partition, token.offset, how)
        self._untold.add(token)

    def commit(self) -> list[SettleFailure]:
        """Tell the broker what was acknowledged, in one request; what it did not accept."""
        if not self._untold:
            return []
        told, self._untold = self._untold, set()
        try:
            answer = self._consumer.commit_sync(_COMMIT_S)
        except KafkaException as error:
            return [SettleFailure(token, error) for token in told]
        refused = {place.partition: error for place, error in answer.items() if error}
        return [
            SettleFailure(token, refused[token.partition])
            for token in told
            if token.partition in refused
        ]

    def give_up_expired(self) -> None:
        """Let go of messages whose lock is over: somebody else may have them by now."""
        if self._held and time.monotonic() >= self.locked_until:
            for token in self.held():
                self.acknowledge(token, AcknowledgeType.RELEASE)
            self.commit()  # refused by the broker, and all the same the client is free again

    def close(self) -> None:
        """Leave the group; what is held goes back to it. Blocks while the broker does not answer,
        for about 10 s."""
        self._held.clear()
        self._consumer.close()

    def _take(self, record: Record) -> bool:
        """Note a record as held; False for one from before the group existed."""
        token = self.token(record)
        self._held[token] = None
        if token.offset >= self._beginnings.get(token.partition, 0):
            return True
        self.acknowledge(token, AcknowledgeType.ACCEPT)
        return False


class LaneFactory(Protocol):
    """Makes a lane of one source, for up to ``size`` messages or the usual number."""

    def __call__(self, source: Source, size: int | None = None) -> Lane: ...
