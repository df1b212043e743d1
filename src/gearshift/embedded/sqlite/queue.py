"""A consumer of a queue group: rows are claimed in order, held under a lease, and settled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gearshift.driver import (
    ConsumerSpec,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
)
from gearshift.embedded.sqlite.errors import LeaseOver
from gearshift.embedded.sqlite.members import (
    drop_finished,
    drop_group,
    join,
    leave,
    needs_care,
    put_out_dead,
    stay,
)
from gearshift.embedded.sqlite.rows import UnreadRow, fetch_within, runs
from gearshift.embedded.sqlite.store import Store, Watch, find_group, require_channel
from gearshift.embedded.sqlite.writer import Tx
from gearshift.errors import Closed, StaleDelivery
from gearshift.message import Key

__all__ = ["QueueConsumer"]

#: How often a consumer renews its lease and looks for dead members. Seconds.
_CARE_INTERVAL_S = 0.25

#: What is ready, in order, and what keeps it from being claimed: one of its key waits for a retry
#: or was set aside before it; another member works on one of its key. (The table has this order
#: too: without INDEXED BY, SQLite may read it all.)
_READY = """
SELECT id, key,
    EXISTS (SELECT 1 FROM work AS other INDEXED BY work_delayed_key
        WHERE other.grp = ?1 AND other.key = work.key AND other.due > 0)
    OR EXISTS (SELECT 1 FROM work AS other INDEXED BY work_aside
        WHERE other.grp = ?1 AND other.key = work.key AND other.id < work.id AND other.aside = 1),
    EXISTS (SELECT 1 FROM work AS other INDEXED BY work_held
        WHERE other.grp = ?1 AND other.key = work.key AND other.member > 0 AND other.member <> ?2)
FROM work INDEXED BY work_ready
WHERE grp = ?1 AND member = 0 AND due = 0 AND aside = 0 ORDER BY id
"""

#: Retries whose time has come.
_DUE = "UPDATE work SET due = 0 WHERE grp = ? AND due > 0 AND due <= ? RETURNING key"

#: The first of a key that were set aside are ready again.
_BRING_BACK = """
UPDATE work SET aside = 0 WHERE grp = ?1 AND id IN (SELECT id FROM work INDEXED BY work_aside
    WHERE grp = ?1 AND key = ?2 AND aside = 1 ORDER BY id LIMIT ?3)
"""

#: How many of a key that another member works on are left ready, for that one to go on with.
_LEFT_READY = 16

#: How many a claim sets aside at most, so that others get at the file.
_MOST_ASIDE = 2_000

_ROWS = """
SELECT work.id, work.key, message.body, message.meta, attempt, handed, lost, in_hand
FROM work JOIN message USING (id) WHERE grp = ? AND work.id BETWEEN ? AND ? ORDER BY work.id
"""

#: Whether a claim may find anything.
_ANYTHING = """
SELECT EXISTS (SELECT 1 FROM work INDEXED BY work_ready
        WHERE grp = ?1 AND member = 0 AND due = 0 AND aside = 0)
    OR EXISTS (SELECT 1 FROM work WHERE grp = ?1 AND due > 0 AND due <= ?2)
