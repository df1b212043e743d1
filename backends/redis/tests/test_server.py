"""What a server says no to, or should not be trusted with, and how that is told."""

from __future__ import annotations

import logging

import pytest
from redis import Redis as Client
from support.waiting import ack_all, take, until

import gearshift
from gearshift import errors
from gearshift_redis.settings import ChannelSettings, Settings
from native_brokers import Redis

from .conftest import OpenBus

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def test_a_server_that_forgets_is_refused(open_bus: OpenBus, name: str) -> None:
    """Without an append-only file a confirmed message would not outlive the server."""
    with Redis(settings={"appendonly": "no"}) as forgetful:
        with pytest.raises(errors.NotSupported, match="appendonly is not set"):
            open_bus(url=forgetful.url).producer(name)
        allowed = open_bus(url=forgetful.url, profile="allow_forgetful_server = true")
        allowed.producer(name).send(1)
        assert ack_all(take(allowed.consumer(name, group="g"), 1)) == [1]


def test_a_server_that_evicts_is_refused(open_bus: OpenBus, name: str) -> None:
    """With an allkeys policy a full server throws whole queues away."""
    with (
        Redis(settings={"maxmemory-policy": "allkeys-lru"}) as evicting,
        pytest.raises(errors.NotSupported, match="maxmemory-policy allkeys-lru"),
    ):
        open_bus(url=evicting.url).producer(name)


def test_a_full_server_refuses_and_nothing_is_half_stored(open_bus: OpenBus, name: str) -> None:
    """The error says that memory is full; once there is room, the next send is stored."""
    with Redis() as full, Client.from_url(full.url) as raw:
        bus = open_bus(url=full.url)
        producer = bus.producer(name)
        producer.send("before")
        raw.config_set("maxmemory", "1mb")
        with pytest.raises(errors.PublishRefused, match="memory is full") as refused:
            producer.send("x" * 1000)
        assert refused.value.retryable
        raw.config_set("maxmemory", "0")
        producer.send("after")
        assert ack_all(take(bus.consumer(name, group="g"), 2)) == ["before", "after"]


def test_a_full_server_keeps_consumers_at_work(open_bus: OpenBus, name: str) -> None:
    """What waits is handled; a retry that cannot be stored is kept and counted, and comes again."""
    with Redis() as full, Client.from_url(full.url) as raw:
        bus = open_bus("retry_delay_s = 0.05", url=full.url)
        bus.producer(name).send_many(["bad", "good"])
        consumer = bus.consumer(name, group="g")
        raw.config_set("maxmemory", "1mb")
        for attempt in (1, 2):
            bad = next(d for d in consumer.iterate(idle_timeout_s=20) if not acked_good(d))
            assert (bad.value, bad.attempt) == ("bad", attempt)
            bad.retry()
        assert until(lambda: "memory is full" in (bus.stats().receiving[0].obstacle or ""))
        raw.config_set("maxmemory", "0")
        (bad,) = take(consumer, 1)
        assert (bad.value, bad.attempt) == ("bad", 3)
        bad.ack()
        consumer.flush()
        assert bus.stats().receiving[0].reconnects == 0


def acked_good(delivery: gearshift.Delivery[str]) -> bool:
    """Ack it if it is the good one."""
    if delivery.value == "good":
        delivery.ack()
    return delivery.outcome == "ack"


def test_a_wrong_password_is_told_without_it(
    open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error nor any log line holds what was tried."""
    caplog.set_level(logging.DEBUG)
    with Redis(settings={"requirepass": "right-secret"}) as locked:
        url = locked.url.replace("redis://", "redis://:{}@")
        with pytest.raises(errors.AuthenticationFailed) as caught:
            open_bus(url=url.format("wrong-secret")).producer(name)
        with pytest.raises(errors.AuthenticationFailed):
            open_bus(url=locked.url).producer(name)
        bus = open_bus(url=url.format("right-secret"))
        bus.producer(name).send(1)
        assert ack_all(take(bus.consumer(name, group="g"), 1)) == [1]
        texts = [str(caught.value), repr(bus), caplog.text]
    assert not [text for text in texts if "wrong-secret" in text or "right-secret" in text]


def test_a_key_of_another_type_is_a_conflict(open_bus: OpenBus, raw: Client, name: str) -> None:
    """What somebody else keeps under a channel's name is not overwritten."""
    raw.set(f"gearshift:{{{name}}}:groups", "theirs")
    with pytest.raises(errors.TopologyConflict, match="something else"):
        open_bus().producer(name)
    assert raw.get(f"gearshift:{{{name}}}:groups") == b"theirs"


def test_a_group_that_is_deleted_underneath_is_made_again(
    open_bus: OpenBus, raw: Client, name: str
) -> None:
    """A consumer whose stream is gone does not wait for ever: it goes on with what is sent then."""
    bus = open_bus()
    producer, consumer = bus.producer(name), bus.consumer(name, group="g")
    raw.delete(f"gearshift:{{{name}}}:stream:g")
    producer.send("kept")
    assert ack_all(take(consumer, 1)) == ["kept"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"url": "http://localhost"}, "url: unknown scheme 'http', expected redis"),
        ({"url": "redis://localhost/orders"}, "not the number of a database"),
        ({"url": "redis://:a@localhost", "password": "b"}, "password: given in url too"),
        ({"lease_s": 0.1}, "lease_s: 0.1 is out of range"),
        ({"timeout_s": 60.0}, "timeout_s: 60.0 is out of range"),
        ({"tls_ca_file": "ca.pem"}, "tls_ca_file: only used with TLS"),
        ({"tls_insecure_skip_verify": True}, "only used with TLS, write the url as rediss"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, object], reason: str) -> None:
    """Each names its field and what to do, before any connection."""
    with pytest.raises(ValueError, match=reason):
        Settings(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stream: is empty"):
        ChannelSettings(stream="")


def test_a_frozen_server_is_silent_for_a_sender_too(
    redis: Redis, open_bus: OpenBus, name: str
) -> None:
    """From its last word on, not from when the client gave up waiting; then they heal."""
    bus = open_bus(profile="timeout_s = 1.0")
    producer = bus.producer(name)
    producer.send(1)
    redis.pause()
    try:
        sending = producer.submit(2, timeout_s=60)
        assert until(lambda: bus.stats().sending[0].disconnected)
        silent_s = bus.stats().sending[0].silent_s
    finally:
        redis.resume()
    assert silent_s >= 1.0
    assert sending.result(90)
    assert until(lambda: bus.stats().sending[0].silent_s == 0.0)


def test_a_killed_server_brings_every_retry_back(open_bus: OpenBus, name: str) -> None:
    """Retries that wait, and those that were in hand, survive SIGKILL, each exactly counted."""
    with Redis() as broker:
        bus = open_bus("prefetch = 200", url=broker.url, profile="lease_s = 2")
        bus.producer(name).send_many(range(200))
        consumer = bus.consumer(name, group="g")
        for delivery in take(consumer, 200):
            if delivery.value % 2:
                delivery.retry(2.0)
        consumer.flush()
        broker.kill()
        broker.start()
        seen: dict[int, gearshift.Delivery] = {}
        while len(seen) < 200:
            for delivery in take(consumer, 1):
                seen[delivery.value] = delivery
                delivery.ack()
        assert all(seen[n].attempt == (2 if n % 2 else 1) for n in seen)
        assert all(delivery.redelivered for delivery in seen.values())
