"""The window between users' threads and the consumer loop, on a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from support.waiting import PATIENCE_S, until

from gearshift import errors
from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.receivers import (
    IDLE_INTERVAL_S,
    SETTLE_INTERVAL_S,
    LogReceiver,
    QueueReceiver,
)
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.driver import Place, Received, SettleFailure, Settlement, SettleRequest
from gearshift.message import Message, Position
from gearshift.stats import ReceiveStats


class Driver:
    """Receives nothing, and remembers what it was asked and told."""

    cumulative_ack = False
    heard_at = None
    drained = None

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.woken = 0
        self.patience_s = 0.0
        self.failures: list[SettleFailure] = []
        self.on_settle: Callable[[], object] = lambda: None

    def skipped(self) -> int:
        return 0

    def wake(self) -> None:
        self.woken += 1

    def receive(self, max_messages: int, timeout_s: float) -> list[Received]:
        self.patience_s = timeout_s
        return []

    def commit(self, places: Mapping[int, Place]) -> None:
        self.places |= places

    def flush(self, timeout_s: float) -> bool:
        return True

    def settle(self, requests: Sequence[SettleRequest]) -> list[SettleFailure]:
        self.on_settle()
        return self.failures


class World:
    """A connected window, and both its sides."""

    def __init__(self, *, prefetch: int = 4, log: bool = False, **options: Any) -> None:
        self.now = 0.0
        self.driver: Any = Driver()
        self.window = DeliveryWindow(prefetch, **options)
        self.shared = SharedWindow(self.window, clock=lambda: self.now)
        self.users = UserSide(self.shared)
        self.queue = self.log = cast(Any, None)
        if log:
            self.log = LogReceiver(self.shared, lambda events: self.driver)
        else:
            self.queue = QueueReceiver(self.shared, lambda: self.driver)
        self.receiver = self.log or self.queue

    def arrive(self, *tokens: int) -> None:
        self.receiver.add([Received(Message(b"m"), n) for n in tokens])

    def read(self, *offsets: int, partition: int = 0) -> None:
        places = [Position(partition, offset) for offset in offsets]
        self.receiver.add([Received(Message(b"m"), place, place) for place in places])

    def take(self, most: int = 100) -> list[Entry]:
        return self.users.next(most, 0.0)


def tokens(entries: list[Entry]) -> list[Any]:
    return [entry.token for entry in entries]


# ── users ──


def test_waiting_users_get_what_arrives() -> None:
    """A call without a deadline ends when there is something."""
    world = World()
    got: list[Entry] = []
    waiting = threading.Thread(target=lambda: got.extend(world.users.next(1, None)))
    waiting.start()
    world.arrive(7)
    waiting.join(PATIENCE_S)
    assert tokens(got) == [7]
    assert tokens(world.users.in_hand()) == [7]


def test_acks_are_recorded_before_anything_depends_on_them() -> None:
    """By a count, statistics, a report, and the end of the connection; none is told twice."""
    looks: list[Callable[[World], object]] = [
        lambda world: world.users.unsettled,
        lambda world: world.users.in_hand(),
        lambda world: world.users.snapshot(),
        lambda world: world.receiver.report(),
        lambda world: world.shared.disconnected(),
    ]
    for look in looks:
        world = World(prefetch=8)
        world.arrive(1, 2, 3)
        for entry in world.take():
            world.users.ack(entry)
        assert world.window.has_news
        look(world)
        assert world.window.stats.settled == {"ack": 3}
        assert (world.users.unsettled, world.users.in_hand()) == (0, [])
        world.receiver.report()
        assert not world.window.has_news


def test_an_ack_that_somebody_waits_for_is_recorded_at_once() -> None:
    """By the next message of its key, and by a partition that is to be handed over."""
    world = World(serial_keys=True)
    world.receiver.add([Received(Message(b"m", "key"), number) for number in (1, 2)])
    (first,) = world.take()
    world.users.ack(first)
    assert tokens(world.take()) == [2]
    handed_over = World(log=True)
    handed_over.log.assigned([0])
    handed_over.read(5)
    (entry,) = handed_over.take()
    places: list[Any] = []
    revoking = threading.Thread(target=lambda: places.append(handed_over.log.revoked([0])))
    revoking.start()
    until(lambda: handed_over.shared.draining)
    handed_over.users.ack(entry)
    revoking.join(PATIENCE_S)
    assert places == [{0: 6}]


def test_an_ack_after_the_connection_has_gone_is_stale() -> None:
    """It comes again, and the acks of others count."""
    world = World()
    world.arrive(1, 2)
    one, other = world.take()
    world.users.ack(one)
    world.shared.disconnected()
    with pytest.raises(errors.StaleDelivery):
        world.users.ack(other)
    assert world.window.stats.settled == {"ack": 1}


def test_the_driver_is_woken_when_it_matters() -> None:
    """For half a window of news, and for whoever gets nothing while it waits for room."""
    world = World(prefetch=6)
    world.arrive(1, 2, 3, 4, 5)
    seen = []
    for entry in world.take():
        world.users.settle(entry, Settlement.ACK)
        seen.append(world.driver.woken)
    assert seen == [0, 0, 1, 1, 1]
    full = World(prefetch=6)
    full.arrive(1, 2, 3, 4, 5, 6)
    full.receiver.receive()
    entries = full.take()
    full.users.settle(entries[0], Settlement.ACK)
    assert full.driver.woken == 0
    full.take()
    assert full.driver.woken == 1


def test_the_loop_looks_up_sooner_while_something_is_unsettled_or_unreported() -> None:
    """So that settlements are told within 0.05 s."""
    world = World()

    def patience_s() -> float:
        world.receiver.receive()
        return float(world.driver.patience_s)

    assert patience_s() == IDLE_INTERVAL_S
    world.arrive(1)
    assert patience_s() == SETTLE_INTERVAL_S
    world.users.settle(world.take()[0], Settlement.ACK)
    assert patience_s() == SETTLE_INTERVAL_S
    world.receiver.report()
    assert patience_s() == IDLE_INTERVAL_S


def test_flush_waits_until_the_driver_was_told() -> None:
    """Not only until it is about to be; settlements that came too late are counted."""
    world = World()
    world.arrive(1)
    world.users.settle(world.take()[0], Settlement.ACK)
    assert not world.users.wait_settled(0.0)
    seen: list[bool] = []
    world.driver.on_settle = lambda: seen.append(world.users.wait_settled(0.0))
    world.driver.failures = [SettleFailure(1, TimeoutError())]
    world.receiver.report()
    assert seen == [False]
    assert world.users.wait_settled(0.0)
    assert world.users.snapshot().stale == 1


def test_forgotten_settlements_are_told_and_not_too_often(caplog: pytest.LogCaptureFixture) -> None:
    """Also to one that polls: who gets nothing, how many it has not settled and since when."""
    world = World(prefetch=2, stats=ReceiveStats(channel="orders", group="billing"))
    world.arrive(1, 2)
    held = world.take()
    told = []
    for now in (5.0, 12.0, 13.0, 60.0, 73.0):
        world.now = now
        assert world.take() == []
        told.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert [len(lines) for lines in told] == [0, 1, 0, 0, 1]
    assert "channel 'orders', group 'billing'" in told[1][0]
    assert "2 are unsettled and none was settled for 12 s" in told[1][0]
    assert world.users.snapshot().stalled_s == 73.0
    world.users.settle(held[0], Settlement.ACK)
    world.now = 200.0
    assert world.take() == []
    assert caplog.records == []


def test_closing_ends_every_waiting_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, also for the next ones; what is in hand can still be settled."""
    world = World()
    world.arrive(1, 2)
    (entry,) = world.take(1)
    raised: list[type] = []

    def wait() -> None:
        try:
            while True:
                world.users.next(1, None)
        except errors.Closed as error:
            raised.append(type(error))

    # It would look up then.
    monkeypatch.setattr("gearshift._core.consuming.user_side._WARN_STALLED_AFTER_S", 3600.0)
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert until(lambda: world.shared.window.isolation.asking)
    world.users.close()
    waiting.join(PATIENCE_S)
    assert raised == [errors.Closed]
    with pytest.raises(errors.Closed):
        world.take()
    world.users.settle(entry, Settlement.ACK)


