"""A consumer of a queue group: rows are claimed in order, held under a lease, and settled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from gearshift.driver import ConsumerSpec, Incoming, SettleFailure, Settlement, Verdict
from gearshift.embedded.sqlite.members import (
    drop_finished,
    drop_group,
    join,
    leave,
    put_out_dead,
    renew,
)
from gearshift.embedded.sqlite.rows import decode, fetch_within
from gearshift.embedded.sqlite.store import Store, Watch, find_group, require_channel
from gearshift.embedded.sqlite.writer import Tx
from gearshift.errors import Closed, StaleDelivery

__all__ = ["SqliteQueue"]

#: How often a consumer renews its lease and looks for dead members. Seconds.
_CARE_INTERVAL_S = 0.25

#: A claim looks at so many rows for one that its key allows, times what it wants.
_LOOK_AHEAD = 200


class _Token(NamedTuple):
    """A row as it was handed out: another hand-out of it is another token."""

    id: int
    handed: int


class SqliteQueue:
    """See QueueDriver.

    Order per key: a message is not claimed while one of its key is with another consumer or waits
    for its retry. One consumer may hold several of one key, in order.
    """

    cumulative_ack = False

    def __init__(self, store: Store, spec: ConsumerSpec) -> None:
        self._store = store
        self._spec = spec
        self._session = store.session()
        self._group, self._member = store.write(self._join)
        self._db = store.reader()
        self._watch = Watch(store, self._db)
        self._held = 0
        self._cared_at = 0.0
        self._closed = False

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Incoming]:
        if self._closed:
            raise Closed("this consumer is closed")
        deadline = time.monotonic() + timeout_s
        while True:
            self._watch.mark()
            self._care()
            if max_messages > 0 and self._something_is_ready():
                taken = self._store.write(lambda tx: self._claim(tx, max_messages))
                if taken:
                    return taken
            left = deadline - time.monotonic()
            if left <= 0 or self._watch.wait(min(left, self._nap_s())):
                return ()

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleFailure]:
        return self._store.write(lambda tx: self._settle(tx, settlements))

    def wake(self) -> None:
        self._watch.wake()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._db.close()
        self._store.write(self._leave)

    # ── in the writer's transaction ──

    def _join(self, tx: Tx) -> tuple[int, int]:
        channel = require_channel(tx.db, self._spec.channel)
        if self._spec.ephemeral:
            tx.db.execute(
                "INSERT INTO consumer_group (channel, name, session) VALUES (?, ?, ?)",
                (channel.id, self._spec.group, self._session),
            )
        group = find_group(tx.db, channel, self._spec.group)
        put_out_dead(tx, self._store, group)
        return group, join(tx, group, self._spec.member, self._session, self._store.lease_s)

    def _leave(self, tx: Tx) -> None:
        leave(tx, self._group, self._member, uncounted=True)
        if self._spec.ephemeral:
            drop_group(tx, self._group)

    def _stay(self, tx: Tx) -> None:
        put_out_dead(tx, self._store, self._group)
        if not renew(tx, self._member, self._store.lease_s):
            require_channel(tx.db, self._spec.channel)
            self._member = join(
                tx, self._group, self._spec.member, self._session, self._store.lease_s
            )

    def _claim(self, tx: Tx, wanted: int) -> list[Incoming]:
        waiting_keys = self._waiting_keys(tx)
        rows = tx.db.execute(
            "SELECT id, key, attempt, handed FROM work "
            "WHERE grp = ? AND member = 0 AND due <= ? ORDER BY id LIMIT ?",
            (self._group, tx.now, wanted * _LOOK_AHEAD),
        )
        chosen = {}
        for id_, key, attempt, handed in rows:
            if key is None or key not in waiting_keys:
                chosen[id_] = (attempt + 1, handed + 1)
                if len(chosen) == wanted:
                    break
        if not chosen:
            return []
        found = self._messages(tx, list(chosen))
        claims = [(self._member, *chosen[row.id], self._group, row.id) for row in found]
        tx.db.executemany(
            "UPDATE work SET member = ?, attempt = ?, handed = ?, due = 0 WHERE grp = ? AND id = ?",
            claims,
        )
        return [_incoming(row, *chosen[row.id]) for row in found]

    def _messages(self, tx: Tx, ids: list[int]) -> list:  # type: ignore[type-arg]
        marks = ",".join("?" * len(ids))
        query = f"SELECT id, key, body, meta FROM message WHERE id IN ({marks}) ORDER BY id"
        return fetch_within(tx.db.execute(query, ids))

    def _waiting_keys(self, tx: Tx) -> set[str]:
        """Keys that another consumer works on, or of which one waits for its retry."""
        rows = tx.db.execute(
            "SELECT key FROM work WHERE grp = ?1 AND member > 0 AND member <> ?2 "
            "AND key IS NOT NULL UNION "
            "SELECT key FROM work WHERE grp = ?1 AND due > ?3 AND key IS NOT NULL",
            (self._group, self._member, tx.now),
        )
        return {key for (key,) in rows}

    def _settle(self, tx: Tx, settlements: Sequence[Settlement]) -> list[SettleFailure]:
        failures: list[SettleFailure] = []
        finished: list[int] = []
        for settlement in settlements:
            token: _Token = settlement.token
            if not self._settle_one(tx, token, settlement):
                error = StaleDelivery("its lease was over before it was settled")
                failures.append(SettleFailure(token, error))
            elif settlement.verdict in (Verdict.ACK, Verdict.DISCARD):
                finished.append(token.id)
        drop_finished(tx, finished)
        tx.changed = True
        return failures

    def _settle_one(self, tx: Tx, token: _Token, settlement: Settlement) -> bool:
        mine = (self._group, token.id, self._member, token.handed)
        where = "WHERE grp = ? AND id = ? AND member = ? AND handed = ?"
        if settlement.verdict in (Verdict.ACK, Verdict.DISCARD):
            return tx.db.execute(f"DELETE FROM work {where}", mine).rowcount == 1
        if settlement.verdict is Verdict.RELEASE:
            change = "SET member = 0, attempt = attempt - 1"
            return tx.db.execute(f"UPDATE work {change} {where}", mine).rowcount == 1
        due = tx.now + settlement.delay_s if settlement.delay_s > 0 else 0.0
        change = "SET member = 0, due = ?"
        return tx.db.execute(f"UPDATE work {change} {where}", (due, *mine)).rowcount == 1

    # ── on the consumer's thread ──

    def _care(self) -> None:
        now = time.monotonic()
        if now - self._cared_at >= _CARE_INTERVAL_S:
            self._cared_at = now
            if self._needs_care():
                self._store.write(self._stay)

    def _needs_care(self) -> bool:
        """Reading is cheap and writing is not: is a lease old, or may somebody be gone?"""
        rows = self._db.execute(
            "SELECT id, lease_until FROM member WHERE grp = ?", (self._group,)
        ).fetchall()
        half = self._store.clock() + self._store.lease_s / 2
        return len(rows) != 1 or rows[0][0] != self._member or rows[0][1] < half

    def _something_is_ready(self) -> bool:
        query = "SELECT 1 FROM work WHERE grp = ? AND member = 0 AND due <= ? LIMIT 1"
        return self._db.execute(query, (self._group, self._store.clock())).fetchone() is not None

    def _nap_s(self) -> float:
        """Until the next delayed message is due, or it is time to care again."""
        query = "SELECT MIN(due) FROM work WHERE grp = ? AND due > ?"
        now = self._store.clock()
        due = self._db.execute(query, (self._group, now)).fetchone()[0]
        return _CARE_INTERVAL_S if due is None else max(0.001, min(_CARE_INTERVAL_S, due - now))


def _incoming(row, attempt: int, handed: int) -> Incoming:  # type: ignore[no-untyped-def]
    message = decode(row.key, row.body, row.meta)
    return Incoming(message, _Token(row.id, handed), None, attempt, handed > 1)
