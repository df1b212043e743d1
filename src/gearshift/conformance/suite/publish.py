"""Sending: what a receipt means, and what an error means."""

from __future__ import annotations

import threading
from concurrent.futures import wait

from gearshift.conformance.behaviour import Area, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.errors import Closed, GearshiftError, MessageTooLarge
from gearshift.message import Receipt

#: A producer waits for a missing channel until its send's deadline. Seconds.
_MISSING_S = 2.0


@on_channel(Area.PUBLISH, deliveries=20)
def a_send_that_returned_is_delivered(kit: Kit, channel: str) -> None:
    """Every message with a receipt reaches the group once, with nothing else."""
    producer = kit.producer(channel)
    for number in range(20):
        producer.send(key=f"k{number % 3}")


@on_channel(Area.PUBLISH, capability="depth")
def a_receipt_means_stored_already(kit: Kit, channel: str) -> None:
    """When send returns the message is there: another client counts it or receives it."""
    if kit.is_stream:
        kit.join(channel)
    producer = kit.producer(channel)
    for number in range(1, 6):
        producer.send()
        depth = kit.depth(channel, "g")
        kit.require(
            depth is None or depth == number,
            "false-success",
            f"{number} receipts, but the broker counts {depth}",
        )


@on_channel(Area.PUBLISH, deliveries=80)
def concurrent_publishers_lose_nothing(kit: Kit, channel: str) -> None:
    """Four threads on one producer, four with their own: each message arrives once, in order."""
    bus = kit.connect()
    producers = [kit.producer(channel, bus) for _ in range(4)]
    shared = kit.producer(channel, bus)
    each = kit.many(25)

    def own(number: int) -> None:
        for _ in range(each):
            producers[number].send(key=f"own{number}")

    def common(number: int) -> None:
        shared.send_many(each, keys=[f"common{number}"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4) for work in (own, common)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@on_channel(Area.PUBLISH)
def a_refused_message_never_appears(kit: Kit, channel: str) -> None:
    """A message that is too large raises, is not stored, and the next one goes through."""
    producer = kit.producer(channel)
    limit = kit.capabilities.max_message_bytes
    with kit.refusal(MessageTooLarge, "refusal", "a message over the limit"):
        producer.send(bytes(limit + 1))
    producer.send()


@on_channel(Area.PUBLISH)
def a_failed_message_does_not_stop_its_batch(kit: Kit, channel: str) -> None:
    """send_many with one bad value gives an error in its place and receipts for the others."""
    producer = kit.producer(channel)
    good = [producer.message() for _ in range(2)]
    results = producer.producer.send_many([good[0], object(), good[1]], raise_on_error=False)
    kinds = [isinstance(result, Receipt) for result in results]
    kit.require(kinds == [True, False, True], "partial-failure", f"results were {results}")
    for message, result in zip(good, (results[0], results[2]), strict=True):
        producer.resolve(message, result)


@behaviour(Area.PUBLISH, capability="unroutable_detected", deliveries=0)
def what_nobody_would_receive_is_refused(kit: Kit) -> None:
    """A send to a deleted channel that it may not create raises: what is lost has no receipt."""
    channel = kit.channel()
    kit.producer(channel).send()
    producer = kit.producer(channel, create=False)
    kit.connect().delete(channel)
    with kit.refusal(GearshiftError, "lost", "a send to a deleted channel"):
        producer.send(timeout_s=_MISSING_S)


@on_channel(Area.PUBLISH, deliveries=50)
def close_resolves_what_is_in_flight(kit: Kit, channel: str) -> None:
    """Messages submitted right before close each end as a receipt or an error, never in silence."""
    producer = kit.producer(channel)
    messages = [producer.message() for _ in range(50)]
    futures = [producer.producer.submit(message) for message in messages]
    producer.close()
    _, pending = wait(futures, timeout=kit.patience_s)
    kit.require(not pending, "unresolved", f"{len(pending)} futures have no result after close")
    for message, future in zip(messages, futures, strict=True):
        error = future.exception()
        if error is None:
            producer.resolve(message, future.result())
        else:
            assert isinstance(error, GearshiftError)
            producer.resolve(message, error)


@on_channel(Area.PUBLISH)
def a_send_after_close_raises(kit: Kit, channel: str) -> None:
    """A closed producer says so and stores nothing."""
    producer = kit.producer(channel)
    producer.send()
    producer.close()
    with kit.refusal(Closed, "publish-after-close", "a send after close"):
        producer.send()
