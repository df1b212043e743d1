"""The publish buffer, over a driver that reports what a test tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.waiting import until

from gearshift import errors
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift._core.reconnect import Pauses
from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift.message import Message, Position, Receipt


class Lost(Exception):
    """The broker's client: the connection is gone."""


class Gone(Exception):
    """The broker's client: there is no such channel."""


class Nacked(Exception):
    """The broker's client: the broker said no."""


class Backend:
    """As much of a Backend as ErrorTranslator needs."""

    def classify(self, error: Exception) -> errors.GearshiftError | None:
        if isinstance(error, Lost):
            return errors.ConnectionFailed(f"lost: {error}")
        if isinstance(error, Gone):
            return errors.UnknownChannel("gone")
        if isinstance(error, Nacked):
            return errors.PublishRefused("nacked")
        return None


@dataclass
class Driver:
    """Takes everything and reports only when told to."""

    taken: list[tuple[Message, OnOutcomes, int]] = field(default_factory=list)
    reason: str | None = None
    closed: bool = False
    open: int = 0
    heard_at: float | None = None
    ended: Exception | None = None
    serving: Callable[[], object] = lambda: None

    def submit_served(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self.submit(messages, on_outcomes)

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        self.serving()

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        for number, message in enumerate(messages):
            self.taken.append((message, on_outcomes, number))
            self.open += 1

    def report(
        self, index: int, stored: Stored = Stored.YES, error: Exception | None = None
    ) -> None:
        message, on_outcomes, number = self.taken[index]
        position = Position(0, index) if stored is Stored.YES else None
        self.open -= 1
        self.taken[index] = (message, lambda _: None, number)
        on_outcomes([Outcome(number, stored, position, error)])

    def report_all(self, stored: Stored = Stored.YES, error: Exception | None = None) -> None:
        for index in range(len(self.taken)):
            self.report(index, stored, error)

    def bodies(self) -> list[bytes | None]:
        return [message.body for message, _, _ in self.taken]

    def blocked(self) -> str | None:
        return self.reason

    def close(self, timeout_s: float) -> None:
        if not self.closed:
            self.closed = True
            self.report_all(Stored.UNKNOWN, Lost("closed"))


@dataclass
class World:
    """An buffer, the drivers that it was given so far, and its clock."""

    now: float = 0.0
    drivers: list[Driver] = field(default_factory=list)
    refusing: Exception | None = None

    def connect(self) -> Any:
        if self.refusing is not None:
            raise self.refusing
        self.drivers.append(Driver())
        return self.drivers[-1]

    def buffer(self, **bounds: Any) -> PublishBuffer:
        failures = ErrorTranslator(Backend(), "fake", "c")  # type: ignore[arg-type]
        return PublishBuffer(self.connect, failures, clock=lambda: self.now, **bounds)

    @property
    def driver(self) -> Driver:
        return self.drivers[-1]

    def reconnected(self, times: int = 1) -> Driver:
        """Wait for the driver after ``times`` reconnects to have been given what was open."""
        assert until(lambda: len(self.drivers) > times)
        return self.drivers[times]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def buffer(world: World) -> Iterator[PublishBuffer]:
    made = world.buffer()
    yield made
    world.refusing = None
    made.close(0.0)


def batch(*bodies: str, deadline: float = 100.0, on_done: Any = None) -> Batch:
    messages = [Message(body.encode(), id=f"id-{body}") for body in bodies]
    return Batch(messages, deadline, on_done)


def put(buffer: PublishBuffer, *bodies: str, deadline: float = 100.0) -> Batch:
    made = batch(*bodies, deadline=deadline)
    buffer.put(made)
    return made


# ── results ──


def test_each_message_gets_the_result_of_its_own_outcome(
    world: World, buffer: PublishBuffer
) -> None:
    """Outcomes come in any order and grouping; results stand in the order of the messages."""
    sent = put(buffer, "a", "b", "c")
    world.driver.report(2)
    world.driver.report(0, Stored.NO, Nacked())
    assert not sent.is_finished
    world.driver.report(1)
    first, second, third = buffer.wait(sent)
    assert isinstance(first, errors.PublishRefused)
    assert isinstance(first.__cause__, Nacked)
    assert second == Receipt("id-b", "c", Position(0, 1))
    assert third == Receipt("id-c", "c", Position(0, 2))
    assert buffer.in_flight == 0


def test_a_callback_runs_once_when_all_results_are_there(
    world: World, buffer: PublishBuffer
) -> None:
    """One that raises stops neither the next callback nor the buffer."""
    ended: list[Batch] = []
    done = threading.Event()

    def fail(_: Batch) -> None:
        raise ZeroDivisionError

    bad = batch("bad", on_done=fail)
    good = batch("x", "y", on_done=lambda each: (ended.append(each), done.set()))
    buffer.put(bad)
    buffer.put(good)
    world.driver.report(0)
    world.driver.report(1)
    assert not done.wait(0.05)
    world.driver.report(2)
    assert done.wait(20)
    assert ended == [good]


def test_who_waits_works_for_the_driver(world: World, buffer: PublishBuffer) -> None:
    """A result that the waiting thread brings itself needs no other thread; one that is there,
    not even that."""
    sent = put(buffer, "a")
    served: list[threading.Thread] = []

    def serve() -> None:
        served.append(threading.current_thread())
        world.driver.report_all()

    world.driver.serving = serve
    for _ in range(2):
        assert buffer.wait(sent) == [Receipt("id-a", "c", Position(0, 0))]
    assert served == [threading.current_thread()]
    assert sent.waiter is None


# ── a lost connection, a channel that is gone ──


def test_a_channel_that_is_gone_is_made_sure_of_before_the_message_is_sent_again(
    world: World,
) -> None:
    """While that fails, a send ends at its deadline with what is missing; nothing is stored."""
    there = threading.Event()

    def declare() -> None:
        if not there.is_set():
            raise Gone

    buffer = world.buffer(on_reconnect=declare)
    early, late = put(buffer, "early", deadline=10.0), put(buffer, "late")
    world.driver.report_all(Stored.NO, Gone())
    world.now = 10.0
    (result,) = buffer.wait(early)
    assert isinstance(result, errors.UnknownChannel)
    there.set()
    renewed = world.reconnected()
    assert until(lambda: renewed.bodies() == [b"late"])
    renewed.report(0)
    assert buffer.wait(late) == [Receipt("id-late", "c", Position(0, 0))]
    buffer.close(0.0)


def test_what_is_unconfirmed_is_sent_again_in_order_under_the_same_ids(
    world: World, buffer: PublishBuffer
) -> None:
    """Confirmed and refused messages are not; the others keep their order over all batches."""
    first, second = put(buffer, "a", "b", "c"), put(buffer, "d", "e")
    world.driver.report(1)
    world.driver.report(3, Stored.NO, Nacked())
    world.driver.report(0, Stored.UNKNOWN, Lost("cut"))
    renewed = world.reconnected()
    assert until(lambda: len(renewed.taken) == 3)
    assert renewed.bodies() == [b"a", b"c", b"e"]
    assert [message.id for message, _, _ in renewed.taken] == ["id-a", "id-c", "id-e"]
    assert world.drivers[0].closed
    renewed.report_all()
    results = [*buffer.wait(first), *buffer.wait(second)]
    assert [isinstance(result, Receipt) for result in results] == [True, True, True, False, True]
    assert [result.resent for result in results if isinstance(result, Receipt)] == (
        [True, False, True, True]
    )


def test_what_comes_during_the_outage_waits_and_follows(
    world: World, buffer: PublishBuffer
) -> None:
    """A sender blocks while there is no connection; its batch goes after those before it."""
    before = put(buffer, "before")
    world.refusing = Lost("down")
    world.driver.report(0, Stored.UNKNOWN, Lost("cut"))
    later = batch("later")
    sender = threading.Thread(target=buffer.put, args=(later,))
    sender.start()
    time.sleep(0.05)
    assert not later.is_finished
    world.refusing = None
    sender.join(20)
    renewed = world.reconnected()
    assert until(lambda: len(renewed.taken) == 2)
    assert renewed.bodies() == [b"before", b"later"]
    renewed.report_all()
    assert all(isinstance(buffer.wait(each)[0], Receipt) for each in (before, later))


# ── deadlines ──


def test_the_deadline_of_what_a_driver_has_leaves_the_outcome_unknown(
    world: World, buffer: PublishBuffer
) -> None:
    """The error carries the id, so that it can be sent again under it."""
    sent = put(buffer, "a", deadline=10.0)
    world.now = 10.0
    (result,) = buffer.wait(sent)
    assert isinstance(result, errors.OutcomeUnknown)
    assert result.message_id == "id-a"
    assert buffer.in_flight == 0


def test_the_deadline_of_what_is_certainly_not_stored_says_so(
    world: World, buffer: PublishBuffer
) -> None:
    """No connection, nothing handed over without a NO: ConnectionFailed, with the reason."""
    sent = put(buffer, "a", deadline=10.0)
    world.refusing = Lost("down")
    world.driver.report(0, Stored.NO, Lost("no route"))
    world.now = 10.0
    (result,) = buffer.wait(sent)
    assert isinstance(result, errors.ConnectionFailed)
    assert "nothing is stored: fake/c: lost" in str(result)
    with pytest.raises(errors.ConnectionFailed, match="nothing is stored"):
        put(buffer, "b", deadline=10.0)


def test_a_driver_that_reports_nothing_for_long_is_replaced(
    world: World, buffer: PublishBuffer
) -> None:
    """Nothing confirmed for 45 s: what it holds is sent again through a new one."""
    put(buffer, "a", deadline=1000.0)
    world.now = 46.0
    renewed = world.reconnected()
    assert until(lambda: renewed.taken)
    assert renewed.bodies() == [b"a"]


def is_kept(buffer: PublishBuffer) -> bool:
    """Whether its driver is not taken for one that reports nothing."""
    buffer._supervisor.check()
    return buffer._supervisor.broken is None


def test_a_driver_whose_reports_come_slowly_is_kept(world: World, buffer: PublishBuffer) -> None:
    """A slow way to the broker: what is behind in a batch, or in the next, waits for long."""
    put(buffer, "a", "b", deadline=1000.0)
    put(buffer, "c", deadline=1000.0)
    for number, world.now in enumerate([40.0, 80.0, 120.0]):
        assert is_kept(buffer)
        world.driver.report(number)
        assert is_kept(buffer)


def test_a_large_message_has_the_time_that_it_takes(world: World, buffer: PublishBuffer) -> None:
    """A hundred thousand bytes more, a second more."""
    put(buffer, 1_000_000 * "a", deadline=1000.0)
    world.now = 54.0
    assert is_kept(buffer)
    world.now = 56.0
    assert world.reconnected()


def test_a_silence_is_counted_from_the_brokers_last_word(
    world: World, buffer: PublishBuffer
) -> None:
    """Not from when it was noticed, and over the loss of the connection."""
    put(buffer, "a")
    world.driver.heard_at = 1.0
    world.now = 5.0
    assert buffer.stats().silent_s == 4.0
    world.refusing = Lost("still away")
    world.driver.report_all(Stored.UNKNOWN, Lost("away"))
    assert until(lambda: "still away" in (buffer.stats().disconnected or ""))
    world.now = 20.0
    assert buffer.stats().silent_s == 19.0
    world.refusing = None
    world.reconnected().heard_at = 20.0
    assert until(lambda: buffer.stats().silent_s == 0.0)
    assert buffer.stats().disconnected is None


def test_a_driver_that_ended_with_nothing_in_hand_is_replaced(
    world: World, buffer: PublishBuffer
) -> None:
    """Before the next message comes, which so need not wait for a connection."""
    world.driver.ended = Lost("while nobody sent")
    renewed = world.reconnected()
    assert until(lambda: buffer.stats().disconnected is None)
    put(buffer, "a")
    assert renewed.bodies() == [b"a"]


def test_the_loss_and_the_return_of_the_connection_are_told_in_order(world: World) -> None:
    """Once each, with the reason of the loss."""
    told: list[tuple[str, object]] = []
    buffer = world.buffer(on_connection=lambda kind, error=None: told.append((kind, error)))
    world.driver.ended = Lost("cut")
    assert until(lambda: len(told) == 2)
    buffer.close(1.0)
    (lost, why), (back, nothing) = told
    assert (lost, back, nothing) == ("lost", "back", None)
    assert isinstance(why, errors.ConnectionFailed)


# ── bounds ──


@pytest.mark.parametrize("bounds", [{"max_in_flight": 2}, {"max_in_flight_bytes": 2}])
def test_a_full_window_blocks_and_raises_at_the_deadline(
    world: World, bounds: dict[str, int]
) -> None:
    """By count or by bytes: the refused batch reaches no driver, and room lets the next one in."""
    buffer = world.buffer(**bounds)
    put(buffer, "a", "b")
    with pytest.raises(errors.BackpressureError, match="2 messages") as caught:
        put(buffer, "c", deadline=0.0)
    assert caught.value.retryable
    waiting = threading.Thread(target=put, args=(buffer, "d"))
    waiting.start()
    world.driver.report_all()
    waiting.join(20)
    put(buffer, "e", deadline=0.0)
    assert world.driver.bodies() == [b"a", b"b", b"d", b"e"]
    buffer.close(0.0)


def test_a_blocked_broker_is_given_nothing_and_says_why(
    world: World, buffer: PublishBuffer
) -> None:
    """At the deadline BackpressureError has the broker's reason; afterwards it goes on."""
    world.driver.reason = "memory alarm"
    with pytest.raises(errors.BackpressureError, match="memory alarm"):
        put(buffer, "a", deadline=0.0)
    assert world.driver.taken == []
    waiting = threading.Thread(target=put, args=(buffer, "b"))
    waiting.start()
    world.driver.reason = None
    waiting.join(20)
    assert world.driver.bodies() == [b"b"]


def test_what_may_not_wait_is_taken_in_an_outage_and_refused_without_room(world: World) -> None:
    """As in an event loop: nothing blocks, whatever the deadline."""
    buffer = world.buffer(max_in_flight=2)
    world.driver.reason = "memory alarm"
    with pytest.raises(errors.BackpressureError, match="memory alarm"):
        buffer.put(batch("refused"), waits=False)
    world.driver.reason = None
    put(buffer, "before")
    world.refusing = Lost("down")
    world.driver.report(0, Stored.UNKNOWN, Lost("cut"))
    later = batch("later")
    buffer.put(later, waits=False)
    with pytest.raises(errors.BackpressureError, match="2 messages"):
        buffer.put(batch("too much"), waits=False)
    world.refusing = None
    renewed = world.reconnected()
    assert until(lambda: len(renewed.taken) == 2)
    renewed.report_all()
    assert isinstance(buffer.wait(later)[0], Receipt)
    buffer.close(0.0)


# ── the end ──


def test_flush_waits_for_every_result(world: World, buffer: PublishBuffer) -> None:
    """True once nothing is in flight, False when its time is up first."""
    put(buffer, "a")
    assert not buffer.flush(0.0)
    flushed: list[bool] = []
    waiting = threading.Thread(target=lambda: flushed.append(buffer.flush(20)))
    waiting.start()
    world.driver.report(0)
    waiting.join(20)
    assert flushed == [True]


def test_close_gives_everything_in_flight_one_result(world: World, buffer: PublishBuffer) -> None:
    """What is unconfirmed ends unknown; callbacks have run; a sender that waits gets Closed."""
    ended: list[Batch] = []
    sent = [batch(body, on_done=ended.append) for body in "abc"]
    for each in sent:
        buffer.put(each)
    world.driver.report(1)
    buffer.close(0.0)
    kinds = [type(each.results[0]) for each in sent]
    assert kinds == [errors.OutcomeUnknown, Receipt, errors.OutcomeUnknown]
    assert len(ended) == 3
    assert set(ended) == set(sent)
    assert world.driver.closed
    with pytest.raises(errors.Closed):
        put(buffer, "d")
    buffer.close(0.0)


def test_close_during_an_outage_ends_at_once(world: World, buffer: PublishBuffer) -> None:
    """Nobody waits for a broker that is not there; no thread is left."""
    sent = put(buffer, "a")
    world.refusing = Lost("down")
    world.driver.report(0, Stored.UNKNOWN, Lost("cut"))
    buffer.close(0.0)
    assert isinstance(sent.results[0], errors.OutcomeUnknown)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("gearshift-publish", "gearshift-rec"))]


