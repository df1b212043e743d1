"""Settling: ack, retry, reject, and what happens to what was not settled."""

from __future__ import annotations

from gearshift.capabilities import Known
from gearshift.conformance.behaviour import Area, on_channel
from gearshift.conformance.kit import Kit
from gearshift.errors import AlreadySettled, StaleDelivery


@on_channel(Area.SETTLE, deliveries=30)
def what_was_acked_stays_gone(kit: Kit, channel: str) -> None:
    """After ack and flush neither this consumer nor a fresh one gets it again."""
    kit.producer(channel).send_many(30, keys=["a", "b", "c"])
    consumer = kit.consumer(channel)
    kit.ack(consumer, 30)
    kit.require(consumer.flush(), "unresolved", "flush did not end")


@on_channel(
    Area.SETTLE, capability="attempt", deliveries=6, retries=4, settings={"max_attempts": 10}
)
def a_retried_message_comes_again_unchanged(kit: Kit, channel: str) -> None:
    """Body, key and headers are as sent, redelivered is flagged, attempt rises by one each time."""
    producer = kit.producer(channel)
    consumer = kit.consumer(channel)
    producer.send(key="k", headers=[("a", "1"), ("a", "2"), ("b", b"\x80\xff"), ("n", -7)])
    producer.send(key="other")
    left = 4
    while left or kit.history.finished(channel, "g") < kit.history.published(channel).keys():
        delivery = kit.one(consumer)
        if delivery.key == "k" and left:
            left -= 1
            consumer.retry(delivery, 0.0)
        else:
            consumer.ack(delivery)


@on_channel(Area.SETTLE, capability="redelivered", deliveries=4)
def a_second_delivery_is_flagged(kit: Kit, channel: str) -> None:
    """What one consumer held and gave back says so to the next, as far as is declared."""
    consumer = kit.consumer(channel)
    kit.producer(channel).send_many(2, keys=["a"])
    for delivery in kit.take(consumer, 2):
        kit.require(
            delivery.redelivered is not True or kit.capabilities.redelivered is Known.NONE,
            "unflagged-duplicate",
            f"{delivery.id} came first with redelivered={delivery.redelivered}",
        )
    consumer.close()


@on_channel(
    Area.SETTLE,
    deliveries=100,
    retries=1,
    settings={"max_attempts": 100, "retry_delay_s": 0.0, "retry_max_delay_s": 0.0},
)
def a_hundred_retries_keep_the_message(kit: Kit, channel: str) -> None:
    """However often it is retried it comes again, until max_attempts; then it is a dead letter."""
    sent = kit.producer(channel).send(key="k")
    consumer = kit.consumer(channel)
    outcome = None
    for _ in range(100):
        delivery = kit.one(consumer)
        consumer.retry(delivery, 0.0)
        outcome = delivery.outcome
    kit.require(outcome == "reject", "attempt-count", f"the 100th retry ended as {outcome}")
    consumer.close()
    letters = kit.letters(channel)
    kit.require(
        [letter.id for letter in letters] == [sent.id],
        "dead-letter",
        f"dead letters are {[letter.id for letter in letters]}",
    )


@on_channel(Area.SETTLE, capability="native_delay", deliveries=3, retries=1)
def a_delayed_retry_is_not_held_in_hand(kit: Kit, channel: str) -> None:
    """With prefetch 1 others come during the delay if the broker keeps it, else it comes first."""
    producer = kit.producer(channel)
    consumer = kit.consumer(channel, prefetch=1)
    first = producer.send(key="a").id
    # Of one key, what follows has to wait; of two, a log does not say which comes first.
    second = producer.send(key="b" if kit.capabilities.native_delay else "a").id
    delivery = kit.one(consumer)
    consumer.retry(delivery, 1.0)
    order = [delivery.id]
    for _ in range(2):
        delivery = kit.one(consumer)
        order.append(delivery.id)
        consumer.ack(delivery)
    expected = [first, second, first] if kit.capabilities.native_delay else [first, first, second]
    kit.require(order == expected, "native-delay", f"came as {order}, expected {expected}")


@on_channel(Area.SETTLE, capability="native_retry", deliveries=2, retries=1)
def a_retry_goes_back_to_the_group(kit: Kit, channel: str) -> None:
    """Where the broker takes it back, another member gets it as a second attempt."""
    holder = kit.consumer(channel)
    kit.producer(channel).send(key="a")
    holder.retry(kit.one(holder), 0.0)
    holder.flush()
    holder.close()
    other = kit.consumer(channel)
    again = kit.one(other)
    if kit.capabilities.native_retry and kit.capabilities.attempt is not Known.NONE:
        kit.require(again.attempt >= 2, "attempt-count", f"it came with attempt {again.attempt}")
    other.ack(again)


