"""Leases, keys and retention of SQLite, on a clock that a test moves."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gearshift.driver import (
    ChannelSpec,
    ConsumerSpec,
    LogDriver,
    Place,
    QueueDriver,
    Received,
    Settlement,
    SettleRequest,
    Start,
    StartAt,
)
from gearshift.embedded.sqlite import queue
from gearshift.embedded.sqlite.backend import Backend
from gearshift.errors import ConnectionFailed, StaleDelivery
from gearshift.message import Message, Semantics

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
def backend(database: Path, clock: Clock) -> Iterator[Backend]:
    made = sqlite_backend(database, clock)
    yield made
    made.close()


def serve(driver: QueueDriver | LogDriver, until: Callable[[], object]) -> None:
    """What the pump does while handlers are slow: serve the connection and fetch nothing."""
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        driver.receive(0, 0.02)


def lease_until(backend: Backend) -> float:
    row = backend._store.write(
        lambda tx: tx.db.execute("SELECT MAX(renewed_at + lease_s) FROM member").fetchone()
    )
    return float(row[0])


def test_a_lease_is_renewed_while_a_handler_is_slow(backend: Backend, clock: Clock) -> None:
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
    backend: Backend, clock: Clock
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
    for settlement in (Settlement.ACK, Settlement.RETRY, Settlement.RELEASE, Settlement.DISCARD):
        (failure,) = silent.settle([SettleRequest(lost.token, settlement)])
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


def test_a_lease_that_nobody_else_has_ended_goes_on(backend: Backend, clock: Clock) -> None:
    """A consumer that could not renew it in time keeps its work: it puts itself out no more."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["slow"], key=None)
    slow = backend.queue_consumer(consumer_spec(spec, "slow"))
    (held,) = slow.receive(1, 10)
    clock.now += LEASE_S + 1
    serve(slow, lambda: lease_until(backend) == clock.now + LEASE_S)
    assert slow.settle([ack(held)]) == []
    slow.close(0)


def test_partitions_that_nobody_else_has_taken_stay(backend: Backend, clock: Clock) -> None:
    """The same for a member of a stream's group."""
    spec, events = declared(backend, Semantics.STREAM), Events()
    slow = backend.log_consumer(consumer_spec(spec, "slow"), events)
    serve(slow, lambda: events.told)
    clock.now += LEASE_S + 1
    serve(slow, lambda: lease_until(backend) == clock.now + LEASE_S)
    assert [what for what, _ in events.told] == ["assigned"]
    slow.close(0)


def test_a_wall_clock_that_jumps_ends_no_lease(database: Path) -> None:
    """Forwards by an hour and back by two, a live consumer keeps its message."""
    clock, uptime = Clock(), Clock()
    backend = sqlite_backend(database, clock, uptime)
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    slow = backend.queue_consumer(consumer_spec(spec, "slow"))
    (held,) = slow.receive(1, 10)
    for jump_s in (3600, -7200):
        clock.now += jump_s
        other = backend.queue_consumer(consumer_spec(spec, "other"))
        assert other.receive(1, 0) == ()
        other.close(0)
    uptime.now += LEASE_S + 1
    other = backend.queue_consumer(consumer_spec(spec, "other"))
    assert bodies(other.receive(1, 10)) == ["m"]
    assert len(slow.settle([ack(held)])) == 1
    slow.close(0)
    other.close(0)
    backend.close()


def test_a_lease_from_before_the_machine_started_is_over(backend: Backend, clock: Clock) -> None:
    """The uptime begins again: who renewed a lease later than now is not of this start."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    before = backend.queue_consumer(consumer_spec(spec, "before"))
    assert bodies(before.receive(1, 10)) == ["m"]
    clock.now = 10.0
    after = backend.queue_consumer(consumer_spec(spec, "after"))
    assert bodies(after.receive(1, 10)) == ["m"]
    before.close(0)
    after.close(0)


def test_one_token_settles_one_handing_out(backend: Backend) -> None:
    """The same message handed out again to the same consumer needs its new token."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["m"], key=None)
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 10)
    assert consumer.settle([SettleRequest(first.token, Settlement.RETRY)]) == []
    (second,) = consumer.receive(1, 10)
    assert second.attempt == 2
    assert len(consumer.settle([ack(first)])) == 1
    assert [len(consumer.settle([ack(second), ack(second)]))] == [1]
    consumer.close(0)


def test_a_key_that_waits_holds_back_its_own_messages_only(backend: Backend) -> None:
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


