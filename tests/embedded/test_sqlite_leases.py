"""Leases, keys and retention of SQLite, on a clock that a test moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gearshift.driver import QueueDriver, Settlement, Start, StartAt, Verdict
from gearshift.embedded.sqlite.backend import SqliteBackend
from gearshift.errors import ConnectionFailed, StaleDelivery
from gearshift.message import Semantics

from .drivers import (
    LEASE_S,
    Clock,
    Events,
    ack,
    bodies,
    consumer_spec,
    declared,
    publish,
    sqlite_backend,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(database: Path, clock: Clock) -> Iterator[SqliteBackend]:
    made = sqlite_backend(database, clock)
    yield made
    made.close()


def serve(driver: QueueDriver, until: Callable[[], object]) -> None:
    """What the pump does while handlers are slow: serve the connection and fetch nothing."""
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        driver.receive(0, 0.02)


def lease_until(backend: SqliteBackend) -> float:
    row = backend._store.write(
        lambda tx: tx.db.execute("SELECT MAX(lease_until) FROM member").fetchone()
    )
    return float(row[0])


def test_a_lease_is_renewed_while_a_handler_is_slow(backend: SqliteBackend, clock: Clock) -> None:
    """Many leases long nothing is fetched or settled; the message stays with its consumer."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["slow"], key=None)
    slow = backend.queue_consumer(consumer_spec(spec, "slow"))
    (held,) = slow.receive(1, 10)
    for _ in range(5):
        clock.now += LEASE_S * 0.9
        serve(slow, lambda: lease_until(backend) == clock.now + LEASE_S)
    other = backend.queue_consumer(consumer_spec(spec, "other"))
    assert other.receive(1, 0.3) == ()
    assert slow.settle([ack(held)]) == []
    slow.close(0)
    other.close(0)


def test_what_was_held_past_its_lease_is_stale_and_settles_nothing(
    backend: SqliteBackend, clock: Clock
) -> None:
    """The silent one's ack, retry and release fail; the message stays with its new holder."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    silent = backend.queue_consumer(consumer_spec(spec, "silent"))
    (lost,) = silent.receive(1, 10)
    clock.now += LEASE_S + 1
    other = backend.queue_consumer(consumer_spec(spec, "other"))
    assert len(silent.settle([ack(lost)])) == 1  # also while nobody has it
    (held,) = other.receive(1, 10)
    assert (lost.attempt, held.attempt, held.redelivered) == (1, 2, True)
    for verdict in (Verdict.ACK, Verdict.RETRY, Verdict.RELEASE, Verdict.DISCARD):
        (failure,) = silent.settle([Settlement(lost.token, verdict)])
        assert failure.token == lost.token
        assert isinstance(failure.error, StaleDelivery)
    (status,) = backend.admin().groups(spec)
    assert (status.in_flight, status.ready) == (1, 0)
    assert other.settle([ack(held)]) == []
    with pytest.raises(Exception, match="nothing was heard of this consumer") as caught:
        serve(silent, lambda: False)
    assert isinstance(backend.classify(caught.value), ConnectionFailed)
    silent.close(0)
    other.close(0)


def test_one_token_settles_one_handing_out(backend: SqliteBackend) -> None:
    """The same message handed out again to the same consumer needs its new token."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 10)
    assert consumer.settle([Settlement(first.token, Verdict.RETRY)]) == []
    (second,) = consumer.receive(1, 10)
    assert second.attempt == 2
    assert len(consumer.settle([ack(first)])) == 1
    assert [len(consumer.settle([ack(second), ack(second)]))] == [1]
    consumer.close(0)


def test_a_key_that_waits_holds_back_its_own_messages_only(backend: SqliteBackend) -> None:
    """Thousands of messages of a held key in front do not keep others from being claimed."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, [f"hot{n}" for n in range(3000)], key="hot")
    publish(backend, spec, ["cool"], key="cool")
    holder = backend.queue_consumer(consumer_spec(spec, "holder"))
    (held,) = holder.receive(1, 10)
    other = backend.queue_consumer(consumer_spec(spec, "other"))
    assert bodies(other.receive(1, 10)) == ["cool"]
    assert other.receive(5, 0.3) == ()
    holder.settle([ack(held)])
    assert bodies(other.receive(2, 10)) == ["hot1", "hot2"]
    holder.close(0)
    other.close(0)


def test_a_key_waits_for_its_retry(backend: SqliteBackend, clock: Clock) -> None:
    """Until the delay is over nobody gets a later message of that key; then they come in order."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["a1", "a2"], key="a")
    publish(backend, spec, ["b1"], key="b")
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 10)
    consumer.settle([Settlement(first.token, Verdict.RETRY, 60.0)])
    assert bodies(consumer.receive(5, 10)) == ["b1"]
    assert consumer.receive(5, 0.3) == ()
    clock.now += 61
    again = consumer.receive(5, 10)
    assert bodies(again) == ["a1", "a2"]
    assert [incoming.attempt for incoming in again] == [2, 1]
    consumer.close(0)