def test_what_ended_the_loop_is_raised_by_every_call() -> None:
    """Not swallowed, and not only once."""
    world = World()
    world.shared.failed(errors.AuthenticationFailed("wrong password"))
    for _ in range(2):
        with pytest.raises(errors.AuthenticationFailed):
            world.take()
    with pytest.raises(errors.AuthenticationFailed):
        world.users.wait_ready(0.0)


def test_ready_means_assigned() -> None:
    """A queue is ready once connected, a log once it knows its partitions, even if none."""
    assert World().users.wait_ready(0.0)
    world = World(log=True)
    assert not world.users.wait_ready(0.0)
    world.log.assigned([])
    assert world.users.wait_ready(0.0)
    world.shared.disconnected()
    assert not world.users.wait_ready(0.0)


# ── partitions ──


def test_a_revoked_partition_gives_its_settled_prefix_and_nothing_more() -> None:
    """Undelivered messages vanish, and what was in hand is stale once it is gone."""
    world = World(log=True)
    world.log.assigned([0, 1])
    world.read(0, 1, 2, partition=0)
    world.read(0, partition=1)
    first = world.take(1)[0]
    world.users.settle(first, Settlement.ACK)
    assert world.log.revoked([0]) == {0: 1}
    assert world.shared.window.owned == {1}
    assert tokens(world.take()) == [Position(1, 0)]


