"""Storing batches: a batch is a job of the writer, committed with whatever else waits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from gearshift.driver import ChannelSpec, OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.helpers import OpenCount
from gearshift.embedded.capabilities import missing, require_same, unroutable
from gearshift.embedded.partitions import partition_of
from gearshift.embedded.sqlite.rows import encode
from gearshift.embedded.sqlite.schema import base_of
from gearshift.embedded.sqlite.store import Store
from gearshift.embedded.sqlite.writer import Tx
from gearshift.message import Message, Position, Semantics

__all__ = ["Producer"]


#: Waiting for the lock this long is no longer the ordinary turn-taking of processes.
_BLOCKED_AFTER_S = 0.5


class Producer(ProducerDriver):
    """A message without key goes to any partition, in turn."""

    def __init__(self, store: Store, spec: ChannelSpec) -> None:
        self._store = store
        self.spec = spec
        self._writer = store.writer()
        store.write(lambda tx: _find(tx.db, spec))
        self.open = OpenCount()
        self.turn = 0

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._submit(messages, on_outcomes, served=False)

    def submit_served(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._submit(messages, on_outcomes, served=True)

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        self._writer.serve()

    def _submit(
        self, messages: Sequence[Message], on_outcomes: OnOutcomes, *, served: bool
    ) -> None:
        self.open.add(len(messages))
        self._writer.submit(_Publish(self, messages, on_outcomes), served=served)

    def blocked(self) -> str | None:
        if self._writer.waiting_s() < _BLOCKED_AFTER_S:
            return None
        return "another process holds the file's write lock"

    def close(self, timeout_s: float) -> None:
        # Every job ends within busy_timeout_s, so this ends too, with every outcome reported.
        self.open.wait(max(timeout_s, 30.0))


class _Publish:
    """A batch on its way; see Job."""

    def __init__(
        self, producer: Producer, messages: Sequence[Message], on_outcomes: OnOutcomes
    ) -> None:
        self._producer = producer
        self._messages = messages
        self._on_outcomes = on_outcomes
        self._positions: list[Position | None] = []
        self.submitted_at = time.monotonic()
        self.weight = len(messages)

    def run(self, tx: Tx) -> None:
        channel, logs = _find(tx.db, self._producer.spec)
        if self._producer.spec.semantics is Semantics.STREAM:
            self._positions = [self._append(tx, logs, message) for message in self._messages]
            return
        first, at_ms = tx.reserve(logs[0], len(self._messages))
        for id_, message in enumerate(self._messages, first):
            tx.append((id_, at_ms, *encode(message)))
        tx.flush()
        stored = tx.db.execute(
            "INSERT INTO work (grp, id, key) SELECT g.id, m.id, m.key FROM consumer_group g "
            "CROSS JOIN message m WHERE g.channel = ? AND m.id >= ? AND m.id < ?",
            (channel, first, first + len(self._messages)),
        )
        if not stored.rowcount:
            raise unroutable()
        self._positions = [None] * len(self._messages)

    def _append(self, tx: Tx, logs: dict[int, int], message: Message) -> Position:
        key, body, meta = encode(message)
        if key is None:
            self._producer.turn += 1
            partition = self._producer.turn % len(logs)
        else:
            partition = partition_of(key, len(logs))
        id_, at_ms = tx.reserve(logs[partition], 1)
        tx.append((id_, at_ms, key, body, meta))
        return Position(partition, id_ - base_of(logs[partition]))

    def done(self, error: Exception | None, stored: Stored) -> None:
        if error is None:
            outcomes = [Outcome(n, stored, p) for n, p in enumerate(self._positions)]
        else:
            outcomes = [Outcome(n, stored, None, error) for n in range(len(self._messages))]
        self._on_outcomes(outcomes)
        self._producer.open.remove(len(self._messages))


def _find(db: sqlite3.Connection, spec: ChannelSpec) -> tuple[int, dict[int, int]]:
    """The channel's id and its logs by partition. Raises UnknownChannel and TopologyConflict."""
    rows = db.execute(
        "SELECT channel.id, semantics, partition, log.id "
        "FROM channel JOIN log ON log.channel = channel.id WHERE name = ?",
        (spec.name,),
    ).fetchall()
    if not rows:
        raise missing(spec)
    require_same(spec, Semantics(rows[0][1]))
    return rows[0][0], {partition: log for _, _, partition, log in rows}
