"""A member of a group of a stream: the StreamMember behind ``StreamConsumer``."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence

from gearshift.driver import ConsumerSpec, Place
from gearshift.embedded.sqlite.members import join, leave, needs_care, put_out_dead, rebalance, stay
from gearshift.embedded.sqlite.rows import UnreadRow, fetch_within
from gearshift.embedded.sqlite.schema import base_of
from gearshift.embedded.sqlite.store import Channel, Store, Watch, logs_of, require_channel
from gearshift.embedded.sqlite.writer import Tx
from gearshift.embedded.stream import Bounds, Ownership, StreamMember
from gearshift.errors import UnknownChannel
from gearshift.message import Message

__all__ = ["Member"]

_CARE_INTERVAL_S = 0.25


class Member(StreamMember):
    """See StreamMember. An ephemeral reader has no group: its positions are in its own hands."""

    def __init__(self, store: Store, spec: ConsumerSpec) -> None:
        self._store = store
        self._spec = spec
        self._session = store.session()
        self._db = store.reader()
        self._watch = Watch(store, self._db)
        channel = require_channel(self._db, spec.channel)
        self._channel = channel.id
        self._logs = logs_of(self._db, channel)
        self._retention_s = channel.retention_s
        self._group = 0
        self._member = 0
        self._own: dict[int, Place] = {}  # an ephemeral reader's partitions
        self._cared_at = 0.0
        self._closed = False

    def join(self) -> None:
        if not self._spec.ephemeral:
            self._group, self._member = self._store.write(self._join)

    def ownership(self) -> Ownership | None:
        self._watch.mark()
        everything = frozenset(self._logs)
        if self._spec.ephemeral:
            if self._is_due():
                self._same_channel(self._db)
            owned = frozenset(self._own)
            return Ownership(owned, everything, everything - owned)
        self._care()
        query = "SELECT partition, wanted, owner FROM position WHERE grp = ?"
        rows = self._db.execute(query, (self._group,)).fetchall()
        alive = self._db.execute("SELECT 1 FROM member WHERE id = ?", (self._member,)).fetchone()
        if alive is None:
            return None
        return Ownership(
            frozenset(p for p, _, owner in rows if owner == self._member),
            frozenset(p for p, wanted, _ in rows if wanted == self._member),
            frozenset(p for p, wanted, owner in rows if wanted == self._member and owner is None),
        )

    def take(self, partitions: Collection[int]) -> Mapping[int, Place]:
        if self._spec.ephemeral:
            self._own = {p: Place(self.beginning(self._spec.start, p)) for p in partitions}
            return self._own
        taken = self._store.write(lambda tx: self._take(tx, partitions))
        return {p: Place(min(at, self.bounds(p).next), at.note) for p, at in taken.items()}

    def release(self, partitions: Collection[int], positions: Mapping[int, Place]) -> None:
        self._store.write(lambda tx: self._release(tx, partitions, positions))

    def commit(self, positions: Mapping[int, Place]) -> None:
        if not self._spec.ephemeral:
            self._store.write(lambda tx: self._commit(tx, positions))

    def read(self, partition: int, offset: int, limit: int) -> Sequence[tuple[int, Message]]:
        base = base_of(self._logs[partition])
        cursor = self._db.execute(
            "SELECT id, key, body, meta FROM message WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (base + offset, base_of(self._logs[partition] + 1), limit),
        )
        return [
            (id_ - base, UnreadRow(body, source=meta, stored_key=key))
            for id_, key, body, meta in fetch_within(cursor)
        ]

    def wait(self, timeout_s: float) -> bool:
        return self._watch.wait(min(timeout_s, _CARE_INTERVAL_S))

    def wake(self) -> None:
        self._watch.wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._db.close()
        if self._member:
            self._store.depart(
                self._member, lambda tx: leave(tx, self._group, self._member, took_leave=True)
            )

    # ── in the writer's transaction ──

    def _join(self, tx: Tx) -> tuple[int, int]:
        channel = self._same_channel(tx.db)
        tx.db.execute(
            "INSERT OR IGNORE INTO consumer_group (channel, name) VALUES (?, ?)",
            (channel.id, self._spec.group),
        )
        group = tx.db.execute(
            "SELECT id FROM consumer_group WHERE channel = ? AND name = ?",
            (channel.id, self._spec.group),
        ).fetchone()[0]
        for partition, log in self._logs.items():
            tx.db.execute(
                "INSERT OR IGNORE INTO position (grp, log, partition, next) VALUES (?, ?, ?, ?)",
                (group, log, partition, self.beginning(self._spec.start, partition)),
            )
        put_out_dead(tx, self._store, group)
        return group, join(tx, group, self._spec.member, self._session, self._store.lease_s)

    def _take(self, tx: Tx, partitions: Collection[int]) -> dict[int, Place]:
        taken = {}
        for partition in partitions:
            row = tx.db.execute(
                "UPDATE position SET owner = ?1 WHERE grp = ?2 AND partition = ?3 AND wanted = ?1 "
                "AND owner IS NULL RETURNING next, note",
                (self._member, self._group, partition),
            ).fetchone()
            if row is not None:
                taken[partition] = Place(*row)
        tx.changed = True
        return taken

    def _release(self, tx: Tx, partitions: Collection[int], positions: Mapping[int, Place]) -> None:
        self._commit(tx, positions)
        tx.db.executemany(
            "UPDATE position SET owner = NULL WHERE grp = ? AND partition = ? AND owner = ?",
            [(self._group, partition, self._member) for partition in partitions],
        )
        rebalance(tx, self._group)
        tx.changed = True

    def _commit(self, tx: Tx, positions: Mapping[int, Place]) -> None:
        tx.db.executemany(
            "UPDATE position SET next = ?, note = ? WHERE grp = ? AND partition = ? AND owner = ?",
            [(at, at.note, self._group, p, self._member) for p, at in positions.items()],
        )

    def _stay(self, tx: Tx) -> None:
        """Keep the membership, and drop what is older than the retention."""
        stay(tx, self._store, self._group, self._member)
        if self._retention_s is None:
            return
        before_ms = int((tx.now - self._retention_s) * 1000)
        for log in self._logs.values():
            tx.db.execute(
                "DELETE FROM message WHERE id >= ? AND id < ? AND at_ms < ?",
                (base_of(log), base_of(log + 1), before_ms),
            )

    # ── reading ──

    def _same_channel(self, db: sqlite3.Connection) -> Channel:
        """The channel. Raises UnknownChannel also if one of its name was made since."""
        channel = require_channel(db, self._spec.channel)
        if channel.id != self._channel:
            raise UnknownChannel(f"channel {self._spec.channel.name!r} was deleted and made again")
        return channel

    def _is_due(self) -> bool:
        """True every now and then."""
        now = time.monotonic()
        if now - self._cared_at < _CARE_INTERVAL_S:
            return False
        self._cared_at = now
        return True

    def _care(self) -> None:
        if not self._is_due():
            return
        is_needed = needs_care(self._db, self._store, self._group, self._member)
        if is_needed or self._retention_s is not None:
            self._store.write(self._stay)

    def bounds(self, partition: int) -> Bounds:
        log = self._logs[partition]
        base = base_of(log)
        next_ = self._db.execute("SELECT next FROM log WHERE id = ?", (log,)).fetchone()
        first = self._db.execute(
            "SELECT MIN(id) FROM message WHERE id >= ? AND id < ?", (base, base_of(log + 1))
        ).fetchone()[0]
        end = next_[0] if next_ else 0
        return Bounds(end if first is None else first - base, end)

    def since(self, partition: int, time_ms: int) -> int:
        base, end = base_of(self._logs[partition]), self.bounds(partition).next
        found = self._db.execute(
            "SELECT id FROM message WHERE id >= ? AND id < ? AND at_ms >= ? ORDER BY id LIMIT 1",
            (base, base + end, time_ms),
        ).fetchone()
        return end if found is None else int(found[0]) - base
