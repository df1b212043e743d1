"""The delivery window by itself: no thread, no lock, and time is what the test says."""

from __future__ import annotations

from typing import Any

import pytest

from gearshift import errors
from gearshift._core.consuming.entry import Entry, EntryState
from gearshift._core.consuming.log_settlements import LogSettlements
from gearshift._core.consuming.settlements import QueueSettlements
from gearshift._core.consuming.window import SPAN_FACTOR, DeliveryWindow
from gearshift.driver import Received, Settlement
from gearshift.message import Message, Position


class World:
    """A connected window, and what time it is."""

    def __init__(self, *, prefetch: int = 4, log: bool = False, **options: Any) -> None:
        self.now = 0.0
        self.window = DeliveryWindow(prefetch, **options)
        self.connect(log=log)

    def connect(self, *, log: bool = False) -> None:
        self.window.connect(LogSettlements() if log else QueueSettlements(cumulative=False))

    def arrive(self, *tokens: int, key: str | None = None, attempt: int | None = None) -> None:
        self.window.add([Received(Message(b"m", key), n, None, attempt) for n in tokens])

    def read(self, *offsets: int, partition: int = 0) -> None:
        places = [Position(partition, offset) for offset in offsets]
        self.window.add([Received(Message(b"m"), place, place) for place in places])

    def take(self, most: int = 100) -> list[Entry]:
        return self.window.pop(most, 1, self.now)

    def settle(self, entry: Entry) -> tuple[bool, bool]:
        return self.window.settle(entry, Settlement.ACK, 0.0, self.now)

    def reported(self) -> list[tuple[Any, Settlement]]:
        settlements = self.window.take(self.now).settlements
        return [(each.token, each.settlement) for each in settlements]


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
    assert {entry.state for entry in world.window.entries()} == {EntryState.IN_HAND}


def test_room_is_what_prefetch_leaves() -> None:
    """Unsettled entries count, in hand or not; settling gives the room back."""
    world = World(prefetch=3)
    world.arrive(1, 2)
    (first,) = world.take(1)
    assert world.window.room() == 1
    world.settle(first)
    assert world.window.room() == 2


def test_a_closed_window_gives_and_takes_nothing() -> None:
    """Others shall have what this consumer would not hand out; what is in hand can be settled."""
    world = World()
    world.arrive(1, 2)
    (first,) = world.take(1)
    world.window.closed = True
    assert (world.take(), world.window.room()) == ([], 0)
    world.settle(first)
    assert world.reported() == [(1, Settlement.ACK)]


def test_on_a_log_work_goes_on_behind_an_unsettled_message_only_so_far() -> None:
    """What a crash repeats is bounded: ten windows, settled ones included."""
    world = World(prefetch=2, log=True)
    world.read(0)
    world.take()
    for offset in range(1, 2 * SPAN_FACTOR):
        assert world.window.room() == 1
        world.read(offset)
        world.settle(world.take()[0])
    assert world.window.room() == 0


def test_what_nobody_takes_in_time_goes_back_and_all_behind_it_too() -> None:
    """So their order stays; what is in hand is settled as ever."""
    world = World()
    world.window.add([Received(Message(b"m"), n, return_at=10.0 + n) for n in range(3)])
    (first,) = world.take(1)
    world.now = 10.5  # of the first alone, which is in hand
    assert world.reported() == []
    world.now = 11.0
    assert world.reported() == [(1, Settlement.RELEASE), (2, Settlement.RELEASE)]
    assert world.take() == []
    assert world.window.room() == 3
    world.settle(first)
    assert world.reported() == [(0, Settlement.ACK)]


def test_a_held_entry_comes_again_when_it_is_due() -> None:
    """In the same hands, one attempt later, in its time; its key waits."""
    world = World()
    world.arrive(1, key="k", attempt=2)
    (entry,) = world.take()
    world.window.hold(entry, 5.0, world.now)
    world.arrive(2, key="k")
    assert world.window.next_due(world.now) == 5.0
    world.now = 4.9
    assert world.take() == []
    world.now = 5.0
    assert tokens(world.take()) == [1]
    assert entry.attempts == 3
    assert world.settle(entry) == (False, True)  # another one may go now
    assert tokens(world.take()) == [2]


def test_what_a_log_gives_again_is_flagged_once_it_was_handed_out() -> None:
    """After a reconnect offsets up to the last handed out are redelivered; what follows is not."""
    world = World(log=True)
    world.read(0, 1, 2)
    assert [entry.redelivered for entry in world.take(2)] == [None, None]
    world.window.disconnect()
    world.connect(log=True)
    world.read(0, 1, 2)
    assert [entry.redelivered for entry in world.take()] == [True, True, None]


def test_a_seek_begins_anew() -> None:
    """What is read again on purpose is no redelivery; what was in hand is stale."""
    world = World(log=True)
    world.read(0)
    (before,) = world.take()
    world.window.forget()
    world.read(0)
    assert [entry.redelivered for entry in world.take()] == [None]
    assert before.state is EntryState.STALE


