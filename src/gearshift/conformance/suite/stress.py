"""Stress: many at once, with exact accounting."""

from __future__ import annotations

import contextlib
import threading

from gearshift.conformance.behaviour import Area, behaviour
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import StaleDelivery


@behaviour(Area.STRESS, deliveries=500)
def many_publishers_and_consumers_account_for_everything(kit: Kit) -> None:
    """A hundred threads send ten thousand messages (at pace 1), four members settle them all."""
    channel = kit.channel()
    bus = kit.connect()
    producers = [kit.producer(channel, bus) for _ in range(10)]
    each = kit.many(100)

    def send(number: int) -> None:
        producers[number % 10].send_many(each, keys=[f"k{number}"])

    members = [kit.consumer(channel, prefetch=200) for _ in range(4)]
    over = threading.Event()

    def work(member: RecordingConsumer) -> None:
        while not over.is_set():
            for delivery in member.receive(100, timeout_s=0.1):
                with contextlib.suppress(StaleDelivery):  # recorded; it comes again
                    member.ack(delivery)

    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    senders = [threading.Thread(target=send, args=(number,)) for number in range(100)]
    for thread in threads + senders:
        thread.start()
    try:
        for thread in senders:
            thread.join()
        wanted = kit.history.published(channel).keys()
        kit.until(lambda: kit.history.finished(channel, "g") >= wanted, "not all was settled")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    kit.verify(channel)