def test_a_consumer_that_could_not_say_goodbye_is_put_out_all_the_same(
    backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work returns to the next member at once, uncounted, not only when its lease is over."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    first = backend.queue_consumer(consumer_spec(spec, "first"))
    assert len(first.receive(1, 10)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(backend._store, "write", _busy)
        with pytest.raises(OSError, match="busy"):
            first.close(0)
    second = backend.queue_consumer(consumer_spec(spec, "second"))
    (again,) = second.receive(1, 10)
    assert (again.attempt, again.redelivered) == (1, True)
    second.close(0)


def _busy(*_: object) -> None:
    raise OSError("busy")


def test_a_silent_owner_loses_its_partitions_and_is_told(
    backend: SqliteBackend, clock: Clock
) -> None:
    """Another member takes over at the committed positions; late commits of the first are void."""
    spec = declared(backend, Semantics.STREAM, partitions=1)
    publish(backend, spec, ["0", "1", "2", "3"], key="k")
    events = Events()
    silent = backend.log_consumer(consumer_spec(spec, "silent"), events)
    assert bodies(silent.receive(3, 10)) == ["0", "1", "2"]
    silent.commit({0: 1})
    clock.now += LEASE_S + 1
    other = backend.log_consumer(consumer_spec(spec, "other"), Events())
    assert bodies(other.receive(10, 10)) == ["1", "2", "3"]
    other.commit({0: 2})
    silent.commit({0: 4})
    silent.receive(0, 0)
    assert events.told == [("assigned", (0,)), ("lost", (0,))]
    (status,) = backend.admin().groups(spec)
    assert status.lag == 2
    silent.close(0)
    other.close(0)


def test_a_partition_is_handed_over_with_its_position(backend: SqliteBackend) -> None:
    """A second member gets its share once the first has let go; nothing is read twice."""
    spec = declared(backend, Semantics.STREAM, partitions=2)
    events = Events()
    first = backend.log_consumer(consumer_spec(spec, "first"), events)
    for key in "abcdefgh":
        publish(backend, spec, [key], key=key)
    got = {incoming.position: incoming for incoming in first.receive(100, 10)}
    assert len(got) == 8
    assert events.told == [("assigned", (0, 1))]
    events.positions = {
        p: 1 + max(position.offset for position in got if position.partition == p) for p in (0, 1)
    }
    second_events = Events()
    second = backend.log_consumer(consumer_spec(spec, "second"), second_events)
    assert list(second.receive(100, 0)) == []
    first.receive(0, 0)
    moved = events.told[-1]
    assert moved[0] == "revoked"
    assert list(second.receive(100, 0.5)) == []
    assert second_events.told == [("assigned", ()), ("assigned", moved[1])]
    first.close(0)
    second.close(0)


def test_retention_drops_what_is_too_old_and_nothing_else(
    backend: SqliteBackend, clock: Clock
) -> None:
    """A reader at the start begins with the first message that is young enough."""
    spec = declared(backend, Semantics.STREAM, partitions=1, retention_s=60.0)
    publish(backend, spec, ["old"], key="k")
    clock.now += 50
    publish(backend, spec, ["young"], key="k")
    reader = backend.log_consumer(consumer_spec(spec), Events())
    assert bodies(reader.receive(10, 10)) == ["old", "young"]
    clock.now += 20
    deadline = time.monotonic() + 30
    first = None
    while first != "young" and time.monotonic() < deadline:
        reader.seek(Start(StartAt.EARLIEST))
        first = bodies(reader.receive(10, 0.05))[0]
    assert first == "young"
    assert reader._store.resolve(Start(StartAt.EARLIEST), 0) == 1  # type: ignore[attr-defined]
    reader.close(0)
