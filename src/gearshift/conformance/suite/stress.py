"""Stress: many at once, with exact accounting."""

from __future__ import annotations

import threading
from functools import partial

from gearshift._observe.threads import working
from gearshift.conformance.behaviour import Area, on_channel
from gearshift.conformance.kit import Kit


@on_channel(Area.STRESS, deliveries=500)
def many_publishers_and_consumers_account_for_everything(kit: Kit, channel: str) -> None:
    """A hundred threads send ten thousand messages (at pace 1), four members settle them all."""
    bus = kit.connect()
    producers = [kit.producer(channel, bus) for _ in range(10)]
    each = kit.many(100)

    def send(number: int) -> None:
        producers[number % 10].send_many(each, keys=[f"k{number}"])

    members = [kit.consumer(channel, prefetch=200) for _ in range(4)]
    senders = [threading.Thread(target=send, args=(number,)) for number in range(100)]
    with working(*(partial(member.work, batch=100) for member in members)):
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        wanted = kit.history.published(channel).keys()
        kit.until(lambda: kit.history.finished(channel, "g") >= wanted, "not all was settled")
