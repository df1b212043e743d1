"""Processes for the tests to kill, stop and start: ``python actors.py ROLE FILE [ARGUMENTS]``.

They write a line of JSON for everything that happens and take their orders, one a line, on stdin.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from typing import Any

import gearshift
from gearshift.embedded.sqlite.writer import Call, Tx, Writer


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def order() -> str:
    return sys.stdin.readline().strip()


def consume(config: str, channel: str) -> None:
    """Ack whatever comes until told to stop."""
    with gearshift.open(config) as bus:
        consumer = bus.consumer(channel, group="workers", prefetch=20)
        consumer.ready()
        say(ready=True)
        threading.Thread(target=lambda: (order(), consumer.stop_receiving()), daemon=True).start()
        for delivery in consumer.iterate():
            delivery.ack()
            say(got=delivery.value)
        say(unsettled=len(consumer.close()))


def produce(config: str, channel: str, first: str, count: str) -> None:
    """Send numbers one by one."""
    with gearshift.open(config) as bus, bus.producer(channel) as producer:
        for number in range(int(first), int(first) + int(count)):
            producer.send(number, key=f"k{number % 7}")
    say(sent=int(count))


def die_in_transaction(config: str, channel: str, what: str) -> None:
    """Stay for ever in a transaction that has published or claimed, not yet committed."""
    writers: list[Writer] = []
    begin = Writer._attempt

    def attempt(self: Writer, jobs: Any, **how: Any) -> Any:
        writers.append(self)
        kinds = [type(job).__name__ for job in jobs]
        if armed.is_set() and ("_Publish" in kinds or what == "claim"):
            jobs = [*jobs, Call(stay)]
        return begin(self, jobs, **how)

    def stay(tx: Tx) -> None:
        if tx.db.total_changes > unchanged[0]:
            say(inside=True)
            time.sleep(600)

    armed, unchanged = threading.Event(), [0]
    Writer._attempt = attempt  # type: ignore[method-assign]
    with gearshift.open(config) as bus:
        producer = bus.producer(channel)
        say(ready=True)
        order()
        unchanged[0] = writers[-1]._db.total_changes if writers[-1]._db else 0
        armed.set()
        if what == "publish":
            producer.send_many(range(100), key_by=lambda n: f"k{n}")
        else:
            bus.consumer(channel, group="workers").receive()


def hold_lock(database: str) -> None:
    """Hold the write lock until told to let go."""
    db = sqlite3.connect(database, isolation_level=None, timeout=30.0)
    db.execute("BEGIN IMMEDIATE")
    say(held=True)
    order()
    db.execute("ROLLBACK")
    db.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
