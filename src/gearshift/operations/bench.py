"""How fast a broker is through Gearshift: send, receive, and the way from one to the other.

Each measurement has a channel of its own, which is deleted again. Every message is confirmed and
settled one by one, as a service does it; nothing is measured that would lose messages.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gearshift.bus import Bus, open_bus
from gearshift.config import Config, with_channels
from gearshift.delivery import Delivery
from gearshift.errors import DeadlineExceeded
from gearshift.message import message_id
from gearshift.operations.cleanup import delete_channels, finish

__all__ = ["WORKS", "Figure", "Plan", "measure"]

#: What the receiving side holds at most.
_PREFETCH = 500
#: Longest wait for one message.
_PATIENCE_S = 30.0
#: End to end, messages a second: far below what brokers can do, so that nothing queues up.
_PACE = 200
_PACED_MOST = 2_000
_HEADERS = {"tenant": "benchmark", "schema": "v1"}
_STAMP = 20  # digits of a time at the beginning of a body


@dataclass(frozen=True)
class Plan:
    """One measurement: ``threads`` is how many send one at a time, ``size`` a body's bytes."""

    work: str
    messages: int
    size: int
    threads: int = 1


@dataclass(frozen=True)
class Figure:
    """What was measured: messages a second, or milliseconds from before the send to arrival.

    ``cpu_us`` is the time of this process's processor for each message, None end to end.
    """

    work: str
    size: int
    threads: int
    messages: int
    rate: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None


def measure(config: Config, semantics: str, plans: Sequence[Plan]) -> Iterator[Figure]:
    """Do each of ``plans`` on the profile that ``config`` selects, in a channel of ``semantics``.

    ``semantics`` is "queue" or "stream", or "" for the backend's default. Blocks. The channels
    are called ``bench_...``. Raises what opening, sending and receiving raise.
    """
    for plan in plans:
        with _channel(config, semantics) as (bus, channel):
            yield _MEASURES[plan.work](bus, channel, plan)


@contextmanager
def _channel(config: Config, semantics: str) -> Iterator[tuple[Bus, str]]:
    channel = f"bench_{message_id()[-14:]}"
    settings = {"semantics": semantics} if semantics else {}
    with open_bus(config=with_channels(config, {channel: settings})) as bus:
        patience_s = 0.0  # where no broker was reached there is nothing to delete
        try:
            bus.declare(channel)
            patience_s = _PATIENCE_S
            yield bus, channel
        finally:
            finish(lambda: delete_channels(bus, channel, patience_s=patience_s))


def _send_many(bus: Bus, channel: str, plan: Plan) -> Figure:
    with bus.producer(channel) as producer:
        messages = (producer.message(body, key=key, headers=_HEADERS) for key, body in _load(plan))
        return _timed(plan, lambda: producer.send_many(messages, timeout_s=_PATIENCE_S))


def _send(bus: Bus, channel: str, plan: Plan) -> Figure:
    source, lock = _load(plan), threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                with lock:
                    one = next(source, None)
                if one is None:
                    return
                producer.send(one[1], key=one[0], headers=_HEADERS, timeout_s=_PATIENCE_S)
        except BaseException as error:
            errors.append(error)

    def run() -> None:
        threads = [threading.Thread(target=work) for _ in range(plan.threads - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    with bus.producer(channel) as producer:
        return _timed(plan, run)


def _receive(bus: Bus, channel: str, plan: Plan) -> Figure:
    _send_many(bus, channel, plan)
    with bus.consumer(channel, prefetch=_PREFETCH, start="earliest") as consumer:
        left = plan.messages - _received(consumer.receive(1, timeout_s=_PATIENCE_S))

        def run() -> None:
            nonlocal left
            while left > 0:
                left -= _received(consumer.receive(_PREFETCH, timeout_s=_PATIENCE_S))
            consumer.flush()

        return _timed(plan, run, left)


def _received(deliveries: Sequence[Delivery[Any]]) -> int:
    if not deliveries:
        raise DeadlineExceeded(f"nothing came for {_PATIENCE_S:g} s")
    for delivery in deliveries:
        delivery.ack()
    return len(deliveries)


def _end_to_end(bus: Bus, channel: str, plan: Plan) -> Figure:
    total = min(plan.messages, _PACED_MOST)
    took_ms: list[float] = []

    def serve() -> None:
        while len(took_ms) < total:
            deliveries = consumer.receive(_PREFETCH, timeout_s=_PATIENCE_S)
            if not deliveries:
                return
            for delivery in deliveries:
                sent_ns = int((delivery.body or b"")[:_STAMP])
                took_ms.append((time.perf_counter_ns() - sent_ns) / 1e6)
                delivery.ack()

    with bus.producer(channel) as producer, bus.consumer(channel, prefetch=_PREFETCH) as consumer:
        consumer.ready(_PATIENCE_S)
        receiver = threading.Thread(target=serve)
        receiver.start()
        begin = time.perf_counter()
        for number in range(total):
            time.sleep(max(0.0, begin + number / _PACE - time.perf_counter()))
            stamp = b"%020d" % time.perf_counter_ns()
            producer.send(stamp.ljust(plan.size, b"x"), headers=_HEADERS, timeout_s=_PATIENCE_S)
        receiver.join()
    if len(took_ms) < total:
        raise DeadlineExceeded(f"{total - len(took_ms)} of {total} messages did not come")
    cuts = statistics.quantiles(took_ms, n=100)
    return Figure(plan.work, plan.size, 1, total, p50_ms=cuts[49], p99_ms=cuts[98])


_MEASURES: dict[str, Callable[[Bus, str, Plan], Figure]] = {
    "send": _send,
    "send_many": _send_many,
    "receive": _receive,
    "end_to_end": _end_to_end,
}
#: What can be measured, in the order in which it is shown.
WORKS = tuple(_MEASURES)


def _load(plan: Plan) -> Iterator[tuple[str, bytes]]:
    for number in range(plan.messages):
        yield f"key-{number % 997}", (b"%012d" % number).ljust(plan.size, b"x")


def _timed(plan: Plan, work: Callable[[], object], count: int | None = None) -> Figure:
    """The figure of ``work``, which is about ``count`` messages; else all of the plan's."""
    messages = plan.messages if count is None else count
    cpu, started = time.process_time(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    cpu_us = (time.process_time() - cpu) / messages * 1e6
    rate = messages / seconds
    return Figure(plan.work, plan.size, plan.threads, plan.messages, rate, cpu_us=cpu_us)
