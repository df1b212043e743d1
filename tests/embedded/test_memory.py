"""What is special to the memory backend: bounded, strict about prefetch, gone with its bus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gearshift
from gearshift import errors
from gearshift.driver import ConsumerSpec, Settlement, SettleRequest, Stored
from gearshift.embedded.memory.group import Entry, Group, Hand, Shared
from gearshift.embedded.memory.settings import Settings
from gearshift.message import Message, Semantics

from .drivers import Clock, Events, ack, bodies, consumer_spec, declared, memory_backend, publish


@pytest.mark.parametrize("semantics", list(Semantics))
def test_a_full_channel_refuses_what_it_has_no_room_for(semantics: Semantics) -> None:
    """The first messages of a batch are stored, the others get PublishRefused, in order."""
    backend = memory_backend(Clock(), max_messages=3)
    spec = declared(backend, semantics)
    outcomes = publish(backend, spec, "abcde", key="k")
    stored = [outcome.stored for outcome in outcomes]
    assert stored == [Stored.YES] * 3 + [Stored.NO] * 2
    assert all(isinstance(outcome.error, errors.PublishRefused) for outcome in outcomes[3:])


def test_a_claim_looks_at_nothing_that_cannot_be_handed_out() -> None:
    """However many wait for their retry, for another consumer of their key, or behind one."""
    looked_at: list[int] = []

    class Counting(Group):
        def _give(self, entry: Entry, hand: Hand, now: float) -> bool:
            looked_at.append(entry.number)
            return super()._give(entry, hand, now)

    def add(number: int, key: str | None) -> None:
        group.add(Shared(Message(b"x", key), number, 0.0, 1))

    group, mine, other = Counting(), Hand(), Hand()
    for number in range(1000):
        add(number, None)
    for entry in group.claim(mine, 1000, 0.0)[0]:
        group.give_back(entry, 60.0, 0.0)
    for number in range(1000, 2000):
        add(number, "held")
    assert [entry.number for entry in group.claim(other, 1, 0.0)[0]] == [1000]
    group.claim(mine, 1, 0.0)  # finds none; from now on they wait for the other one
    add(2000, None)
    looked_at.clear()
    taken, due = group.claim(mine, 10, 1.0)
    assert [entry.number for entry in taken] == [2000]
    assert due == 60.0
    assert looked_at == [2000]


def test_a_queue_has_room_again_once_every_group_has_settled() -> None:
    """A message counts once, however many groups it waits for, until the last is done."""
    backend = memory_backend(Clock(), max_messages=1)
    spec = declared(backend, Semantics.QUEUE)
    backend.admin().declare(replace(spec, groups=("g", "h")))
    publish(backend, spec, ["m"], key=None)
    for group in ("g", "h"):
        assert publish(backend, spec, ["refused"], key=None)[0].stored is Stored.NO
        wanted = ConsumerSpec(channel=spec, group=group, member="m", prefetch=1)
        consumer = backend.queue_consumer(wanted)
        consumer.settle([ack(incoming) for incoming in consumer.receive(1, 10)])
        consumer.close(0)
    assert publish(backend, spec, ["fits"], key=None)[0].stored is Stored.YES


def test_a_full_stream_has_room_again_when_retention_is_over() -> None:
    """Without retention a full stream refuses for good; with it, until the oldest are too old."""
    clock = Clock()
    backend = memory_backend(clock, max_messages=1)
    spec = declared(backend, Semantics.STREAM, partitions=1, retention_s=60.0)
    publish(backend, spec, ["old"], key="k")
    refused = publish(backend, spec, ["refused"], key="k")[0].error
    assert isinstance(refused, errors.PublishRefused)
    assert refused.retryable
    clock.now += 61
    stored = publish(backend, spec, ["young"], key="k")[0]
    assert (stored.stored, stored.position.offset) == (Stored.YES, 1)
    reader = backend.log_consumer(consumer_spec(spec), Events())
    assert bodies(reader.receive(10, 10)) == ["young"]


def test_what_retention_has_taken_from_a_reader_is_told() -> None:
    """How many it has not read, when it reads on; not what it had read before."""
    clock = Clock()
    backend = memory_backend(clock)
    spec = declared(backend, Semantics.STREAM, partitions=1, retention_s=60.0)
    publish(backend, spec, "abc", key="k")
    events = Events()
    reader = backend.log_consumer(consumer_spec(spec), events)
    assert bodies(reader.receive(1, 10)) == ["a"]
    clock.now += 61
    publish(backend, spec, "d", key="k")
    assert bodies(reader.receive(10, 10)) == ["d"]
    reader.close(0)
    late = Events()
    reader = backend.log_consumer(consumer_spec(spec), late)
    assert bodies(reader.receive(10, 10)) == ["d"]
    assert [told for told in events.told + late.told if told[0] == "skipped"] == [
        ("skipped", (0, 2)),  # b and c
        ("skipped", (0, 3)),  # by what the group has committed, which is nothing
    ]


def test_the_driver_itself_never_exceeds_prefetch() -> None:
    """Asked for more than prefetch allows, it hands out what is left of it."""
    backend = memory_backend(Clock())
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, "abcde", key=None)
    wanted = ConsumerSpec(channel=spec, group="g", member="m", prefetch=2)
    consumer = backend.queue_consumer(wanted)
    held = consumer.receive(10, 10)
    assert bodies(held) == ["a", "b"]
    assert consumer.receive(10, 0) == []
    consumer.settle([ack(held[0])])
    assert bodies(consumer.receive(10, 10)) == ["c"]


def test_a_wall_clock_that_jumps_moves_no_retry() -> None:
    """Forwards it does not come sooner, backwards not later."""
    clock, uptime = Clock(), Clock()
    backend = memory_backend(clock, uptime=uptime)
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 0)
    consumer.settle([SettleRequest(first.token, Settlement.RETRY, 60.0)])
    clock.now += 3600
    assert consumer.receive(1, 0) == []
    clock.now -= 7200
    uptime.now += 61
    assert bodies(consumer.receive(1, 0)) == ["m"]
    consumer.close(0)


def test_a_delayed_message_comes_when_it_is_due() -> None:
    """Not before its delay is over, and then ahead of what is younger."""
    clock = Clock()
    backend = memory_backend(clock)
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, "ab", key=None)
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 10)
    consumer.settle([SettleRequest(first.token, Settlement.RETRY, 60.0)])
    clock.now += 59
    (second,) = consumer.receive(10, 10)
    assert bodies([second]) == ["b"]
    consumer.settle([SettleRequest(second.token, Settlement.RETRY)])
    clock.now += 1
    again = consumer.receive(10, 10)
    assert bodies(again) == ["a", "b"]
    assert [incoming.attempt for incoming in again] == [2, 2]


def test_a_deleted_channel_says_so_to_those_who_use_it() -> None:
    """Consumer and producer get UnknownChannel; a late settle is stale."""
    backend = memory_backend(Clock())
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    consumer = backend.queue_consumer(consumer_spec(spec))
    producer = backend.producer(spec)
    (held,) = consumer.receive(1, 10)
    backend.admin().delete(spec)
    with pytest.raises(errors.UnknownChannel):
        consumer.receive(1, 10)
    assert [type(f.error) for f in consumer.settle([ack(held)])] == [errors.StaleDelivery]
    outcomes: list = []
    producer.submit([held.message], outcomes.extend)
    assert [type(outcome.error) for outcome in outcomes] == [errors.UnknownChannel]
    consumer.close(0)


def test_two_buses_do_not_meet(tmp_path: Path) -> None:
    """Each bus has channels of its own, which end with it."""
    file = tmp_path / "gearshift.toml"
    file.write_text('profile = "p"\n[profiles.p]\nbackend = "memory"\n')
    with gearshift.open(file) as one, gearshift.open(file) as two:
        one.producer("c").send(1)
        assert two.consumer("c").receive(timeout_s=0.1) == []
        assert [d.value for d in one.consumer("c").receive(timeout_s=30)] == [1]


def test_a_bound_below_one_is_refused() -> None:
    """The text names the setting and its value."""
    with pytest.raises(ValueError, match="max_messages: must be at least 1, got 0"):
        Settings(max_messages=0)
