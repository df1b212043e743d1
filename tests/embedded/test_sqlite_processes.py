"""SQLite between processes: killed, stopped, in each other's way. Nothing is lost or half done."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, drain, take

import gearshift
from gearshift import errors

from .conftest import Actor

StartActor = Callable[..., Actor]

CHANNELS = ["work", "log"]


@pytest.mark.parametrize("what", ["publish", "claim"])
def test_a_transaction_of_a_killed_process_never_was(
    bus: gearshift.Bus, config: Path, database: Path, actor: StartActor, what: str
) -> None:
    """SIGKILL between writing and committing: no part of it stays, and the file is sound."""
    bus.producer("work").send(-1)
    victim = actor("die_in_transaction", config, "work", what)
    assert victim.event()["ready"]
    victim.tell("go")
    assert victim.event()["inside"]
    victim.kill()
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) FROM message").fetchone() == (1,)
        assert db.execute("SELECT COUNT(*), SUM(member), SUM(handed) FROM work").fetchone() == (
            (1, 0, 0)
        )
    bus.producer("work").send(-2)
    with bus.consumer("work", group="workers") as consumer:
        assert drain(consumer, 2) == [-1, -2]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_process_that_holds_the_lock_delays_and_loses_nothing(
    bus: gearshift.Bus, config: Path, database: Path, actor: StartActor, channel: str
) -> None:
    """Sending waits, is refused in words at its deadline, and goes on by itself afterwards."""
    producer = bus.producer(channel)
    with bus.consumer(channel, group="workers") as consumer:
        consumer.ready()
        producer.send("before")
        (in_hand,) = take(consumer, 1)
        holder = actor("hold_lock", database)
        assert holder.event()["held"]
        patient = producer.submit("patient", timeout_s=PATIENCE_S)
        with pytest.raises((errors.BackpressureError, errors.ConnectionFailed)) as caught:
            producer.send("refused", timeout_s=3)
        assert caught.value.retryable
        assert "write lock" in str(caught.value)
        assert consumer.receive(timeout_s=0.1) == []
        assert not patient.done()
        holder.tell("let go")
        assert patient.result(PATIENCE_S)
        producer.send("after")
        try:
            in_hand.ack()
        except errors.StaleDelivery:  # its settling was waited for too long: it comes again
            expected = {"before", "patient", "after"}
        else:
            expected = {"patient", "after"}
        assert set(drain(consumer, len(expected))) == expected


@pytest.mark.parametrize("channel", CHANNELS)
def test_several_processes_produce_and_consume_at_once(
    bus: gearshift.Bus, config: Path, actor: StartActor, channel: str
) -> None:
    """Two senders, three consumers of one group: each message reaches exactly one of them."""
    bus.declare(channel)
    consumers = [actor("consume", config, channel) for _ in range(3)]
    for consumer in consumers:
        assert consumer.event()["ready"]
    producers = [actor("produce", config, channel, first, 200) for first in (0, 1000)]
    for producer in producers:
        assert producer.rest() == [{"sent": 200}]
    wanted = Counter([*range(200), *range(1000, 1200)])
    got: Counter[int] = Counter()
    for consumer in consumers:
        consumer.tell("stop")
        said = consumer.rest()
        assert said[-1] == {"unsettled": 0}
        got.update(event["got"] for event in said[:-1])
    with bus.consumer(channel, group="workers") as left:
        got.update(drain(left, wanted.total() - got.total()))
    assert got == wanted
