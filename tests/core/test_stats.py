"""What a bus counts, on both embedded backends: every message once, closed clients included."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import errors
from gearshift._core.consuming.receivers import QueueReceiver
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.stats import BOUNDS_S, ReceiveStats, SendStats, Timings
from gearshift.telemetry import health


def sending(bus: gearshift.Bus, channel: str) -> SendStats:
    """What was sent to ``channel``."""
    (found,) = [one for one in bus.stats().sending if one.channel == channel]
    return found


def receiving(bus: gearshift.Bus, channel: str, group: str | None) -> ReceiveStats:
    """What ``group`` has received."""
    found = [one for one in bus.stats().receiving if (one.channel, one.group) == (channel, group)]
    assert len(found) == 1
    return found[0]


def test_every_send_is_counted_once_also_of_closed_producers(bus: gearshift.Bus) -> None:
    for _ in range(3):
        with bus.producer("orders") as producer:
            producer.send_many(range(700))
            producer.send({})
    producer = bus.producer("orders")
    producer.submit({}).result(PATIENCE_S)
    stats = sending(bus, "orders")
    assert (stats.stored, stats.resent, stats.in_flight) == (3 * 701 + 1, 0, 0)
    assert stats.took.count == stats.stored
    assert stats.took.total_s > 0
    assert not stats.failed


def test_a_send_that_failed_is_counted_by_its_error(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = bus.producer("orders")
    refused = errors.BackpressureError("full")
    monkeypatch.setattr(PublishBuffer, "_obstacle", lambda self, waits: refused)
    with pytest.raises(errors.BackpressureError):
        producer.send({}, timeout_s=0.01)
    assert sending(bus, "orders").failed == {"BackpressureError": 1}


def test_submitting_in_an_event_loop_never_blocks_it(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would have to wait is refused at once, however much time there was (faststream#1579)."""
    producer = bus.producer("orders")

    async def submit() -> None:
        producer.submit({}, timeout_s=3600.0)

    asyncio.run(submit())
    refused = errors.BackpressureError("full")
    monkeypatch.setattr(PublishBuffer, "_obstacle", lambda self, waits: refused)
    with pytest.raises(errors.BackpressureError):
        asyncio.run(submit())


@pytest.mark.parametrize(("channel", "group"), [("orders", "billing"), ("events", "g")])
def test_deliveries_are_counted_by_outcome(bus: gearshift.Bus, channel: str, group: str) -> None:
    """On a queue as on a stream, where retries stay in hand."""
    bus.producer(channel).send_many(range(4))
    with bus.consumer(channel, group=group) as consumer:
        first, second, third, fourth = take(consumer, 4)
        now = receiving(bus, channel, group)
        assert (now.delivered, now.unsettled, now.consumers) == (4, 4, 1)
        first.ack()
        second.retry(delay_s=0.0)
        third.reject("no")
        (again,) = take(consumer, 1)
        assert again.id == second.id
        again.ack()
        fourth.ack()
    stats = receiving(bus, channel, group)
    assert stats.settled == {"ack": 3, "retry": 1, "reject": 1}
    assert (stats.delivered, stats.redelivered, stats.stale) == (5, 1, 0)
    assert (stats.unsettled, stats.consumers) == (0, 0)
    assert sending(bus, f"{channel}.dead").stored == 1


def test_ephemeral_consumers_are_counted_together(bus: gearshift.Bus) -> None:
    """Each has a group of its own, and a number for each of these would grow for ever."""
    for _ in range(3):
        with bus.consumer("orders", ephemeral=True) as consumer:
            consumer.ready()
            bus.producer("orders").send({})
            take(consumer, 1)[0].ack()
    assert receiving(bus, "orders", None).settled == {"ack": 3}


def test_many_threads_lose_no_count(bus: gearshift.Bus) -> None:
    producers = [bus.producer("orders") for _ in range(3)]
    threads = [
        threading.Thread(target=producers[n % 3].send_many, args=(range(300),)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sending(bus, "orders").stored == 6 * 300


def test_timings_fall_into_the_bucket_that_holds_them() -> None:
    timings = Timings()
    for seconds in (0.0005, 0.001, 0.0011, 1000.0):
        timings.add(seconds)
    timings.add(0.2, times=5)
    assert timings.counts[0] == 2  # a bound belongs to its bucket
    assert timings.counts[1] == 1
    assert timings.counts[BOUNDS_S.index(0.25)] == 5
    assert timings.counts[-1] == 1
    assert (timings + timings).count == 2 * timings.count == 18
    assert timings.total_s == pytest.approx(1000.0026 + 1.0)


def test_a_consumer_that_settles_nothing_has_stalled(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is full and nobody gets on: that is unhealthy, and a settlement heals it."""
    bus.producer("orders").send_many(range(3))
    consumer = bus.consumer("orders", group="billing", prefetch=2)
    held = take(consumer, 2)
    assert health.problems(bus) == []
    monkeypatch.setattr(health, "_limit_s", lambda bus, stats: 1e-9)
    (problem,) = health.problems(bus)
    assert "'orders'" in problem
    assert "2 deliveries are being handled" in problem
    assert receiving(bus, "orders", "billing").in_hand == 2
    held[0].ack()
    assert health.problems(bus) == []


def test_a_delivery_that_stays_in_hand_is_told_while_others_get_on(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no reason to restart the process, and not healthy."""
    bus.producer("orders").send_many(range(3))
    consumer = bus.consumer("orders", group="billing", prefetch=8)
    (held,) = take(consumer, 1)
    monkeypatch.setattr(health, "_limit_s", lambda bus, stats: 1e-9)
    assert health.problems(bus) == []
    (told,) = health.degraded(bus)
    assert "'orders', group 'billing': a delivery has been unsettled for" in told
    held.ack()
    assert health.degraded(bus) == []


def test_a_consumer_whose_broker_says_nothing_is_unhealthy(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is measured at the loop; an idle consumer is not silent."""
    consumer = bus.consumer("orders", group="billing")
    consumer.ready()
    shared = consumer._users._shared
    heard_at = shared.heard_at
    assert until(lambda: shared.heard_at > heard_at)
    assert health.problems(bus) == []
    driver_waits = threading.Event()

    def receive(*_: object) -> tuple[()]:
        driver_waits.wait(PATIENCE_S)
        return ()

    monkeypatch.setattr(QueueReceiver, "receive", receive)
    monkeypatch.setattr(health, "SILENT_AFTER_S", 1.5)
    try:
        assert until(lambda: health.problems(bus))
        (problem,) = health.problems(bus)
        assert "nothing was heard" in problem
    finally:
        driver_waits.set()
