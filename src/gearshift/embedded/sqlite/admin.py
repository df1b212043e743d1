"""Channels and groups in the file: declaring, looking, purging, deleting."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gearshift.driver import AdminDriver, ChannelSpec, GroupStatus
from gearshift.embedded.capabilities import DEFAULT_PARTITIONS, require_partitions
from gearshift.embedded.sqlite.members import drop_finished, drop_group
from gearshift.embedded.sqlite.schema import base_of
from gearshift.embedded.sqlite.store import (
    Channel,
    Store,
    find_channel,
    find_group,
    logs_of,
    require_channel,
)
from gearshift.embedded.sqlite.writer import Tx
from gearshift.message import Semantics

__all__ = ["Admin"]


class Admin(AdminDriver):
    """See AdminDriver."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def server(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def exists(self, channel: ChannelSpec) -> bool:
        return self._store.write(lambda tx: find_channel(tx.db, channel.name) is not None)

    def declare(self, channel: ChannelSpec) -> None:
        self._store.write(lambda tx: _declare(tx, channel))

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        return self._store.write(lambda tx: _groups(tx, channel))

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        return self._store.write(lambda tx: _purge(tx, channel, group))

    def delete(self, channel: ChannelSpec) -> None:
        self._store.write(lambda tx: _delete(tx, channel))


def _declare(tx: Tx, spec: ChannelSpec) -> None:
    channel = find_channel(tx.db, spec.name)
    if channel is None:
        channel = _create(tx, spec)
    require_channel(tx.db, spec)
    if spec.semantics is Semantics.STREAM:
        require_partitions(spec, channel.partitions)
    else:
        tx.db.executemany(
            "INSERT OR IGNORE INTO consumer_group (channel, name) VALUES (?, ?)",
            [(channel.id, group) for group in spec.groups],
        )


def _create(tx: Tx, spec: ChannelSpec) -> Channel:
    is_stream = spec.semantics is Semantics.STREAM
    partitions = (spec.partitions or DEFAULT_PARTITIONS) if is_stream else 1
    row = tx.db.execute(
        "INSERT INTO channel (name, semantics, partitions, retention_s) VALUES (?, ?, ?, ?) "
        "RETURNING id",
        (spec.name, spec.semantics.value, partitions, spec.retention_s),
    ).fetchone()
    tx.db.executemany(
        "INSERT INTO log (channel, partition) VALUES (?, ?)",
        [(row[0], p) for p in range(partitions)],
    )
    tx.changed = True
    return Channel(row[0], spec.semantics, partitions, spec.retention_s)


def _groups(tx: Tx, spec: ChannelSpec) -> list[GroupStatus]:
    channel = require_channel(tx.db, spec)
    known: dict[str, int] = dict(
        tx.db.execute(
            "SELECT name, id FROM consumer_group WHERE channel = ? ORDER BY id", (channel.id,)
        ).fetchall()
    )
    names = dict.fromkeys((*spec.groups, *known))
    describe = _queue_status if channel.semantics is Semantics.QUEUE else _stream_status
    return [
        describe(tx, channel, name, known[name])
        if name in known
        else GroupStatus(group=name, retained=_retained(tx, channel))
        for name in names
    ]


def _members(tx: Tx, group: int) -> int:
    row = tx.db.execute("SELECT COUNT(*) FROM member WHERE grp = ?", (group,)).fetchone()
    return int(row[0])


def _queue_status(tx: Tx, _channel: Channel, name: str, group: int) -> GroupStatus:
    total, held, oldest_ms = tx.db.execute(
        "SELECT COUNT(*), SUM(member > 0), "
        "(SELECT at_ms FROM message WHERE id = (SELECT MIN(id) FROM work WHERE grp = ?1)) "
        "FROM work WHERE grp = ?1",
        (group,),
    ).fetchone()
    return GroupStatus(
        group=name,
        ready=total - (held or 0),
        in_flight=held or 0,
        oldest_age_s=None if oldest_ms is None else max(0.0, tx.now - oldest_ms / 1000),
        consumers=_members(tx, group),
    )


def _stream_status(tx: Tx, _channel: Channel, name: str, group: int) -> GroupStatus:
    lag, oldest_ms = 0, None
    rows = tx.db.execute("SELECT log, next FROM position WHERE grp = ?", (group,)).fetchall()
    for log, next_ in rows:
        behind, first_ms = tx.db.execute(
            "SELECT COUNT(*), MIN(at_ms) FROM message WHERE id >= ? AND id < ?",
            (base_of(log) + next_, base_of(log + 1)),
        ).fetchone()
        lag += behind
        if first_ms is not None:
            oldest_ms = first_ms if oldest_ms is None else min(oldest_ms, first_ms)
    return GroupStatus(
        group=name,
        lag=lag,
        oldest_age_s=None if oldest_ms is None else max(0.0, tx.now - oldest_ms / 1000),
        consumers=_members(tx, group),
    )


def _retained(tx: Tx, channel: Channel) -> int | None:
    """The number of messages of a stream."""
    if channel.semantics is Semantics.QUEUE:
        return None
    logs = tx.db.execute("SELECT id FROM log WHERE channel = ?", (channel.id,)).fetchall()
    counts: list[int] = [
        tx.db.execute(
            "SELECT COUNT(*) FROM message WHERE id >= ? AND id < ?",
            (base_of(log), base_of(log + 1)),
        ).fetchone()[0]
        for (log,) in logs
    ]
    return sum(counts)


def _purge(tx: Tx, spec: ChannelSpec, name: str) -> int:
    """Queue: what waits and is with nobody. Stream: the group moves to the end."""
    channel = require_channel(tx.db, spec)
    group = find_group(tx.db, channel, name)
    tx.changed = True
    if channel.semantics is Semantics.STREAM:
        lag = _stream_status(tx, channel, name, group).lag or 0
        tx.db.execute(
            "UPDATE position SET owner = NULL, "
            "next = (SELECT next FROM log WHERE log.id = position.log) WHERE grp = ?",
            (group,),
        )
        return lag
    ids = tx.db.execute("SELECT id FROM work WHERE grp = ? AND member = 0", (group,)).fetchall()
    tx.db.execute("DELETE FROM work WHERE grp = ? AND member = 0", (group,))
    drop_finished(tx, channel.id, [row[0] for row in ids])
    return len(ids)


def _delete(tx: Tx, spec: ChannelSpec) -> None:
    channel = find_channel(tx.db, spec.name)
    if channel is None:
        return
    groups = tx.db.execute("SELECT id FROM consumer_group WHERE channel = ?", (channel.id,))
    for (group,) in groups.fetchall():
        drop_group(tx, group)
    for log in logs_of(tx.db, channel).values():
        tx.db.execute(
            "DELETE FROM message WHERE id >= ? AND id < ?", (base_of(log), base_of(log + 1))
        )
    tx.db.execute("DELETE FROM log WHERE channel = ?", (channel.id,))
    tx.db.execute("DELETE FROM channel WHERE id = ?", (channel.id,))
    tx.changed = True