def test_a_child_of_a_fork_is_refused(
    buffer: PublishBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection belongs to the parent."""
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(errors.Forked):
        put(buffer, "a")


# ── everything at once ──


class Machine(RuleBasedStateMachine):
    """Senders, outcomes, lost connections and deadlines in any order.

    Each message ends exactly once; a receipt means that some driver said YES; 'nothing is stored'
    means that none did and none may; drivers get what is open in the order of sending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pauses = mock.patch.object(Pauses, "next_s", return_value=0.0)
        self.pauses.start()
        self.world = World()
        self.buffer = self.world.buffer()
        self.number = 0
        self.ended: list[Batch] = []
        self.batches: list[Batch] = []
        self.said: dict[str, list[Stored]] = {}
        self.done: set[tuple[int, str | None]] = set()

    @rule(count=st.integers(1, 3), patience=st.sampled_from([5.0, 50.0]))
    def send(self, count: int, patience: float) -> None:
        bodies = [str(self.number + n) for n in range(count)]
        self.number += count
        made = batch(*bodies, deadline=self.world.now + patience, on_done=self.ended.append)
        self.buffer.put(made)
        self.batches.append(made)

    def _report(self, index: int, stored: Stored, error: Exception | None) -> None:
        driver = self.world.driver
        message = driver.taken[index][0]
        self.said.setdefault(str(message.id), []).append(stored)
        driver.report(index, stored, error)

    def _open(self) -> list[int]:
        """What the present driver has and has not reported on."""
        taken = self.world.driver.taken
        return [n for n, (message, _, _) in enumerate(taken) if self._key(message) not in self.done]

    def _key(self, message: Message) -> tuple[int, str | None]:
        return len(self.world.drivers), message.id

    @precondition(lambda self: self._open())
    @rule(data=st.data(), verdict=st.sampled_from(["yes", "nack", "no", "unknown"]))
    def outcome(self, data: st.DataObject, verdict: str) -> None:
        index = data.draw(st.sampled_from(self._open()))
        driver = self.world.driver
        self.done.add(self._key(driver.taken[index][0]))
        reconnects = self.buffer.stats().reconnects
        alive = driver.taken[index][0].id in self._unresolved()
        match verdict:
            case "yes":
                self._report(index, Stored.YES, None)
            case "nack":
                self._report(index, Stored.NO, Nacked())
            case "no":
                self._report(index, Stored.NO, Lost("no"))
            case "unknown":
                self._report(index, Stored.UNKNOWN, Lost("cut"))
        if verdict in ("no", "unknown") and alive:
            assert until(lambda: self.buffer.stats().reconnects > reconnects)

    def _unresolved(self) -> list[str | None]:
        return [each.messages[n].id for each in self.batches for n in each.unresolved()]

    @rule()
    def deadlines_pass(self) -> None:
        self.world.now += 10.0
        for each in self.batches:
            if each.deadline <= self.world.now:
                self.buffer.wait(each)

    @invariant()
    def results_are_true(self) -> None:
        for each in self.batches:
            for message, result in zip(each.messages, each.results, strict=True):
                said = self.said.get(str(message.id), [])
                if isinstance(result, Receipt):
                    assert Stored.YES in said
                elif isinstance(result, errors.ConnectionFailed | errors.PublishRefused):
                    assert set(said) == {Stored.NO}

    @invariant()
    def drivers_get_what_is_open_in_order(self) -> None:
        numbers = [int(body or b"") for body in self.world.driver.bodies()]
        assert numbers == sorted(numbers)
        assert len(numbers) == len(set(numbers))

    def teardown(self) -> None:
        self.buffer.close(0.0)
        self.pauses.stop()
        assert all(each.is_finished for each in self.batches)
        assert len(self.ended) == len(self.batches)
        assert set(self.ended) == set(self.batches)
        assert self.buffer.in_flight == 0


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_every_message_ends_once_and_truly = Machine.TestCase
