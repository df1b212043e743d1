"""What is received and not settled, between users and pump, on a clock that stands still."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.waiting import PATIENCE_S, until

from gearshift import errors
from gearshift._core.consuming.inbox import IDLE_INTERVAL_S, SETTLE_INTERVAL_S, SPAN_FACTOR, Inbox
from gearshift._core.consuming.settlements import Entry, Fate, LogSettlements, QueueSettlements
from gearshift.driver import Received, Settlement
from gearshift.message import Message, Position
from gearshift.stats import ReceiveStats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """An inbox, connected, and how often the driver was woken."""

    def __init__(self, *, prefetch: int = 4, log: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.woken = 0
        self.inbox = Inbox(prefetch, clock=self.clock, **options)
        self.connect(log=log)

    def connect(self, *, log: bool = False) -> None:
        settlements = LogSettlements() if log else QueueSettlements(cumulative=False)
        self.inbox.connected(settlements, self._wake, ready=not log)

    def _wake(self) -> None:
        self.woken += 1

    def arrive(self, *tokens: int, key: str | None = None, attempt: int | None = None) -> None:
        self.inbox.add([Received(Message(b"m", key), n, None, attempt) for n in tokens])

    def read(self, *offsets: int, partition: int = 0) -> None:
        places = [Position(partition, offset) for offset in offsets]
        self.inbox.add([Received(Message(b"m"), place, place) for place in places])

    def take(self, most: int = 100) -> list[Entry]:
        return self.inbox.next(most, 0.0)


def tokens(entries: list[Entry]) -> list[Any]:
    return [entry.token for entry in entries]


# ── handing out ──


def test_entries_come_out_in_order_and_no_more_than_asked_for() -> None:
    """What is left waits for the next call; with nothing there it is an empty list."""
    world = World()
    world.arrive(1, 2, 3)
    assert tokens(world.take(2)) == [1, 2]
    assert tokens(world.take(2)) == [3]
    assert world.take() == []
    assert [entry.token for entry in world.inbox.in_hand()] == [1, 2, 3]


def test_room_is_what_prefetch_leaves() -> None:
    """Unsettled entries count, in hand or not; settling gives the room back."""
    world = World(prefetch=3)
    world.arrive(1, 2)
    (first,) = world.take(1)
    assert world.inbox.room() == 1
    world.inbox.settle(first, Settlement.ACK)
    assert world.inbox.room() == 2


def test_on_a_log_work_goes_on_behind_an_unsettled_message_only_so_far() -> None:
    """What a crash repeats is bounded: ten windows, settled ones included."""
    world = World(prefetch=2, log=True)
    world.read(0)
    world.take()
    for offset in range(1, 2 * SPAN_FACTOR):
        assert world.inbox.room() == 1
        world.read(offset)
        world.inbox.settle(world.take()[0], Settlement.ACK)
    assert world.inbox.room() == 0


def test_what_nobody_takes_in_time_goes_back_and_all_behind_it_too() -> None:
    """So their order stays; what is in hand is settled as ever."""
    world = World()
    world.inbox.add([Received(Message(b"m"), n, return_at=10.0 + n) for n in range(3)])
    (first,) = world.take(1)
    world.clock.now = 10.5  # of the first alone, which is in hand
    assert world.inbox.take() == []
    world.clock.now = 11.0
    told = [(each.token, each.settlement) for each in world.inbox.take()]
    assert told == [(1, Settlement.RELEASE), (2, Settlement.RELEASE)]
    assert world.take() == []
    assert world.inbox.room() == 3
    world.inbox.settle(first, Settlement.ACK)
    assert [(each.token, each.settlement) for each in world.inbox.take()] == [(0, Settlement.ACK)]


def test_waiting_users_get_what_arrives() -> None:
    """A call without a deadline ends when there is something."""
    world = World()
    got: list[Entry] = []
    waiting = threading.Thread(target=lambda: got.extend(world.inbox.next(1, None)))
    waiting.start()
    world.arrive(7)
    waiting.join(PATIENCE_S)
    assert tokens(got) == [7]


def test_a_held_entry_comes_again_when_it_is_due() -> None:
    """In the same hands, one attempt later, in its time; its key waits."""
    world = World()
    world.arrive(1, key="k", attempt=2)
    (entry,) = world.take()
    world.inbox.hold(entry, 5.0)
    world.arrive(2, key="k")
    world.clock.now = 4.9
    assert world.take() == []
    world.clock.now = 5.0
    assert tokens(world.take()) == [1]
    assert entry.attempts == 3
    world.inbox.settle(entry, Settlement.ACK)
    assert tokens(world.take()) == [2]


def test_what_a_log_gives_again_is_flagged_once_it_was_handed_out() -> None:
    """After a reconnect offsets up to the last handed out are redelivered; what follows is not."""
    world = World(log=True)
    world.read(0, 1, 2)
    assert [entry.redelivered for entry in world.take(2)] == [None, None]
    world.inbox.disconnected()
    world.connect(log=True)
    world.read(0, 1, 2)
    assert [entry.redelivered for entry in world.take()] == [True, True, None]


def test_a_seek_begins_anew() -> None:
    """What is read again on purpose is no redelivery; what was in hand is stale."""
    world = World(log=True)
    world.read(0)
    (before,) = world.take()
    world.inbox.forget()
    world.read(0)
    assert [entry.redelivered for entry in world.take()] == [None]
    assert before.fate is Fate.STALE


# ── settling ──


def test_an_entry_is_settled_once() -> None:
    """The second time says so."""
    world = World()
    world.arrive(1)
    (entry,) = world.take()
    world.inbox.settle(entry, Settlement.ACK)
    with pytest.raises(errors.AlreadySettled):
        world.inbox.settle(entry, Settlement.ACK)


@pytest.mark.parametrize("how", ["settle", "hold"])
def test_after_a_lost_connection_what_was_in_hand_is_stale(how: str) -> None:
    """Before and after the next connection; it is counted and told to no driver."""
    world = World()
    world.arrive(1)
    (entry,) = world.take()
    world.inbox.disconnected()
    attempts = {
        "settle": lambda: world.inbox.settle(entry, Settlement.ACK),
        "hold": lambda: world.inbox.hold(entry, 1.0),
    }
    with pytest.raises(errors.StaleDelivery):
        attempts[how]()
    world.connect()
    with pytest.raises(errors.StaleDelivery):
        attempts[how]()
    assert world.inbox.stats.stale == 2
    assert world.inbox.take() == []


def test_the_driver_is_woken_when_it_matters() -> None:
    """For a full window, and for half a window of news; else it looks up by itself."""
    world = World(prefetch=6)
    world.arrive(1, 2, 3, 4, 5)
    entries = world.take()
    seen = []
    for entry in entries:
        world.inbox.settle(entry, Settlement.ACK)
        seen.append(world.woken)
    assert seen == [0, 0, 1, 1, 1]
    full = World(prefetch=6)
    full.arrive(1, 2, 3, 4, 5, 6)
    full.inbox.settle(full.take(1)[0], Settlement.ACK)
    assert full.woken == 1


def test_the_pump_looks_up_sooner_while_something_is_unsettled_or_untold() -> None:
    """So that settlements are told within 0.05 s."""
    world = World()
    assert world.inbox.patience_s() == IDLE_INTERVAL_S
    world.arrive(1)
    assert world.inbox.patience_s() == SETTLE_INTERVAL_S
    world.inbox.settle(world.take()[0], Settlement.ACK)
    assert world.inbox.patience_s() == SETTLE_INTERVAL_S
    world.inbox.take()
    world.inbox.told(0)
    assert world.inbox.patience_s() == IDLE_INTERVAL_S


def test_flush_waits_until_the_driver_was_told() -> None:
    """Taken is not told; settlements that came too late are counted."""
    world = World()
    world.arrive(1)
    world.inbox.settle(world.take()[0], Settlement.ACK)
    assert not world.inbox.wait_settled(0.0)
    assert len(world.inbox.take()) == 1
    assert not world.inbox.wait_settled(0.0)
    world.inbox.told(failures=1)
    assert world.inbox.wait_settled(0.0)
    assert world.inbox.stats.stale == 1


# ── partitions ──


def test_a_revoked_partition_gives_its_settled_prefix_and_nothing_more() -> None:
    """Undelivered messages vanish, and what was in hand is stale once it is gone."""
    world = World(log=True)
    world.inbox.assigned([0, 1])
    world.read(0, 1, 2, partition=0)
    world.read(0, partition=1)
    first = world.take(1)[0]
    world.inbox.settle(first, Settlement.ACK)
    assert world.inbox.revoked([0]) == {0: 1}
    assert tokens(world.take()) == [Position(1, 0)]


def test_a_revocation_waits_for_what_is_being_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message settled meanwhile is committed; nobody is given another one."""
    monkeypatch.setattr("gearshift._core.consuming.inbox.REVOKE_DRAIN_S", PATIENCE_S)
    world = World(log=True)
    world.read(0, 1)
    (entry,) = world.take(1)
    positions: list[dict[int, int]] = []
    revoking = threading.Thread(target=lambda: positions.append(dict(world.inbox.revoked([0]))))
    revoking.start()
    assert until(lambda: not world.inbox._key_order)  # what was not handed out yet is not any more
    world.inbox.settle(entry, Settlement.ACK)
    revoking.join(PATIENCE_S)
    assert positions == [{0: 1}]