"""

_KEY, _LOST = 1, 6  # the columns


class _Token(msgspec.Struct, frozen=True, gc=False):
    """A row as it was handed out: another hand-out of it is another token."""

    id: int
    handed: int


class QueueConsumer(QueueDriver):
    """See QueueDriver.

    Order per key: a message is not claimed while one of its key is with another consumer or waits
    for its retry. One consumer may hold several of one key, in order.

    However many of such a key stand in front, claims stay as cheap as they are: each message is
    met by one of them, and set aside. What ends the waiting brings the first few back, and whoever
    claims some of these brings back as many. A message does not pass one of its key that is aside,
    so the order does not hang on who brings back what, and when.
    """

    _isolates = True

    def __init__(self, store: Store, spec: ConsumerSpec) -> None:
        self._store = store
        self._spec = spec
        self._session = store.session()
        self._db = store.reader()
        self._channel, self._group, self._member = store.write(self._join)
        self._watch = Watch(store, self._db)
        self._cared_at = 0.0
        self._closed = False

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        if self._closed:
            raise Closed("this consumer is closed")
        deadline = time.monotonic() + timeout_s
        while True:
            self._watch.mark()
            self._care()
            is_idle = True
            if max_messages > 0 and self._something_is_ready():
                taken, is_idle = self._store.write(lambda tx: self._claim(tx, max_messages))
                if taken:
                    return taken
            left = deadline - time.monotonic()
            if is_idle and (left <= 0 or self._watch.wait(min(left, self._nap_s()))):
                return ()

    def isolate(self, wanted: bool) -> None:
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        return self._store.write(lambda tx: self._settle(tx, requests))

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
        leave(tx, self._group, self._member, took_leave=True)
        if self._spec.ephemeral:
            drop_group(tx, self._group)

    def _stay(self, tx: Tx) -> bool:
        if stay(tx, self._store, self._group, self._member):
            return True
        require_channel(tx.db, self._spec.channel)
        return False

    def _claim(self, tx: Tx, wanted: int) -> tuple[list[Received], bool]:
        """Up to ``wanted`` messages, and whether all that is ready has been looked at for them."""
        keys = {key for (key,) in tx.db.execute(_DUE, (self._group, tx.now)).fetchall()}
        self._bring_back(tx, dict.fromkeys(keys, _LEFT_READY))
        ready, aside = self._look(tx, wanted)
        self._update(tx, "aside = 1", aside)
        found = self._without_suspects(tx, fetch_within(self._rows(tx, ready)))
        ids = [row[0] for row in found]
        self._update(tx, f"member = {self._member}, handed = handed + 1", ids)
        self._bring_back(tx, Counter(row[_KEY] for row in found))
        return [_received(row) for row in found], len(aside) < _MOST_ASIDE

    def _rows(self, tx: Tx, ids: list[int]) -> Iterator[Any]:
        for first, last in runs(ids):
            yield from tx.db.execute(_ROWS, (self._group, first, last))

    def _update(self, tx: Tx, change: str, ids: Sequence[int]) -> None:
        tx.db.executemany(
            f"UPDATE work SET {change} WHERE grp = {self._group} AND id BETWEEN ? AND ?", runs(ids)
        )

    def _look(self, tx: Tx, wanted: int) -> tuple[list[int], list[int]]:
        """The first rows that may be claimed, and those on the way to them to set aside."""
        ready: list[int] = []
        aside: list[int] = []
        left_ready: Counter[Key] = Counter()
        for id_, key, waits, is_others in tx.db.execute(_READY, (self._group, self._member)):
            if waits or (is_others and left_ready[key] == _LEFT_READY):
                aside.append(id_)
            elif is_others:
                left_ready[key] += 1
            else:
                ready.append(id_)
            if len(ready) == wanted or len(aside) == _MOST_ASIDE:
                break
        return ready, aside

    def _bring_back(self, tx: Tx, keys: Mapping[Key | None, int]) -> None:
        """As many of each key as it says."""
        tx.db.executemany(_BRING_BACK, [(self._group, key, count) for key, count in keys.items()])

    def _without_suspects(self, tx: Tx, found: list[Any]) -> list[Any]:
        """Rows up to the first that was lost; that one alone if it is the first."""
        if not self._isolates:
            return found
        first = next((n for n, row in enumerate(found) if row[_LOST]), len(found))
        if first or not found:
            return found[:first]
        held = "SELECT 1 FROM work WHERE grp = ? AND member = ? AND member > 0 LIMIT 1"
        return [] if tx.db.execute(held, (self._group, self._member)).fetchone() else found[:1]

    def _settle(self, tx: Tx, requests: Sequence[SettleRequest]) -> list[SettleFailure]:
        held = self._held(tx, [request.token.id for request in requests])
        failures: list[SettleFailure] = []
        finished: list[int] = []
        released: list[int] = []
        failed: list[tuple[float, int | None, int, int]] = []
        for request in requests:
            token, settlement = request.token, request.settlement
            if held.pop(token.id, None) != token.handed:
                error = StaleDelivery("its lease was over before it was settled")
                failures.append(SettleFailure(token, error))
            elif settlement in (Settlement.ACK, Settlement.DISCARD):
                finished.append(token.id)
            elif settlement is Settlement.RELEASE:
                released.append(token.id)
            else:
                due = tx.now + request.delay_s if request.delay_s > 0 else 0.0
                failed.append((due, request.attempt, self._group, token.id))
        self._update(tx, "member = 0", sorted(released))
        tx.db.executemany(
            "UPDATE work SET member = 0, due = ?, attempt = coalesce(?, attempt + 1), lost = 0, "
            "in_hand = 0 WHERE grp = ? AND id = ?",
            failed,
        )
        self._finish(tx, sorted(finished))
        tx.changed = True
        return failures

    def _held(self, tx: Tx, ids: list[int]) -> dict[int, int]:
        """Those of these messages that this member holds, and which handing-out it was."""
        marks = ",".join("?" * len(ids))
        query = f"SELECT id, handed FROM work WHERE grp = ? AND member = ? AND id IN ({marks})"
        return dict(tx.db.execute(query, (self._group, self._member, *ids)).fetchall())

    def _finish(self, tx: Tx, ids: list[int]) -> None:
        tx.db.executemany(
            f"DELETE FROM work WHERE grp = {self._group} AND id BETWEEN ? AND ?", runs(ids)
        )
        drop_finished(tx, self._channel, ids)

    # ── on the consumer's thread ──

    def _care(self) -> None:
        now = time.monotonic()
        if now - self._cared_at >= _CARE_INTERVAL_S:
            self._cared_at = now
            is_needed = needs_care(self._db, self._store, self._group, self._member)
            if is_needed and not self._store.write(self._stay):
                raise LeaseOver(f"nothing was heard of this consumer for {self._store.lease_s} s")

    def _something_is_ready(self) -> bool:
        found = self._db.execute(_ANYTHING, (self._group, self._store.clock())).fetchone()
        return bool(found[0])

    def _nap_s(self) -> float:
        """Until the next delayed message is due, or it is time to care again."""
        query = "SELECT MIN(due) FROM work WHERE grp = ? AND due > 0 AND due > ?"
        now = self._store.clock()
        due = self._db.execute(query, (self._group, now)).fetchone()[0]
        return _CARE_INTERVAL_S if due is None else max(0.001, min(_CARE_INTERVAL_S, due - now))


def _received(row: Any) -> Received:
    id_, key, body, meta, failed, handed, lost, in_hand = row
    token = _Token(id_, handed + 1)
    attempt = failed + 1 + (lost if lost > 1 else in_hand)
    message = UnreadRow(body, source=meta, stored_key=key)
    return Received(message, token, None, attempt, handed > 0, lost=lost)
