"""Reading as a member of a consumer group: assignments, revocations, positions."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from gearshift.driver import LogEvents, Place, Start, StartAt
from gearshift_kafka.leaving import leave_and_close
from gearshift_kafka.signals import Signals
from gearshift_kafka.stream.commits import Commits
from gearshift_kafka.stream.identity import TopicIdentity
from gearshift_kafka.stream.idle import IdleCheck
from gearshift_kafka.stream.offsets import beginnings, committed_places, place
from gearshift_kafka.stream.reader import StreamReader

__all__ = ["StreamConsumer"]

log = logging.getLogger("gearshift.kafka")

_LEAST_CLOSE_S = 2.0

#: The client does not end a poll when a commit is answered.
_FLUSH_SLICE_S = 0.01

#: What a member is given later than this after its topic was made again, others have read. Seconds.
_ASSIGNED_ANEW_S = 60.0


class StreamConsumer(StreamReader):
    """A member of a group. Positions are committed as core gives them, and never otherwise.

    One exception: partitions in which the group has no position yet are given one before the first
    message is read. Else a group that starts at the end, and dies before its first commit, would
    skip what it had received. A position before the markers of transactions with which a log ends
    is committed as the one behind them, so that a group that has read everything has no lag. A new
    group is given one in every partition, so that one without was
    added later: from that nothing may be skipped, and it is read from its beginning. So is a topic
    that was deleted and made again: a position belongs to the topic in which it was reached. With
    KIP-848 the coordinator revokes the partitions of the old one and assigns those of the new one.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        events: LogEvents,
        signals: Signals,
        *,
        start: Start,
        partitions: Sequence[int],
        commits: Commits,
        idle: IdleCheck,
        identity: TopicIdentity,
        is_static: bool,
    ) -> None:
        super().__init__(consumer, topic, events, signals)
        self._start = start
        self._there = partitions  # asking in a callback which there are aborts the process
        self._commits = commits
        self._committed: dict[int, Place] = {}  # positions that are committed, or on their way
        self._markers: dict[int, tuple[int, int]] = {}  # per partition: from, to; no record there
        self._idle: IdleCheck | None = idle  # until this member knows what it owns
        self._identity = identity
        self._is_static = is_static
        self._another_until = 0.0  # a topic made again: positions found before are not its own
        self._has_owned = False
        consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def commit(self, positions: Mapping[int, Place]) -> None:
        self._signals.raise_failure()
        self._commits.want(self._behind_markers(positions))
        self._commits.send(self._consumer)

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._commits.pending and time.monotonic() < deadline:
            self._poll_at = 0.0  # answers to commits come with polls
            self._rest(min(deadline, time.monotonic() + _FLUSH_SLICE_S))
            self._signals.raise_failure()
        return not self._commits.pending

    def _passed(self, partition: int, offset: int, end: int) -> None:
        first, last = self._markers.get(partition, (offset, offset))
        self._markers[partition] = (first if last == offset else offset, end)
        committed = self._committed.get(partition)
        if committed == offset:
            self._commits.want(self._behind_markers({partition: committed}))

    def _behind_markers(self, positions: Mapping[int, Place]) -> dict[int, Place]:
        """Those of partitions that are owned, each as far on as no record lies between."""
        found = {}
        for partition, at in positions.items():
            if partition in self._next:
                first, last = self._markers.get(partition, (at, at))
                found[partition] = Place(last, at.note) if first <= at < last else at
        self._committed |= found
        return found

    def _after_poll(self) -> None:
        self._commits.send(self._consumer)
        if self._commits.failure is not None:
            self._signals.failures.append(self._commits.failure)
            self._commits.failure = None
        if self._idle is not None and self._idle.owns_nothing(self._consumer):
            self._tell_assigned({})

    def _tell_assigned(self, places: Mapping[int, Place]) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None
        self._events.assigned(list(places), places)

    # ── callbacks of the client, inside a poll. A KafkaException that one raises comes out of the
    #    poll as a KafkaError, which is no exception: nothing can catch it. ──

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if self._closed:
            return  # it is leaving, and they will be another's in a moment
        partitions = [assigned.partition for assigned in places]
        try:
            first = self._first_places(partitions)
            self._take_on(first)
        except KafkaException as error:
            # The client takes the assignment up by itself; nothing of it is handed on, and core
            # makes a new driver.
            self._signals.failures.append(error)
            return
        self._committed |= first
        if partitions or self._idle is not None:
            self._tell_assigned(first)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [revoked.partition for revoked in places]
        try:
            owned = [partition for partition in partitions if partition in self._next]
            if owned and not self._closed:
                positions = self._events.revoked(owned)
                if self._identity.has_changed():
                    self._another_until = time.monotonic() + _ASSIGNED_ANEW_S
                else:
                    self._commits.send_now(consumer, self._behind_markers(positions))
        finally:
            self._let_go(consumer, places)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        owned = [lost.partition for lost in places if lost.partition in self._next]
        try:
            if owned and not self._closed:
                self._events.lost(owned)
        finally:
            self._let_go(consumer, places)

    def _first_places(self, partitions: Sequence[int]) -> dict[int, Place]:
        if not partitions:
            return {}
        is_noticed = time.monotonic() < self._another_until
        is_another = is_noticed or (self._has_owned and self._identity.has_changed())
        self._another_until, self._has_owned = 0.0, True
        if is_another:
            log.warning(
                "topic %r was deleted and made again, and is read from its beginning", self._topic
            )
            return self._begin(partitions, Start())
        known = committed_places(self._consumer, self._topic, partitions)
        if len(known) < len(partitions):
            every = sorted({*self._there, *partitions})
            known = committed_places(self._consumer, self._topic, every)
            fresh = [partition for partition in every if partition not in known]
            is_new = not known or self._start.at is StartAt.OFFSET
            known |= self._begin(fresh, self._start if is_new else Start())
        return {partition: known[partition] for partition in partitions}

    def _begin(self, partitions: Sequence[int], start: Start) -> dict[int, Place]:
        """Give the group a first position in each of ``partitions``."""
        begun = beginnings(self._consumer, self._topic, partitions, start)
        found = {partition: Place(offset) for partition, offset in begun.items()}
        self._commits.send_now(self._consumer, found)
        return found

    def _let_go(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        gone = {revoked.partition for revoked in places}
        for partition in gone:
            self._next.pop(partition, None)
            self._committed.pop(partition, None)
        self._hand = deque(i for i in self._hand if i.token.partition not in gone)
        self._commits.drop(gone)
        try:
            consumer.incremental_unassign(places)
        except KafkaException as error:
            self._signals.failures.append(error)

    # ── the end ──

    def _finish(self, timeout_s: float) -> None:
        if self._idle is not None:
            self._idle.close()
        deadline = time.monotonic() + timeout_s
        self._wait_for_commits(deadline)
        if not self._commits.pending:
            self._leave()
            return
        # The client's close waits for outstanding commits, for 45 s if the coordinator is gone
        # (measured), and has no timeout.
        log.warning("topic %r: closing while the last commits are unanswered", self._topic)
        closing = threading.Thread(target=self._leave, name="gearshift-kafka-closing", daemon=True)
        closing.start()
        closing.join(max(_LEAST_CLOSE_S, deadline - time.monotonic()))

    def _leave(self) -> None:
        if self._is_static:
            self._consumer.close()
        else:
            leave_and_close(self._consumer)

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
