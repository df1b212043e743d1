"""An order service with two groups: ``billing`` charges each order, ``audit`` writes it down.

Run it with ``gearshift run service:app --processes 4``. Nothing in this file knows which broker
delivers the orders. What was done is kept in a journal, one line an event, so that a run can be
accounted for afterwards; a real service would have its database in that place.
"""

import os
from pathlib import Path

import msgspec

import gearshift


class Order(msgspec.Struct):
    """An order as producers send it."""

    order_id: int
    customer: str
    cents: int


class Journal:
    """Append-only lines that survive a killed process and never tear: one write each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, group: str, order: Order, delivery: gearshift.Delivery[Order]) -> None:
        """Note that ``group`` has processed this delivery of ``order``."""
        seen = {True: "again", False: "first", None: "?"}[delivery.redelivered]
        line = f"{group} {order.order_id} {order.cents} {delivery.attempt} {seen} {os.getpid()}\n"
        os.write(self._file, line.encode())


app = gearshift.App()
journal = Journal(Path(os.environ.get("ORDER_SERVICE_DATA", ".gearshift")) / "journal.txt")


@app.handler("orders", group="billing", concurrency=2)
def bill(order: Order, delivery: gearshift.Delivery[Order]) -> None:
    """Charge the customer. An order for nothing is poison: it fails every time."""
    if order.cents <= 0:
        raise ValueError(f"order {order.order_id} has nothing to charge")
    journal.write("billing", order, delivery)


@app.handler("orders", group="audit", concurrency=2)
async def audit(order: Order, delivery: gearshift.Delivery[Order]) -> None:
    """Write every order down, also those that cannot be charged."""
    journal.write("audit", order, delivery)