def test_a_lost_partition_commits_nothing() -> None:
    """It belongs to somebody else already: in hand is stale."""
    world = World(log=True)
    world.read(0, 1)
    first, second = world.take()
    world.inbox.settle(first, Settlement.ACK)
    world.inbox.lost([0])
    assert world.inbox.take() == {}
    with pytest.raises(errors.StaleDelivery):
        world.inbox.settle(second, Settlement.ACK)


# ── the end ──


def test_forgotten_settlements_are_told_and_not_too_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also to one that polls: who gets nothing, how many it has not settled and since when."""
    world = World(prefetch=2, stats=ReceiveStats(channel="orders", group="billing"))
    world.arrive(1, 2)
    held = world.take()
    told = []
    for now in (5.0, 12.0, 13.0, 60.0, 73.0):
        world.clock.now = now
        assert world.take() == []
        told.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert [len(lines) for lines in told] == [0, 1, 0, 0, 1]
    assert "channel 'orders', group 'billing'" in told[1][0]
    assert "2 are unsettled and none was settled for 12 s" in told[1][0]
    assert world.inbox.snapshot().stalled_s == 73.0
    world.inbox.settle(held[0], Settlement.ACK)
    world.clock.now = 200.0
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
                world.inbox.next(1, None)
        except errors.Closed as error:
            raised.append(type(error))

    # It would look up then.
    monkeypatch.setattr("gearshift._core.consuming.inbox._WARN_STALLED_AFTER_S", 3600.0)
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert until(lambda: world.inbox._isolation.asking)
    world.inbox.close()
    waiting.join(PATIENCE_S)
    assert raised == [errors.Closed]
    with pytest.raises(errors.Closed):
        world.take()
    world.inbox.settle(entry, Settlement.ACK)


def test_what_ended_the_pump_is_raised_by_every_call() -> None:
    """Not swallowed, and not only once."""
    world = World()
    world.inbox.failed(errors.AuthenticationFailed("wrong password"))
    for _ in range(2):
        with pytest.raises(errors.AuthenticationFailed):
            world.take()
    with pytest.raises(errors.AuthenticationFailed):
        world.inbox.wait_ready(0.0)


def test_ready_means_assigned() -> None:
    """A queue is ready once connected, a log once it knows its partitions, even if none."""
    assert World().inbox.wait_ready(0.0)
    world = World(log=True)
    assert not world.inbox.wait_ready(0.0)
    world.inbox.assigned([])
    assert world.inbox.wait_ready(0.0)
    world.inbox.disconnected()
    assert not world.inbox.wait_ready(0.0)


# ── bytes ──


def test_the_window_closes_when_its_bodies_are_too_many_bytes() -> None:
    """Few at first; then as many as fit by their size, and it opens again as they are settled."""
    world = World(prefetch=100, prefetch_bytes=1000)
    assert world.inbox.room() == 8
    world.inbox.add([Received(Message(b"x" * 100), n) for n in range(8)])
    assert world.inbox.room() == 2
    world.inbox.add([Received(Message(b"x" * 100), n) for n in (8, 9)])
    assert world.inbox.room() == 0
    entries = world.take()
    assert len(entries) == 10
    woken = world.woken
    world.inbox.settle(entries[0], Settlement.ACK)
    assert (world.inbox.room(), world.woken) == (1, woken + 1)
    for entry in entries[1:]:
        world.inbox.settle(entry, Settlement.ACK)
    assert world.inbox.room() == 10


@pytest.mark.parametrize("log", [False, True])
def test_one_message_is_taken_however_large(log: bool) -> None:
    """Nothing is received beside it; what was lost with a connection takes no room."""
    world = World(prefetch=100, prefetch_bytes=1000, log=log)
    position = Position(0, 7) if log else None
    for _ in range(3):
        world.inbox.add([Received(Message(b"x" * 5000), position, position)])
        assert world.inbox.room() == 0
        world.inbox.disconnected()
        world.connect(log=log)
        assert world.inbox.room() == 1
    for _ in range(200):
        world.inbox.add([Received(Message(b"x"), position, position)])
        world.inbox.disconnected()
        world.connect(log=log)
    assert world.inbox.room() == 100
