"""Messages that were handled before, told by a table in the database of their handler.

::

    @app.handler("orders")
    def bill(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        with connection:  # one transaction: the effect, and the note that it is done
            if first_time(connection, delivery):
                connection.execute("INSERT INTO invoices ...")

Every broker delivers a message again when it cannot know that it was handled. For any DB-API
connection to SQLite (3.24 or newer) or PostgreSQL.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from gearshift.delivery import BaseDelivery
from gearshift.errors import UsageError

__all__ = ["TABLE", "Connection", "first_time"]

#: Make this table once. What was seen longer ago than anything comes again may be deleted.
TABLE = """
CREATE TABLE IF NOT EXISTS gearshift_seen (
    receiver TEXT NOT NULL,
    message_id TEXT NOT NULL,
    seen_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (receiver, message_id)
)"""

_NOTE = """
INSERT INTO gearshift_seen (receiver, message_id) VALUES ({0}, {0}) ON CONFLICT DO NOTHING"""


class Connection(Protocol):
    """A DB-API connection, as far as it is needed."""

    def cursor(self) -> Any: ...


def first_time(
    connection: Connection, delivery: BaseDelivery[Any], *, id: str | None = None
) -> bool:
    """Note that the delivery's group handles this message; False if that was noted before.

    The note belongs to the transaction of ``connection``: commit it together with the handler's
    effect, and both are there or neither. Another transaction that has just noted the same message
    is waited for. ``id`` stands for the message's, for senders that give none, or that send the
    same order twice under two ids. Raises UsageError if there is no id, and what the database
    raises.
    """
    known = delivery.id if id is None else id
    if known is None:
        raise UsageError(
            "the message has no id, so it cannot be known again",
            hint='name it by what is in it: first_time(..., id=f"order-{order.number}")',
            backend=delivery.backend,
            channel=delivery.channel,
        )
    cursor = connection.cursor()
    try:
        note = _NOTE.format("?" if _paramstyle(connection) == "qmark" else "%s")
        cursor.execute(note, (f"{delivery.channel}/{delivery.group}", known))
        return bool(cursor.rowcount == 1)
    finally:
        cursor.close()


def _paramstyle(connection: Connection) -> str:
    """How the connection's module marks parameters: an attribute of each DB-API module."""
    name = type(connection).__module__
    while name:
        style = getattr(sys.modules.get(name), "paramstyle", None)
        if style is not None:
            return str(style)
        name = name.rpartition(".")[0]
    return "format"
