"""Gearshift's side: the same two functions on every broker."""

from __future__ import annotations

import time

from load import HEADERS, Measured, Watch, load

import gearshift


def publish(bus: gearshift.Bus, channel: str, total: int) -> Measured:
    """send_many of messages with a key and two headers."""
    with bus.producer(channel, create=True) as producer:
        started = time.perf_counter()
        messages = (producer.message(body, key=key, headers=HEADERS) for key, body in load(total))
        results = producer.send_many(messages, raise_on_error=False)
        seconds = time.perf_counter() - started
    stored = sum(isinstance(result, gearshift.Receipt) for result in results)
    return Measured(stored / seconds, total - stored)


def consume(bus: gearshift.Bus, channel: str, total: int) -> Measured:
    """Receive, ack each, and wait until the broker was told."""
    watch = Watch(total)
    with bus.consumer(channel, prefetch=500, create=True) as inbox:
        while not watch.complete:
            deliveries = inbox.receive(500, timeout_s=20.0)
            if not deliveries:
                break
            watch.saw([delivery.body or b"" for delivery in deliveries])
            for delivery in deliveries:
                delivery.ack()
        inbox.flush()
        return watch.stop()
