"""Streams of others, consumers that come and go, and what is left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis as Client
from support.waiting import ack_all, take, until

from gearshift import errors
from gearshift.conformance.proxy import Proxy
from gearshift.driver import ChannelSpec, ConsumerSpec, Settlement, SettleRequest
from gearshift.message import Semantics
from gearshift_redis.backend import Backend
from gearshift_redis.settings import Settings
from native_brokers import Redis

from .conftest import OpenBus

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def test_an_existing_stream_is_used_as_it_is(open_bus: OpenBus, raw: Client, name: str) -> None:
    """What a plain program has added comes, what is sent reaches it, and nothing is deleted."""
    raw.xadd("theirs", {"payload": b"1", "shop": "ulm"})
    bus = open_bus('native.redis = { stream = "theirs", body_field = "payload" }')
    try:
        with bus.consumer(name, group="g") as consumer:
            (delivery,) = take(consumer, 1)
            assert (delivery.body, delivery.headers["shop"]) == (b"1", "ulm")
            delivery.ack()
            bus.producer(name).send("ours", headers={"n": 7})
            assert ack_all(take(consumer, 1)) == ["ours"]
            consumer.flush()
        entries = raw.xrange("theirs")
        assert [fields[b"payload"] for _, fields in entries] == [b"1", b"ours"]
        assert raw.xpending("theirs", "g")["pending"] == 0
        with pytest.raises(errors.GearshiftError, match="not ours"):
            bus.delete(name)
    finally:
        raw.delete("theirs")


def test_a_retry_of_an_existing_stream_reaches_its_group_alone(
    open_bus: OpenBus, raw: Client, name: str
) -> None:
    """Other readers of the stream see the message once, whatever one group does with it."""
    raw.xadd(f"{name}-shared", {"body": b"1"})
    bus = open_bus(f'native.redis.stream = "{name}-shared"')
    with bus.consumer(name, group="g") as consumer:
        (first,) = take(consumer, 1)
        first.retry(0.1)
        (again,) = take(consumer, 1)
        assert (again.body, again.attempt) == (b"1", 2)
        again.ack()
    assert raw.xlen(f"{name}-shared") == 1


def test_whoever_only_sends_to_an_existing_stream_makes_no_default_group(
    open_bus: OpenBus, raw: Client, name: str
) -> None:
    """It would never read, and look to its owner like one that hangs."""
    raw.xadd(f"{name}-shared", {"body": b"1"})
    bus = open_bus(f'[channels.{name}-ours]\nnative.redis.stream = "{name}-shared"')
    bus.producer(f"{name}-ours").send("ours")
    assert raw.xinfo_groups(f"{name}-shared") == []
    with bus.consumer(f"{name}-ours") as consumer:
        assert len(ack_all(take(consumer, 2))) == 2


def test_a_stream_that_is_not_there_is_unknown(open_bus: OpenBus, raw: Client, name: str) -> None:
    """It is not created in silence, nor is one that is deleted while there is a producer."""
    settings = f'native.redis.stream = "{name}-missing"'
    with pytest.raises(errors.UnknownChannel, match="does not exist"):
        open_bus(settings).producer(name)
    raw.xadd(f"{name}-missing", {"body": b"1"})
    producer = open_bus(settings).producer(name)
    raw.delete(f"{name}-missing")
    with pytest.raises(errors.UnknownChannel):
        producer.send("lost?", timeout_s=0.3)
    assert not raw.exists(f"{name}-missing")


def test_a_plain_consumer_of_the_group_keeps_its_own(
    open_bus: OpenBus, raw: Client, name: str
) -> None:
    """It shows no sign of life as ours do, and is not taken for dead."""
    stream = f"{name}-shared"
    for number in range(2):
        raw.xadd(stream, {"body": b"%d" % number})
    bus = open_bus(f'native.redis.stream = "{stream}"')
    bus.declare(name)
    raw.xreadgroup("g", "plain", {stream: ">"}, count=1)
    with bus.consumer(name, group="g") as consumer:
        (second,) = take(consumer, 1)
        second.ack()
        assert second.body == b"1"
        assert consumer.receive(timeout_s=1.5) == []
    assert raw.xpending(stream, "g")["pending"] == 1


def test_what_is_settled_leaves_nothing(open_bus: OpenBus, raw: Client, name: str) -> None:
    """Neither entries nor consumers nor tails stay on the server."""
    bus = open_bus()
    bus.producer(name).send_many(range(50))
    with bus.consumer(name, group="g") as consumer, bus.consumer(name, ephemeral=True):
        ack_all(take(consumer, 50))
    stream = f"gearshift:{{{name}}}:stream:g"
    assert raw.xlen(stream) == 0
    with bus.consumer(name, group="g") as next_one:
        next_one.receive(timeout_s=1.5)
        assert len(raw.xinfo_consumers(stream, "g")) <= 1
    left = {key.decode() for key in raw.scan_iter(f"gearshift:{{{name}}}:*")}
    assert left == {stream, f"gearshift:{{{name}}}:groups"}


def test_a_tail_that_died_is_forgotten(
    open_bus: OpenBus, redis: Redis, raw: Client, name: str
) -> None:
    """Its stream expires, and the next send drops the group: nothing grows for nobody."""
    producer = open_bus().producer(name)
    backend = Backend(Settings(url=redis.url, lease_s=2.0))
    channel = ChannelSpec(name=name, semantics=Semantics.QUEUE, groups=("g",))
    tail = backend.queue_consumer(  # no thread of it shows a sign of life
        ConsumerSpec(channel=channel, group="t", member="m", prefetch=1, ephemeral=True)
    )
    producer.send(1)
    groups = f"gearshift:{{{name}}}:groups"
    (group,) = [key.decode() for key, kind in raw.hgetall(groups).items() if kind != b"durable"]
    stream = f"gearshift:{{{name}}}:stream:{group}"
    assert 0 < raw.pttl(stream) <= 12_000
    raw.pexpire(stream, 1)  # as if so long had passed
    assert until(lambda: not raw.exists(stream))
    producer.send(2)
    assert set(raw.hgetall(groups)) == {b"g"}
    assert not raw.exists(stream)
    tail.close(5.0)


def test_who_was_taken_for_dead_settles_nothing_of_others(
    open_bus: OpenBus, redis: Redis, raw: Client, name: str
) -> None:
    """Whatever a consumer that stood still says of a message that another has, it is told so."""
    bus = open_bus()
    bus.producer(name).send("held")
    backend = Backend(Settings(url=redis.url))
    channel = ChannelSpec(name=name, semantics=Semantics.QUEUE, groups=("g",))
    frozen, other = (
        backend.queue_consumer(ConsumerSpec(channel=channel, group="g", member=m, prefetch=1))
        for m in ("frozen", "other")
    )
    (late,) = frozen.receive(1, 10.0)
    for sign in raw.scan_iter(f"gearshift:{{{name}}}:alive:g:gearshift:frozen#*"):
        raw.delete(sign)  # as if it had shown none for so long
    (taken,) = other.receive(1, 10.0)
    for settlement in (Settlement.ACK, Settlement.DISCARD, Settlement.RELEASE, Settlement.RETRY):
        said = SettleRequest(late.token, settlement, message=late.message, attempt=1)
        (failure,) = frozen.settle([said])
        assert isinstance(failure.error, errors.StaleDelivery)
    assert other.settle([SettleRequest(taken.token, Settlement.ACK)]) == []
    assert raw.xlen(f"gearshift:{{{name}}}:stream:g") == 0
    for consumer in (frozen, other):
        consumer.close(5.0)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]], ids=str)
def test_of_what_is_settled_together_others_keep_theirs(
    open_bus: OpenBus, redis: Redis, raw: Client, name: str, order: list[int]
) -> None:
    """In whatever order it is settled, each message is told for itself."""
    bus = open_bus()
    bus.producer(name).send_many(range(6))
    channel = ChannelSpec(name=name, semantics=Semantics.QUEUE, groups=("g",))
    consumer = Backend(Settings(url=redis.url)).queue_consumer(
        ConsumerSpec(channel=channel, group="g", member="m", prefetch=6)
    )
    received = consumer.receive(6, 10.0)
    stream = f"gearshift:{{{name}}}:stream:g"
    others = [received[number].token for number in (1, 4)]
    raw.xclaim(stream, "g", "other", 0, [token.id for token in others])
    failures = consumer.settle(
        [SettleRequest(received[number].token, Settlement.ACK) for number in order]
    )
    assert {failure.token for failure in failures} == set(others)
    assert raw.xlen(stream) == raw.xpending(stream, "g")["pending"] == 2
    consumer.close(5.0)


def test_large_messages_stay_on_the_server(open_bus: OpenBus, name: str) -> None:
    """With one in hand the consumer holds about prefetch_bytes, and it gets all of them."""
    bus = open_bus("prefetch_bytes = 65536")
    bus.producer(name).send_many([bytes([n]) * 16384 for n in range(40)])
    with bus.consumer(name, group="g") as consumer:
        found = take(consumer, 1)
        assert until(lambda: bus.groups(name)[0].in_flight == 8)  # before their size is known
        found += take(consumer, 7)
        for one in found:
            one.ack()
        found += take(consumer, 1)
        assert until(lambda: bus.groups(name)[0].in_flight == 4)
        found[-1].ack()
        while len(found) < 40:
            found += take(consumer, 1)
            found[-1].ack()
    assert [one.body for one in found] == [bytes([n]) * 16384 for n in range(40)]


def test_what_is_on_its_way_over_a_slow_link_is_not_given_to_others(
    redis: Redis, open_bus: OpenBus, name: str
) -> None:
    """The lease is renewed while a read takes longer than it, and the next read asks for less."""
    bodies = [bytes([n]) * 512 * 1024 for n in range(8)]
    open_bus().producer(name).send_many(bodies)
    channel = ChannelSpec(name=name, semantics=Semantics.QUEUE, groups=("g",))
    with Proxy(("127.0.0.1", redis.port)) as proxy, ThreadPoolExecutor(1) as thread:
        far, near = (
            Backend(Settings(url=f"redis://127.0.0.1:{port}/0", lease_s=2.0)).queue_consumer(
                ConsumerSpec(channel=channel, group="g", member=f"m{port}", prefetch=8)
            )
            for port in (proxy.port, redis.port)
        )
        proxy.slow(1_000_000)
        reading = thread.submit(far.receive, 8, 0.1)
        assert until(lambda: open_bus().groups(name)[0].in_flight == 8)
        while not reading.done():
            assert near.receive(8, 0.1) == []
        received = reading.result()
        assert [one.message.body for one in received] == bodies
        assert not far.settle([SettleRequest(one.token, Settlement.RELEASE) for one in received])
        assert len(far.receive(8, 0.1)) < 8
        proxy.slow(None)
        far.close(5.0)
        near.close(5.0)


def test_a_message_that_takes_long_to_send_is_sent_once(
    redis: Redis, open_bus: OpenBus, name: str
) -> None:
    """A connection is not given up while the bytes of one command move."""
    with Proxy(("127.0.0.1", redis.port)) as proxy:
        bus = open_bus(port=proxy.port, profile="timeout_s = 0.5")
        producer = bus.producer(name)
        proxy.slow(1_000_000)
        producer.send(bytes(2_000_000))
        assert bus.stats().sending[0].reconnects == 0
        proxy.slow(None)
        assert open_bus().groups(name)[0].ready == 1


@pytest.mark.parametrize("trim", [["MAXLEN", 3], ["MAXLEN", 0]], ids=["some", "all"])
def test_what_others_trim_before_it_was_read_is_told(
    open_bus: OpenBus, raw: Client, name: str, trim: list[str | int]
) -> None:
    """Once for the group; what had been read before, or trimmed before there was a group, is not
    counted."""
    stream = f"{name}-shared"
    for number in range(4):
        raw.xadd(stream, {"body": b"%d" % number})
    raw.xtrim(stream, maxlen=3, approximate=False)
    settings = f'native.redis.stream = "{stream}"'
    with open_bus(settings).consumer(name, group="g") as consumer:
        assert ack_all(take(consumer, 3)) == [b"1", b"2", b"3"]
    for number in range(4, 12):
        raw.xadd(stream, {"body": b"%d" % number})
    raw.execute_command("XTRIM", stream, *trim)
    left = raw.xlen(stream)
    buses = [open_bus(settings) for _ in range(2)]
    consumers = [bus.consumer(name, group="g") for bus in buses]
    assert until(lambda: sum(bus.stats().receiving[0].skipped for bus in buses) == 8 - left)
    raw.xadd(stream, {"body": b"last"})
    seen: list[object] = []
    while len(seen) <= left:
        seen += [value for one in consumers for value in ack_all(one.receive(timeout_s=0.1))]
    assert b"last" in seen
    assert sum(bus.stats().receiving[0].skipped for bus in buses) == 8 - left


def test_what_others_trim_while_a_dead_consumer_had_it_is_told(
    redis: Redis, open_bus: OpenBus, raw: Client, name: str
) -> None:
    """It cannot come again."""
    stream = f"{name}-shared"
    settings = f'native.redis.stream = "{stream}"'
    for number in range(5):
        raw.xadd(stream, {"body": b"%d" % number})
    with open_bus(settings).consumer(name, group="g"):
        pass
    raw.xreadgroup("g", "gearshift:dead#1", {stream: ">"})  # shows no sign of life
    raw.xtrim(stream, maxlen=2, approximate=False)
    bus = open_bus(settings)
    with bus.consumer(name, group="g") as consumer:
        found = [value for _ in range(2) for value in ack_all(take(consumer, 1))]
        assert found == [b"3", b"4"]
        assert until(lambda: bus.stats().receiving[0].skipped == 3)
