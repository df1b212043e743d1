"""Consumers as rows: joining a group, staying in it, putting out the dead, sharing partitions.

Functions of a transaction. A member is put out when its process is seen to be dead, at once, or
when its lease is over. What it held goes back to its group; its id is never used again, so a
process that wakes up later settles nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from gearshift.embedded.partitions import spread
from gearshift.embedded.sqlite.liveness import is_dead
from gearshift.embedded.sqlite.rows import runs
from gearshift.embedded.sqlite.store import Store
from gearshift.embedded.sqlite.writer import Tx

__all__ = [
    "drop_finished",
    "drop_group",
    "join",
    "leave",
    "needs_care",
    "put_out_dead",
    "rebalance",
    "stay",
]


def join(tx: Tx, group: int, name: str, session: str, lease_s: float) -> int:
    """A new member of ``group``; its id."""
    row = tx.db.execute(
        "INSERT INTO member (grp, name, session, renewed_at, lease_s) VALUES (?, ?, ?, ?, ?) "
        "RETURNING id",
        (group, name, session, tx.uptime, lease_s),
    ).fetchone()
    tx.changed = True
    rebalance(tx, group)
    return int(row[0])


def needs_care(db: sqlite3.Connection, store: Store, group: int, member: int) -> bool:
    """Reading is cheap and writing is not: is the lease old, or may somebody be gone?"""
    rows = db.execute("SELECT id, renewed_at FROM member WHERE grp = ?", (group,)).fetchall()
    if len(rows) != 1 or rows[0][0] != member:
        return True
    return bool(store.uptime() - rows[0][1] > store.lease_s / 2)


def stay(tx: Tx, store: Store, group: int, member: int) -> bool:
    """Keep the lease and put out others that are gone; False if this member was put out itself.

    In this order: a member that was only slow, and that nobody has missed, is not gone.
    """
    changed = tx.db.execute("UPDATE member SET renewed_at = ? WHERE id = ?", (tx.uptime, member))
    put_out_dead(tx, store, group)
    return changed.rowcount == 1


def leave(tx: Tx, group: int, member: int, *, took_leave: bool) -> None:
    """Remove a member; what it held goes back, and is lost unless it took its leave.

    Messages are handed out in order, so the oldest one was in hand if any was.
    """
    tx.db.execute("DELETE FROM member WHERE id = ?", (member,))
    held = "grp = ?1 AND member = ?2 AND member > 0"
    if not took_leave:
        tx.db.execute(
            f"UPDATE work SET in_hand = 1 WHERE {held} AND id = (SELECT min(id) FROM work "
            f"INDEXED BY work_held WHERE {held})",
            (group, member),
        )
        tx.db.execute(f"UPDATE work SET lost = lost + 1 WHERE {held}", (group, member))
    tx.db.execute(f"UPDATE work SET member = 0 WHERE {held}", (group, member))
    tx.db.execute("UPDATE position SET owner = NULL WHERE grp = ? AND owner = ?", (group, member))
    rebalance(tx, group)
    tx.changed = True


def put_out_dead(tx: Tx, store: Store, group: int) -> None:
    """Remove members of ``group`` that are dead or silent, and ephemeral groups of the dead.

    A lease that was renewed later than now is from before the machine's restart.
    """
    rows = tx.db.execute(
        "SELECT id, session, ? - renewed_at BETWEEN 0 AND lease_s FROM member WHERE grp = ?",
        (tx.uptime, group),
    ).fetchall()
    for member, session, is_leased in rows:
        if member in store.departed:
            leave(tx, group, member, took_leave=True)
        elif not is_leased or is_dead(store.sessions_folder, session):
            leave(tx, group, member, took_leave=False)
    orphans = tx.db.execute(
        "SELECT id, session FROM consumer_group WHERE session IS NOT NULL"
    ).fetchall()
    for orphan, session in orphans:
        if is_dead(store.sessions_folder, session):
            drop_group(tx, orphan)


def drop_group(tx: Tx, group: int) -> None:
    """Remove a group, its members, its work, and messages that only it had left."""
    ids = tx.db.execute("SELECT id FROM work WHERE grp = ?", (group,)).fetchall()
    channel = tx.db.execute("SELECT channel FROM consumer_group WHERE id = ?", (group,)).fetchone()
    for table in ("work", "position", "member"):
        tx.db.execute(f"DELETE FROM {table} WHERE grp = ?", (group,))
    tx.db.execute("DELETE FROM consumer_group WHERE id = ?", (group,))
    drop_finished(tx, channel[0], [row[0] for row in ids])
    tx.changed = True


def drop_finished(tx: Tx, channel: int, ids: Iterable[int]) -> None:
    """Remove those of these messages of ``channel`` that none of its groups needs any more."""
    tx.db.executemany(
        "DELETE FROM message WHERE id BETWEEN ?1 AND ?2 AND NOT EXISTS (SELECT 1 FROM work "
        "WHERE work.id = message.id AND grp IN (SELECT id FROM consumer_group WHERE channel = ?3))",
        [(first, last, channel) for first, last in runs(sorted(ids))],
    )


def rebalance(tx: Tx, group: int) -> None:
    """Say anew who should have which partition; owners let go of them by themselves."""
    rows = tx.db.execute(
        "SELECT log, partition, wanted FROM position WHERE grp = ? ORDER BY partition", (group,)
    ).fetchall()
    if not rows:
        return
    members = [
        row[0] for row in tx.db.execute("SELECT id FROM member WHERE grp = ? ORDER BY id", (group,))
    ]
    current = {partition: wanted for _, partition, wanted in rows if wanted is not None}
    shares = spread([partition for _, partition, _ in rows], members, current)
    tx.db.executemany(
        "UPDATE position SET wanted = ? WHERE grp = ? AND log = ?",
        [(shares.get(partition), group, log) for log, partition, _ in rows],
    )