# ── settling ──


def test_an_entry_is_settled_once() -> None:
    """The second time says so."""
    world = World()
    world.arrive(1)
    (entry,) = world.take()
    world.settle(entry)
    with pytest.raises(errors.AlreadySettled):
        world.settle(entry)


@pytest.mark.parametrize("how", ["settle", "hold"])
def test_after_a_lost_connection_what_was_in_hand_is_stale(how: str) -> None:
    """Before and after the next connection; it is counted and told to no driver."""
    world = World()
    world.arrive(1)
    (entry,) = world.take()
    world.window.disconnect()
    attempts = {
        "settle": lambda: world.settle(entry),
        "hold": lambda: world.window.hold(entry, 1.0, world.now),
    }
    with pytest.raises(errors.StaleDelivery):
        attempts[how]()
    world.connect()
    with pytest.raises(errors.StaleDelivery):
        attempts[how]()
    assert world.window.stats.stale == 2
    assert world.reported() == []


def test_an_entry_past_its_lock_is_neither_handed_out_nor_settled() -> None:
    """Both free their place in the window, and the broker is told nothing of them."""
    world = World(prefetch=2)
    world.window.add([Received(Message(b"a"), 1, locked_until=5.0)])
    (entry,) = world.take()
    world.window.add([Received(Message(b"b"), 2, locked_until=5.0)])
    assert world.window.room() == 0
    world.now = 5.0
    with pytest.raises(errors.StaleDelivery):
        world.settle(entry)
    assert world.take() == []
    assert world.window.room() == 2
    assert world.reported() == []
    assert world.window.entries() == []


def test_what_must_be_reported_at_once() -> None:
    """Half a window of news, and what somebody waits for; for the rest the loop looks up."""
    world = World(prefetch=6)
    world.arrive(1, 2, 3, 4, 5)
    assert [world.settle(entry)[0] for entry in world.take()] == [False, False, True, False, False]
    full = World(prefetch=6)
    full.arrive(1, 2, 3, 4, 5, 6)
    entries = full.take()
    assert full.window.room() == 0
    assert not full.settle(entries[0])[0]
    full.window.isolation.asking = 1
    assert full.settle(entries[1])[0]


def test_an_ack_that_comes_too_late_counts_for_nothing() -> None:
    """Its message was given up or kept for a retry before the ack was recorded."""
    world = World()
    world.arrive(1)
    (entry,) = world.take()
    world.window.acked.append(entry)
    world.window.key_order.hold(entry, 5.0)
    assert world.window.settle_acked() == (False, False)
    assert (world.window.unsettled, world.window.stats.settled["ack"]) == (1, 0)


def test_a_window_is_busy_while_something_is_unsettled_or_not_taken() -> None:
    """What is taken is news until it is told; settlements that came too late are counted."""
    world = World()
    assert not world.window.is_busy
    world.arrive(1)
    assert world.window.is_busy
    world.settle(world.take()[0])
    assert (world.window.is_busy, world.window.has_news) == (True, True)
    report = world.window.take(world.now)
    assert (world.window.is_busy, world.window.has_news) == (False, True)
    world.window.reported(report, failures=1)
    assert not world.window.has_news
    assert world.window.stats.stale == 1


def test_a_window_is_stalled_when_all_that_it_allows_is_with_the_user() -> None:
    """Not while something waits to be handed out."""
    world = World(prefetch=2)
    world.arrive(1, 2)
    world.take(1)
    assert not world.window.is_stalled
    (second,) = world.take(1)
    assert world.window.is_stalled
    world.settle(second)
    assert not world.window.is_stalled


# ── bytes ──


def test_the_window_closes_when_its_bodies_are_too_many_bytes() -> None:
    """Few at first; then as many as fit by their size, and it opens again as they are settled."""
    world = World(prefetch=100, prefetch_bytes=1000)
    assert world.window.room() == 8
    world.window.add([Received(Message(b"x" * 100), n) for n in range(8)])
    assert world.window.room() == 2
    world.window.add([Received(Message(b"x" * 100), n) for n in (8, 9)])
    assert world.window.room() == 0
    entries = world.take()
    assert len(entries) == 10
    urgent = [world.settle(entry)[0] for entry in entries]
    assert urgent == [False] * 4 + [True] + [False] * 5
    assert world.window.room() == 10


@pytest.mark.parametrize("log", [False, True])
def test_one_message_is_taken_however_large(log: bool) -> None:
    """Nothing is received beside it; what was lost with a connection takes no room."""
    world = World(prefetch=100, prefetch_bytes=1000, log=log)
    position = Position(0, 7) if log else None
    for _ in range(3):
        world.window.add([Received(Message(b"x" * 5000), position, position)])
        assert world.window.room() == 0
        world.window.disconnect()
        world.connect(log=log)
        assert world.window.room() == 1
    for _ in range(200):
        world.window.add([Received(Message(b"x"), position, position)])
        world.window.disconnect()
        world.connect(log=log)
    assert world.window.room() == 100