def test_a_key_waits_for_its_retry(backend: Backend, clock: Clock) -> None:
    """Until the delay is over nobody gets a later message of that key; then they come in order."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["a1", "a2"], key="a")
    publish(backend, spec, ["b1"], key="b")
    consumer = backend.queue_consumer(consumer_spec(spec))
    (first,) = consumer.receive(1, 10)
    consumer.settle([SettleRequest(first.token, Settlement.RETRY, 60.0)])
    assert bodies(consumer.receive(5, 10)) == ["b1"]
    assert consumer.receive(5, 0.3) == ()
    clock.now += 61
    again = consumer.receive(5, 10)
    assert bodies(again) == ["a1", "a2"]
    assert [incoming.attempt for incoming in again] == [2, 1]
    consumer.close(0)


def steps_for_ten(backend: Backend, spec: ChannelSpec, consumer: QueueDriver) -> int:
    """How many steps SQLite takes to hand out and settle ten messages that are ready."""
    publish(backend, spec, [str(n) for n in range(10)], key="ready")
    with counted(backend, consumer) as counter:
        found = consumer.receive(10, 10)
        consumer.settle([ack(one) for one in found])
    assert bodies(found) == [str(n) for n in range(10)]
    return len(counter)


def test_what_is_not_due_yet_costs_a_claim_nothing(backend: Backend, clock: Clock) -> None:
    """SQLite takes the same steps for ten messages behind 20 delayed retries as behind 3,000."""
    spec = declared(backend, Semantics.QUEUE)
    consumer = backend.queue_consumer(consumer_spec(spec))
    steps: list[int] = []
    for count in (20, 2980):
        producer = backend.producer(spec)
        producer.submit([Message(b"later", f"{count}-{n}") for n in range(count)], lambda _: None)
        producer.close(30)
        failed = [
            incoming for _ in range(0, count, 1000) for incoming in consumer.receive(1000, 10)
        ]
        consumer.settle([SettleRequest(one.token, Settlement.RETRY, 3600.0) for one in failed])
        steps.append(steps_for_ten(backend, spec, consumer))
    assert steps[1] < steps[0] * 1.5
    clock.now += 3601
    assert len(consumer.receive(1000, 10)) == 1000
    consumer.close(0)


@pytest.mark.parametrize("waits_for", ["a retry", "another consumer"])
def test_what_stands_behind_a_waiting_message_costs_a_claim_nothing(
    backend: Backend, waits_for: str
) -> None:
    """SQLite takes the same steps for ten messages behind 20 of such a key as behind 3,000."""
    spec = declared(backend, Semantics.QUEUE)
    publish(backend, spec, ["0"], key="waits")
    holder = backend.queue_consumer(consumer_spec(spec, "holder"))
    (first,) = holder.receive(1, 10)
    if waits_for == "a retry":
        holder.settle([SettleRequest(first.token, Settlement.RETRY, 3600.0)])
    consumer = backend.queue_consumer(consumer_spec(spec))
    steps: list[int] = []
    for count in (20, 2980):
        publish(backend, spec, [str(n) for n in range(count)], key="waits")
        assert consumer.receive(10, 0) == ()
        steps.append(steps_for_ten(backend, spec, consumer))
    assert steps[1] < steps[0] * 1.5
    consumer.close(0)
    holder.close(0)


@pytest.mark.parametrize("name", ["_READY", "_ANYTHING", "_DUE", "_BRING_BACK"])
def test_a_claim_reads_indexes_only(backend: Backend, name: str) -> None:
    """No statement of it looks through the table or sorts; _DUE reads the rows that it changes."""
    statement = getattr(queue, name)
    parameters = dict.fromkeys(["1", "2", "3"], 1) if "?1" in statement else (1, 1.0)
    plan = backend._store.write(
        lambda tx: tx.db.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    )
    steps = [str(row[-1]) for row in plan]
    assert any(" work_" in step for step in steps)
    assert not [step for step in steps if "TEMP B-TREE" in step]
    reads = [step for step in steps if "work" in step or "other" in step]
    index = "INDEX work_" if name == "_DUE" else "COVERING INDEX work_"
    searched = (index, "PRIMARY KEY (grp=? AND id=?)")
    assert [step for step in reads if not any(how in step for how in searched)] == []


@pytest.mark.parametrize("seed", range(5))
def test_keys_keep_their_order_whatever_happens_to_their_messages(
    database: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Nothing passes an unsettled message of its key, and what may be claimed is found."""
    clock = Clock()
    backend = sqlite_backend(database, clock, uptime=Clock())
    monkeypatch.setattr(queue, "_LEFT_READY", 2)
    monkeypatch.setattr(queue, "_MOST_ASIDE", 3)
    spec = declared(backend, Semantics.QUEUE)
    model = _Model(random.Random(seed), clock)
    consumers = {name: backend.queue_consumer(consumer_spec(spec, name)) for name in "xyz"}
    for _ in range(400):
        name = model.random.choice("xyz")
        match model.random.choice(["send", "claim", "claim", "settle", "wait", "restart"]):
            case "send":
                key = model.random.choice("abc")
                publish(backend, spec, model.sent(key, model.random.randrange(1, 8)), key=key)
            case "claim":
                model.claimed(name, consumers[name].receive(model.random.randrange(1, 6), 0))
            case "settle":
                ways = ["keep", "ack", "ack", "release", "retry"]
                consumers[name].settle(model.requests(name, ways))
            case "wait":
                clock.now += model.random.choice([1.0, 10.0])
            case "restart" if model.random.random() < 0.3:
                consumers[name].close(0)
                model.requests(name, ["release"])
                consumers[name] = backend.queue_consumer(consumer_spec(spec, name))
    while model.left:
        clock.now += 100.0
        for name in "xyz":
            model.claimed(name, consumers[name].receive(100, 0))
            consumers[name].settle(model.requests(name, ["ack"]))
    for consumer in consumers.values():
        consumer.close(0)
    backend.close()


