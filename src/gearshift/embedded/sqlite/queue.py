"""A consumer of a queue group: rows are claimed in order, held under a lease, and settled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from gearshift.driver import ConsumerSpec, Incoming, SettleFailure, Settlement, Verdict
from gearshift.embedded.sqlite.faults import LeaseOver
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

#: What may be handed out next, in order. Not while another member works on a message of its key,
#: or one of its key waits for a retry.
_READY = """
SELECT work.id, work.key, message.body, message.meta, work.attempt, work.handed
FROM work JOIN message USING (id)
WHERE grp = ?1 AND member = 0 AND due <= ?3 AND (work.key IS NULL OR work.key NOT IN (
    SELECT key FROM work WHERE grp = ?1 AND member > 0 AND member <> ?2 AND key IS NOT NULL
    UNION
    SELECT key FROM work WHERE grp = ?1 AND due > 0 AND due > ?3 AND key IS NOT NULL
)) ORDER BY work.id LIMIT ?4
"""


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
        self._db = store.reader()
        self._channel, self._group, self._member = store.write(self._join)
        self._watch = Watch(store, self._db)
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
        self._store.depart(self._member, self._leave)

    # ── in the writer's transaction ──

    def _join(self, tx: Tx) -> tuple[int, int, int]:
        channel = require_channel(tx.db, self._spec.channel)
        if self._spec.ephemeral:
            tx.db.execute(
                "INSERT INTO consumer_group (channel, name, session) VALUES (?, ?, ?)",
                (channel.id, self._spec.group, self._session),
            )
        group = find_group(tx.db, channel, self._spec.group)
        put_out_dead(tx, self._store, group)
        member = join(tx, group, self._spec.member, self._session, self._store.lease_s)
        return channel.id, group, member

    def _leave(self, tx: Tx) -> None:
        leave(tx, self._group, self._member, uncounted=True)
        if self._spec.ephemeral:
            drop_group(tx, self._group)

    def _stay(self, tx: Tx) -> bool:
        put_out_dead(tx, self._store, self._group)
        if renew(tx, self._member, self._store.lease_s):
            return True
        require_channel(tx.db, self._spec.channel)
        return False

    def _claim(self, tx: Tx, wanted: int) -> list[Incoming]:
        found = fetch_within(tx.db.execute(_READY, (self._group, self._member, tx.now, wanted)))
        tx.db.executemany(
            "UPDATE work SET member = ?, attempt = attempt + 1, handed = handed + 1, due = 0 "
            "WHERE grp = ? AND id = ?",
            [(self._member, self._group, row[0]) for row in found],
        )
        return [_incoming(*row) for row in found]

    def _settle(self, tx: Tx, settlements: Sequence[Settlement]) -> list[SettleFailure]:
        held = self._held(tx, [settlement.token.id for settlement in settlements])
        failures: list[SettleFailure] = []
        finished: list[int] = []
        returned: list[tuple[float, int, int, int]] = []
        for token, verdict, delay_s, *_ in settlements:
            if held.pop(token.id, None) != token.handed:
                error = StaleDelivery("its lease was over before it was settled")
                failures.append(SettleFailure(token, error))
            elif verdict in (Verdict.ACK, Verdict.DISCARD):
                finished.append(token.id)
            else:
                due = tx.now + delay_s if delay_s > 0 else 0.0
                returned.append((due, verdict is Verdict.RELEASE, self._group, token.id))
        tx.db.executemany(
            "UPDATE work SET member = 0, due = ?, attempt = attempt - ? WHERE grp = ? AND id = ?",
            returned,
        )
        self._finish(tx, finished)
        tx.changed = True
        return failures

    def _held(self, tx: Tx, ids: list[int]) -> dict[int, int]:
        """Those of these messages that this member holds, and which handing-out it was."""
        marks = ",".join("?" * len(ids))
        query = f"SELECT id, handed FROM work WHERE grp = ? AND member = ? AND id IN ({marks})"
        return dict(tx.db.execute(query, (self._group, self._member, *ids)).fetchall())

    def _finish(self, tx: Tx, ids: list[int]) -> None:
        group = self._group
        tx.db.executemany(
            "DELETE FROM work WHERE grp = ? AND id = ?", [(group, id_) for id_ in ids]
        )
        drop_finished(tx, self._channel, ids)

    # ── on the consumer's thread ──

    def _care(self) -> None:
        now = time.monotonic()
        if now - self._cared_at >= _CARE_INTERVAL_S:
            self._cared_at = now
            if self._needs_care() and not self._store.write(self._stay):
                raise LeaseOver(f"nothing was heard of this consumer for {self._store.lease_s} s")

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
        query = "SELECT MIN(due) FROM work WHERE grp = ? AND due > 0 AND due > ?"
        now = self._store.clock()
        due = self._db.execute(query, (self._group, now)).fetchone()[0]
        return _CARE_INTERVAL_S if due is None else max(0.001, min(_CARE_INTERVAL_S, due - now))


def _incoming(
    id_: int, key: str | None, body: bytes, meta: bytes, attempt: int, handed: int
) -> Incoming:
    token = _Token(id_, handed + 1)
    return Incoming(decode(key, body, meta), token, None, attempt + 1, handed > 0)
