"""One point of a growth run, in a process of its own, so that its memory is its own.

python -m benchmarks.growing SERIES AT ROUNDS URL NAME
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import gearshift
from benchmarks.clients.gearshift_ import settings_of
from benchmarks.work import HEADERS, IDLE_S, Load, Place
from gearshift.driver.measuring import PREFETCH, Timer, in_threads
from gearshift.operations.bench import receive, send_many

#: Messages of one round.
_TOTAL = 10_000
#: Of large messages, bytes of a round.
_BYTES = 64 * 1024 * 1024
#: So that each of the consumers has a partition, and none holds much of what there is.
_PARTITIONS, _LITTLE = 64, 50

#: Messages a second: sent, received.
Rates = tuple[float, float]


def backlog(place: Place, at: int, rounds: int) -> Iterator[Rates]:
    """``at`` messages wait; as many more are sent as are then received from the front."""
    with gearshift.open(settings=settings_of(place)) as bus:
        send_many(bus, place.name, Load(at))
        with bus.consumer(place.name, prefetch=PREFETCH) as consumer:
            consumer.ready(IDLE_S)
            for _ in range(rounds):
                total = min(_TOTAL, at)
                sent = send_many(bus, place.name, Load(total)).rate
                yield sent, _taken([consumer], total)


def channels(place: Place, at: int, rounds: int) -> Iterator[Rates]:
    """A producer and a consumer for each of ``at`` channels, in one process; sent in turns."""
    names = [f"{place.name}-{number}" for number in range(at)]
    settings = settings_of(place) | {"channels": {name: {"partitions": 1} for name in names}}
    with gearshift.open(settings=settings) as bus:
        producers = [bus.producer(name) for name in names]
        consumers = [bus.consumer(name, prefetch=PREFETCH) for name in names]
        for _ in range(rounds):
            timer = Timer()
            futures = [
                producers[number % at].submit(body, key=key, headers=HEADERS)
                for number, (key, body) in enumerate(Load(_TOTAL))
            ]
            for future in futures:
                future.result()
            yield timer.sample(_TOTAL).rate, _taken(consumers, _TOTAL)


def _taken(consumers: Sequence[gearshift.Consumer[Any]], total: int) -> float:
    """The rate at which one thread takes ``total`` messages from all of them."""
    timer, left = Timer(), total
    patience_s = IDLE_S if len(consumers) == 1 else 0.001
    while left > 0:
        for consumer in consumers:
            for delivery in consumer.receive(min(PREFETCH, left or 1), timeout_s=patience_s):
                delivery.ack()
                left -= 1
            if left <= 0:
                break
    for consumer in consumers:
        consumer.flush()
    return timer.sample(total).rate


def consumers(place: Place, at: int, rounds: int) -> Iterator[Rates]:
    """``at`` consumers of one group, each with a thread; as many threads send one at a time."""
    settings = settings_of(place, partitions=_PARTITIONS)
    with gearshift.open(settings=settings) as bus, ExitStack() as opened:
        members = [
            opened.enter_context(bus.consumer(place.name, prefetch=_LITTLE)) for _ in range(at)
        ]
        producer = opened.enter_context(bus.producer(place.name))
        for member in members:
            member.ready(IDLE_S)
        for _ in range(rounds):
            alone = Load(_TOTAL // 10, threads=at)
            sent = in_threads(
                lambda key, body: producer.send(body, key=key, headers=HEADERS), alone
            ).rate
            send_many(bus, place.name, Load(_TOTAL - alone.total))
            yield sent, _shared(members, _TOTAL)


def _shared(members: Sequence[gearshift.Consumer[Any]], total: int) -> float:
    """The rate at which they take ``total`` messages between them."""
    lock, left = threading.Lock(), total

    def work(member: gearshift.Consumer[Any]) -> None:
        nonlocal left
        while left > 0:
            deliveries = member.receive(_LITTLE, timeout_s=0.1)
            for delivery in deliveries:
                delivery.ack()
            with lock:
                left -= len(deliveries)
        member.flush()

    timer = Timer()
    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return timer.sample(total).rate


def size(place: Place, at: int, rounds: int) -> Iterator[Rates]:
    """Bodies of ``at`` bytes."""
    load = Load(max(20, min(_TOTAL, _BYTES // at)), at)
    with gearshift.open(settings=settings_of(place)) as bus:
        for _ in range(rounds):
            yield send_many(bus, place.name, load).rate, receive(bus, place.name, load).rate


SERIES: dict[str, Callable[[Place, int, int], Iterator[Rates]]] = {
    "backlog": backlog,
    "channels": channels,
    "consumers": consumers,
    "size": size,
}


def main() -> None:
    """Print a point as a line of JSON."""
    name, at, rounds, url, channel = sys.argv[1:]
    sent, received = zip(*SERIES[name](Place(url, channel), int(at), int(rounds)), strict=True)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"sent": sent, "received": received, "memory_mb": round(memory_mb)}))


if __name__ == "__main__":
    main()