@on_channel(Area.SETTLE, capability="dead_letter", deliveries=3)
def a_rejected_message_becomes_a_dead_letter(kit: Kit, channel: str) -> None:
    """With its id, body, key and reason, once; its group does not see it again."""
    consumer = kit.consumer(channel)
    kit.producer(channel).send_many(3, keys=["a", "b", "c"])
    deliveries = kit.take(consumer, 3)
    consumer.reject(deliveries[1], "does not parse")
    for delivery in (deliveries[0], deliveries[2]):
        consumer.ack(delivery)
    consumer.close()
    letters = kit.letters(channel)
    kit.require(
        [letter.id for letter in letters] == [deliveries[1].id],
        "dead-letter",
        f"dead letters are {[letter.id for letter in letters]}",
    )
    letter = letters[0]
    kit.require(
        (letter.body, letter.key, letter.headers.get("dead-letter-reason"))
        == (deliveries[1].body, deliveries[1].key, "does not parse"),
        "changed",
        f"the dead letter came as {letter.key!r}, {letter.headers!r}",
    )


@on_channel(Area.SETTLE, deliveries=12, retries=2, settings={"max_attempts": 3})
def a_poison_message_does_not_block_its_successors(kit: Kit, channel: str) -> None:
    """While one message fails until it is dead-lettered, the others are all handled."""
    consumer = kit.consumer(channel)
    kit.producer(channel).send_many(10, keys=["poison", "b", "c"])
    poison = next(iter(kit.history.published(channel)))
    finished = kit.history.finished
    while finished(channel, "g") < kit.history.published(channel).keys():
        delivery = kit.one(consumer)
        if delivery.id == poison:
            consumer.retry(delivery)
        else:
            consumer.ack(delivery)
    consumer.close()
    letters = kit.letters(channel)
    kit.require(
        [letter.id for letter in letters] == [poison], "dead-letter", f"{len(letters)} letters"
    )


@on_channel(Area.SETTLE)
def settling_twice_raises(kit: Kit, channel: str) -> None:
    """The second of two settlements is AlreadySettled and changes nothing."""
    consumer = kit.consumer(channel)
    kit.producer(channel).send()
    delivery = kit.one(consumer)
    consumer.ack(delivery)
    with kit.refusal(AlreadySettled, "refusal", "a second settlement"):
        delivery.retry()


@on_channel(Area.SETTLE, capability="redelivery", deliveries=10)
def unsettled_work_returns_when_its_consumer_closes(kit: Kit, channel: str) -> None:
    """What was in hand, and what was only fetched, goes to the next consumer."""
    kit.producer(channel).send_many(10, keys=["a", "b", "c"])
    consumer = kit.consumer(channel, prefetch=10)
    deliveries = kit.take(consumer, 4)
    consumer.ack(deliveries[0])
    unsettled = consumer.close()
    kit.require(
        set(unsettled) == {delivery.id for delivery in deliveries[1:]},
        "unsettled-lost",
        f"close named {unsettled}",
    )


@on_channel(Area.SETTLE, capability="attempt", deliveries=4, settings={"max_attempts": 3})
def a_close_neither_costs_nor_forgets_attempts(kit: Kit, channel: str) -> None:
    """What was retried once is at its second attempt, however often its consumers close."""
    kit.producer(channel).send(key="k")
    counts = not kit.is_stream and kit.capabilities.attempt is not Known.NONE
    for number in range(4):
        consumer = kit.consumer(channel)
        delivery = kit.one(consumer)
        if not number:
            consumer.retry(delivery, 0.0)
            consumer.flush()
            delivery = kit.one(consumer)
        kit.require(
            delivery.attempt == 2 or not counts,
            "attempt-count",
            f"after {number} closes it came with attempt {delivery.attempt}",
        )
        consumer.close()


@on_channel(Area.SETTLE, deliveries=4)
def a_stale_settlement_touches_nothing(kit: Kit, channel: str) -> None:
    """An ack after its consumer was closed raises, and the message comes to the next one."""
    kit.producer(channel).send_many(2, keys=["a"])
    first = kit.consumer(channel)
    stale = kit.take(first, 2)
    first.close()
    second = kit.consumer(channel)
    again = kit.take(second, 2)
    for delivery in stale:
        with kit.refusal(StaleDelivery, "stale-settle", "an ack of a closed consumer's delivery"):
            first.ack(delivery)
    second.close()
    kit.require(len(again) == 2, "unsettled-lost", "not all came again")


@on_channel(Area.SETTLE, deliveries=11)
def settling_out_of_order_loses_nothing(kit: Kit, channel: str) -> None:
    """All but one are acked, the last first; after a close that one comes again."""
    kit.producer(channel).send_many(10, keys=["k"])
    consumer = kit.consumer(channel, prefetch=20)
    deliveries = kit.take(consumer, 10)
    for delivery in reversed(deliveries):
        if delivery is not deliveries[4]:
            consumer.ack(delivery)
    consumer.flush()
    consumer.close()
