"""Reading as a member of a consumer group: assignments, revocations, positions."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from gearshift.driver import LogEvents, Start
from gearshift_kafka.commits import Commits
from gearshift_kafka.consumer import KafkaReader
from gearshift_kafka.idle import IdleCheck
from gearshift_kafka.offsets import committed_offsets, place, resolve

__all__ = ["GroupReader"]

log = logging.getLogger("gearshift.kafka")

_LEAST_CLOSE_S = 2.0


class GroupReader(KafkaReader):
    """A member of a group. Positions are committed as core gives them, and never otherwise.

    One exception: a partition in which the group has no position yet is given one, where the
    group starts, before its first message is read. Else a group that starts at the end, and dies
    before its first commit, would skip what it had received.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        events: LogEvents,
        failures: deque[Exception],
        *,
        start: Start,
        commits: Commits,
        idle: IdleCheck,
    ) -> None:
        super().__init__(consumer, topic, events, failures)
        self._start = start
        self._commits = commits
        self._idle: IdleCheck | None = idle  # until this member knows what it owns
        consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def commit(self, positions: Mapping[int, int]) -> None:
        self._raise_failure()
        self._commits.want({p: o for p, o in positions.items() if p in self._next})
        self._commits.send(self._consumer)

    def _after_poll(self) -> None:
        self._commits.send(self._consumer)
        if self._commits.failure is not None:
            self._failures.append(self._commits.failure)
            self._commits.failure = None
        if self._idle is not None and self._idle.owns_nothing(self._consumer):
            self._tell_assigned([])

    def _tell_assigned(self, partitions: Sequence[int]) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None
        self._events.assigned(partitions)

    # ── callbacks of the client, inside a poll ──

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [assigned.partition for assigned in places]
        try:
            offsets = self._first_offsets(partitions)
        except KafkaException as error:
            # The client takes the assignment up by itself; nothing of it is handed on, and core
            # makes a new driver.
            self._failures.append(error)
            return
        targets = place(self._topic, offsets)
        consumer.incremental_assign(targets)
        self._next.update(offsets)
        if self._paused:
            consumer.pause(targets)
        if partitions or self._idle is not None:
            self._tell_assigned(partitions)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [revoked.partition for revoked in places]
        try:
            owned = [partition for partition in partitions if partition in self._next]
            if owned and not self._closed:
                positions = self._events.revoked(owned)
                mine = {p: offset for p, offset in positions.items() if p in self._next}
                self._commits.send_now(consumer, mine)
        finally:
            self._let_go(consumer, places)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        owned = [lost.partition for lost in places if lost.partition in self._next]
        try:
            if owned and not self._closed:
                self._events.lost(owned)
        finally:
            self._let_go(consumer, places)

    def _first_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        if not partitions:
            return {}
        known = committed_offsets(self._consumer, self._topic, partitions)
        fresh = [partition for partition in partitions if partition not in known]
        found = resolve(self._consumer, self._topic, fresh, self._start)
        rest = [partition for partition in fresh if partition not in found]
        found |= resolve(self._consumer, self._topic, rest, Start())
        self._commits.send_now(self._consumer, found)
        return known | found

    def _let_go(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        gone = {revoked.partition for revoked in places}
        for partition in gone:
            self._next.pop(partition, None)
        self._hand = deque(i for i in self._hand if i.token.partition not in gone)
        self._commits.drop(gone)
        consumer.incremental_unassign(places)

    # ── the end ──

    def _finish(self, timeout_s: float) -> None:
        if self._idle is not None:
            self._idle.close()
        deadline = time.monotonic() + timeout_s
        self._wait_for_commits(deadline)
        if not self._commits.pending:
            self._consumer.close()
            return
        # The client's close waits for outstanding commits, for 45 s if the coordinator is gone
        # (measured), and has no timeout.
        log.warning("topic %r: closing while the last commits are unanswered", self._topic)
        closing = threading.Thread(
            target=self._consumer.close, name="gearshift-kafka-closing", daemon=True
        )
        closing.start()
        closing.join(max(_LEAST_CLOSE_S, deadline - time.monotonic()))

    def _wait_for_commits(self, deadline: float) -> None:
        """Poll until everything is committed; messages that come meanwhile are not taken."""
        if self._next and self._commits.pending:
            self._consumer.pause(place(self._topic, self._next))
        while self._commits.pending and self._commits.failure is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._commits.send(self._consumer)
            self._consumer.consume(1, min(0.05, left))
