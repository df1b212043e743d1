"""SQLite by hand: one row per message, durable commits of 500."""

from __future__ import annotations

import json
import sqlite3
import time
from itertools import islice
from pathlib import Path

from load import HEADERS, Measured, load

COMMIT = 500


def publish(path: Path, table: str, total: int) -> Measured:
    """executemany in write-ahead mode, synchronous=FULL."""
    link = sqlite3.connect(path, isolation_level=None)
    link.execute("PRAGMA journal_mode=WAL")
    link.execute("PRAGMA synchronous=FULL")
    columns = "id INTEGER PRIMARY KEY, at_ms INTEGER, key TEXT, body BLOB, meta BLOB"
    link.execute(f'CREATE TABLE "{table}" ({columns})')
    started = time.perf_counter()
    rows = (
        (time.time_ns() // 1_000_000, key, body, json.dumps(HEADERS)) for key, body in load(total)
    )
    while part := list(islice(rows, COMMIT)):
        link.execute("BEGIN IMMEDIATE")
        link.executemany(
            f'INSERT INTO "{table}" (at_ms, key, body, meta) VALUES (?, ?, ?, ?)', part
        )
        link.execute("COMMIT")
    seconds = time.perf_counter() - started
    (stored,) = link.execute(f'SELECT count(*) FROM "{table}"').fetchone()
    link.close()
    return Measured(stored / seconds, total - stored)