def test_a_revocation_waits_for_what_is_being_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message settled meanwhile is committed; nobody is given another one."""
    monkeypatch.setattr("gearshift._core.consuming.receivers.REVOKE_DRAIN_S", PATIENCE_S)
    world = World(log=True)
    world.read(0, 1)
    (entry,) = world.take(1)
    positions: list[dict[int, int]] = []
    revoking = threading.Thread(target=lambda: positions.append(dict(world.log.revoked([0]))))
    revoking.start()
    assert until(lambda: not world.shared.window.key_order)  # nothing waits to be handed out
    world.users.settle(entry, Settlement.ACK)
    revoking.join(PATIENCE_S)
    assert positions == [{0: 1}]


def test_a_lost_partition_commits_nothing() -> None:
    """It belongs to somebody else already: in hand is stale."""
    world = World(log=True)
    world.read(0, 1)
    first, second = world.take()
    world.users.settle(first, Settlement.ACK)
    world.log.lost([0])
    assert world.shared.window.take(0.0).places == {}
    with pytest.raises(errors.StaleDelivery):
        world.users.settle(second, Settlement.ACK)


# ── handlers that hang ──


def test_what_is_in_hand_for_too_long_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its id, also while others get on, and on a log with what that means there."""
    world = World(prefetch=8, log=True, longest_s=30.0)
    world.read(1, 2)
    hung, other = world.take()
    told = []
    for world.now in (29.0, 60.0, 90.0):
        world.receiver.receive()
        told.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert [len(lines) for lines in told] == [0, 2, 0]
    assert f"message {hung.message.id!r} was delivered 60 s ago and is not settled" in told[1][0]
    assert "its partition does not get past it" in told[1][0]
    world.users.settle(other, Settlement.ACK)
    assert world.users.snapshot().longest_s == 90.0
    world.users.settle(hung, Settlement.ACK)
    assert world.users.snapshot().longest_s == 0.0


def test_a_handler_that_hangs_is_known_when_its_message_is_gone() -> None:
    """The broker has taken it back; the thread is still there, until it comes to settle in vain."""
    world = World()
    world.arrive(1)
    (hung,) = world.take()
    world.shared.disconnected()
    world.now = 40.0
    assert world.users.snapshot().longest_s == 40.0
    with pytest.raises(errors.StaleDelivery):
        world.users.settle(hung, Settlement.ACK)
    assert world.users.snapshot().longest_s == 0.0


def test_all_handlers_in_use_and_nothing_settled_is_a_stall() -> None:
    """Though the window has more: one handler hangs, and that is the only one."""
    world = World(prefetch=8)
    world.users.handler_limit = 1
    world.arrive(1, 2, 3)
    (hung,) = world.take(1)
    world.now = 40.0
    assert world.users.snapshot().stalled_s == 40.0
    world.users.settle(hung, Settlement.ACK)
    assert world.users.snapshot().stalled_s == 0.0


@pytest.mark.parametrize(("still_s", "lost"), [(10.0, 0), (60.0, 1)])
def test_a_consumer_that_stood_still_does_not_forgive_itself(still_s: float, lost: int) -> None:
    """What it had in hand may have kept its process still: to the next driver it is a suspect."""
    world = World(log=True)
    world.log.assigned([0], {0: Place(0)})
    world.receiver.report()
    world.now += still_s
    world.shared.disconnected()
    again = LogReceiver(world.shared, lambda events: world.driver)
    again.assigned([0], world.driver.places)
    again.add([Received(Message(b"m"), 0, Position(0, 0))])
    (entry,) = world.window.entries()
    assert entry.lost == lost
