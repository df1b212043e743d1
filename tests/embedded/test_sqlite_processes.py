"""SQLite between processes: killed, stopped, in each other's way. Nothing is lost or half done."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, ack_all, drain, take, until

import gearshift
from gearshift import errors

from .conftest import Actor

StartActor = Callable[..., Actor]

CHANNELS = ["work", "log"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_work_of_a_killed_process_returns(
    bus: gearshift.Bus, config: Path, actor: StartActor, channel: str
) -> None:
    """SIGKILL in the handler: the message comes to another, on a queue as its second attempt."""
    bus.producer(channel).send_many(range(3), key_by=lambda _: "k")
    worker = actor("handle", config, channel)
    assert worker.event()["got"] == 0
    worker.tell("ack")
    assert worker.event()["acked"] == 0
    assert worker.event()["got"] == 1
    worker.kill()
    with bus.consumer(channel, group="workers") as consumer:
        (delivery,) = take(consumer, 1)
        assert delivery.value == 1
        if channel == "work":
            assert (delivery.attempt, delivery.redelivered) == (2, True)
        delivery.ack()
        assert drain(consumer, 1) == [2]


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


def test_a_process_that_slept_past_its_lease_settles_nothing_of_others(
    bus: gearshift.Bus, config: Path, actor: StartActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP past the lease, then SIGCONT: its ack is stale, the other one's counts."""
    monkeypatch.setenv("GEARSHIFT_PROFILES__P__LEASE_S", "2.0")
    bus.producer("work").send("once")
    sleeper = actor("handle", config, "work")
    assert sleeper.event()["got"] == "once"

    def is_asleep() -> bool:
        sleeper.signal(signal.SIGSTOP)
        try:
            bus.producer("log").send("the file is free", timeout_s=3)
        except errors.GearshiftError:  # it stands still with the write lock
            sleeper.signal(signal.SIGCONT)
            return False
        return True

    assert until(is_asleep)
    with bus.consumer("work", group="workers") as consumer:
        (delivery,) = take(consumer, 1)
        assert (delivery.attempt, delivery.redelivered) == (2, True)
        sleeper.signal(signal.SIGCONT)
        sleeper.tell("ack")
        # It says 'acked' if it was quicker than its own driver in noticing; nothing follows of it.
        assert set(sleeper.event()) <= {"stale", "acked"}
        assert bus.groups("work")[0].in_flight == 1
        delivery.ack()
        consumer.flush()
        assert [consumer._users.snapshot().stale, bus.groups("work")[0].in_flight] == [0, 0]
        assert consumer.receive(timeout_s=0.5) == []


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


def test_partitions_of_a_killed_process_are_taken_over(
    bus: gearshift.Bus, config: Path, actor: StartActor
) -> None:
    """The survivor reads every partition to the end, from where the dead one had settled."""
    worker = actor("handle", config, "log")
    with bus.consumer("log", group="workers") as consumer:
        consumer.ready()
        bus.producer("log").send_many(range(40), key_by=lambda n: f"k{n}")
        theirs = worker.event()["got"]
        mine = take(consumer, 5)
        worker.kill()
        values = ack_all(mine)
        rest = drain(consumer, 35)
    assert theirs in rest
    assert sorted(values + rest) == list(range(40))