class _Model:
    """What is left, in order: who has it (None: nobody), and when it is due."""

    def __init__(self, random: random.Random, clock: Clock) -> None:
        self.random = random
        self.left: dict[str, tuple[str | None, float]] = {}
        self._clock = clock
        self._held: dict[str, list[Received]] = {name: [] for name in "xyz"}
        self._sent = 0

    def sent(self, key: str, count: int) -> list[str]:
        names = [f"{key}{self._sent + n}" for n in range(count)]
        self._sent += count
        self.left.update(dict.fromkeys(names, (None, 0.0)))
        return names

    def claimed(self, name: str, found: Sequence[Received]) -> None:
        """Each was the next of its key; none is only right if none might have come."""
        if not found:
            assert [one for one in self.left if self._may_come(one, name)] == []
        for one in found:
            (body,) = bodies([one])
            assert self._may_come(body, name)
            self.left[body] = (name, 0.0)
            self._held[name].append(one)

    def requests(self, name: str, ways: Sequence[str]) -> list[SettleRequest]:
        """Of what it holds, each in one of these ways."""
        held, self._held[name] = self._held[name], []
        settled = []
        for one in held:
            (body,) = bodies([one])
            match self.random.choice(ways):
                case "keep":
                    self._held[name].append(one)
                case "ack":
                    settled.append(ack(one))
                    del self.left[body]
                case "release":
                    settled.append(SettleRequest(one.token, Settlement.RELEASE))
                    self.left[body] = (None, 0.0)
                case "retry":
                    settled.append(SettleRequest(one.token, Settlement.RETRY, 5.0))
                    self.left[body] = (None, self._clock.now + 5.0)
        return settled

    def _may_come(self, body: str, name: str) -> bool:
        mates = [mate for mate in self.left if mate[0] == body[0]]
        return (
            self.left[body][0] is None
            and all(self.left[mate][0] in (None, name) for mate in mates)
            and all(self.left[mate][1] <= self._clock.now for mate in mates)
            and all(self.left[mate][0] == name for mate in mates[: mates.index(body)])
        )


@contextlib.contextmanager
def counted(backend: Backend, consumer: QueueDriver) -> Iterator[list[None]]:
    """An element for every ten instructions that SQLite executes meanwhile."""
    counter: list[None] = []
    databases = [backend._store.write(lambda tx: tx.db), consumer._db]  # type: ignore[attr-defined]
    for db in databases:
        db.set_progress_handler(lambda: counter.append(None), 10)
    yield counter
    for db in databases:
        db.set_progress_handler(None, 0)


def test_a_consumer_that_could_not_say_goodbye_is_put_out_all_the_same(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
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


def test_a_silent_owner_loses_its_partitions_and_is_told(backend: Backend, clock: Clock) -> None:
    """Another member takes over at the committed positions; late commits of the first are void."""
    spec = declared(backend, Semantics.STREAM, partitions=1)
    publish(backend, spec, ["0", "1", "2", "3"], key="k")
    events = Events()
    silent = backend.log_consumer(consumer_spec(spec, "silent"), events)
    assert bodies(silent.receive(3, 10)) == ["0", "1", "2"]
    silent.commit({0: Place(1)})
    clock.now += LEASE_S + 1
    other = backend.log_consumer(consumer_spec(spec, "other"), Events())
    assert bodies(other.receive(10, 10)) == ["1", "2", "3"]
    other.commit({0: Place(2)})
    silent.commit({0: Place(4)})
    silent.receive(0, 0)
    assert events.told == [("assigned", (0,)), ("lost", (0,))]
    (status,) = backend.admin().groups(spec)
    assert status.lag == 2
    silent.close(0)
    other.close(0)


def test_a_partition_is_handed_over_with_its_position(backend: Backend) -> None:
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
        p: Place(1 + max(position.offset for position in got if position.partition == p))
        for p in (0, 1)
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


def test_retention_drops_what_is_too_old_and_nothing_else(backend: Backend, clock: Clock) -> None:
    """A reader at the start begins with the first message that is young enough, and is told."""
    spec = declared(backend, Semantics.STREAM, partitions=1, retention_s=60.0)
    late = ConsumerSpec(channel=spec, group="late", member="m", prefetch=9)
    backend.log_consumer(late, Events()).close(0)
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
    assert reader._member.offset_of(Start(StartAt.EARLIEST), 0) == 1  # type: ignore[attr-defined]
    reader.close(0)
    events = Events()
    reader = backend.log_consumer(late, events)
    assert bodies(reader.receive(10, 10)) == ["young"]
    assert events.told == [("assigned", (0,)), ("skipped", (0, 1))]
    reader.close(0)
