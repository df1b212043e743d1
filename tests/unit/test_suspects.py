"""What was lost with a process is taken alone, and ends only by deaths of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.receivers import LogReceiver, QueueReceiver
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.consuming.suspects import INSIST_S, TURN_S, Turn, is_given_up
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.driver import Place, Received, Settlement, SettleRequest, Start
from gearshift.message import Message, Position


class Sides:
    """A window on a clock that a waiting user cannot outlast."""

    def __init__(self, prefetch: int, turn: Turn | None) -> None:
        self.now = 0.0
        self.window = DeliveryWindow(prefetch)
        self.shared = SharedWindow(self.window, clock=lambda: self.now, turn=turn or Turn())
        self.users = UserSide(self.shared)

    def wake(self) -> None:
        self.woken = True

    def settle(self, entry: Entry, how: Settlement = Settlement.ACK) -> None:
        self.users.settle(entry, how)

    def room(self) -> int:
        with self.shared.lock:
            return self.window.room()


class World(Sides):
    """A consumer of a queue."""

    def __init__(self, turn: Turn | None = None) -> None:
        super().__init__(10, turn)
        driver: Any = SimpleNamespace(cumulative_ack=False, wake=self.wake, settle=self._told)
        self.receiver = QueueReceiver(self.shared, lambda: driver)
        self.told: dict[Any, Settlement] = {}
        self.on_told: Callable[[], object] = lambda: None

    def arrive(self, token: int, lost: int = 0) -> None:
        self.receiver.add([Received(Message(b"m"), token, lost=lost)])

    def take(self) -> list[Entry]:
        return self.users.next(10, 0.0)

    def report(self) -> dict[Any, Settlement]:
        """What the driver is told."""
        self.told = {}
        self.receiver.report()
        return self.told

    def _told(self, requests: Sequence[SettleRequest]) -> tuple[()]:
        self.told = {request.token: request.settlement for request in requests}
        self.on_told()
        return ()


@pytest.mark.parametrize(
    ("attempts", "lost", "ends"),
    [(3, 0, False), (4, 0, True), (4, 1, False), (3, 2, False), (4, 3, True), (9, 1, False)],
)
def test_one_loss_ends_nothing(attempts: int, lost: int, ends: bool) -> None:
    """Of three attempts: more than that ends a message, unless its one loss may be another's."""
    assert is_given_up(attempts, lost, 3) is ends


def test_a_suspect_that_nobody_asked_for_goes_back() -> None:
    """So a process that dies idle had no suspect in its hands."""
    world = World()
    world.arrive(1, lost=1)
    assert world.report() == {1: Settlement.RELEASE}
    assert world.room() == 0
    assert world.take() == []
    assert world.room() == 1


def test_nothing_is_fetched_while_a_suspect_is_unsettled() -> None:
    """It is alone in the hands of its process; then the next is fetched for who asks."""
    world = World()
    world.take()
    world.arrive(1, lost=1)
    (suspect,) = world.take()
    assert world.room() == 0
    world.settle(suspect)
    assert world.room() == 0
    world.take()
    assert world.room() == 1
    world.arrive(2)
    assert world.room() == 9


def test_who_waits_in_another_thread_is_asking() -> None:
    """A user that waits already need not ask again when the suspect before it is settled."""
    world = World()
    got: list[Entry] = []
    waiting = threading.Thread(target=lambda: got.extend(world.users.next(1, None)))
    world.window.isolation.active = True
    waiting.start()
    while not world.window.isolation.asking:
        waiting.join(0.001)
    world.window.isolation.answered(1, 0.0)
    assert world.room() == 1
    world.arrive(1, lost=1)
    waiting.join(20)
    assert [entry.token for entry in got] == [1]


def test_who_collects_gets_more_after_a_while() -> None:
    """A thread that holds a suspect and asks on is not left without: they come like others."""
    world = World()
    world.take()
    world.arrive(1, lost=1)
    world.take()
    assert world.take() == []
    assert not world.window.isolation.together
    world.now = INSIST_S
    assert world.take() == []
    assert world.window.isolation.together
    assert world.room() == 9
    world.arrive(2, lost=1)
    assert [entry.token for entry in world.take()] == [2]


def test_one_consumer_of_a_process_has_a_suspect_at_a_time() -> None:
    """The other one is woken when the first one's is settled and the broker knows it."""
    turn = Turn()
    first, second = World(turn), World(turn)
    woken: list[int] = []
    second.shared.wake = lambda: woken.append(1)
    for world in (first, second):
        world.window.isolation.active = True
        world.take()
    assert [first.room(), second.room()] == [1, 0]
    first.arrive(1, lost=1)
    (suspect,) = first.take()
    first.report()
    assert second.room() == 0
    first.settle(suspect)
    assert second.room() == 0
    seen: list[int] = []
    first.on_told = lambda: seen.append(second.room()) or woken.clear()  # type: ignore[func-returns-value]
    first.report()
    assert seen == [0]
    assert woken == [1]
    first.take()
    assert [first.room(), second.room()] == [0, 1]


def test_a_suspect_that_comes_out_of_turn_goes_back() -> None:
    """Also if somebody asks for it; and a consumer to which none came does not keep the turn."""
    turn = Turn()
    first, second = World(turn), World(turn)
    first.window.isolation.active = True
    for world in (first, second):
        world.take()
    assert first.room() == 1
    second.arrive(1, lost=1)
    assert second.report() == {1: Settlement.RELEASE}
    assert second.room() == 0
    first.report()
    assert second.room() == 1
    assert first.room() == 10  # it knows of none any more


def test_a_handler_of_a_suspect_may_wait_for_another_consumer() -> None:
    """After a while the other one has its suspect beside it."""
    now = 0.0
    turn = Turn(lambda: now)
    first, second = World(turn), World(turn)
    for world in (first, second):
        world.window.isolation.active = True
        world.take()
    assert [first.room(), second.room()] == [1, 0]
    first.arrive(1, lost=1)
    now = TURN_S
    assert second.room() == 1


def test_the_turn_ends_with_the_connection() -> None:
    """What was in hand will come again."""
    turn = Turn()
    first, second = World(turn), World(turn)
    first.take()
    first.arrive(1, lost=1)
    first.take()
    second.window.isolation.active = True
    second.take()
    assert second.room() == 0
    first.shared.disconnected()
    assert second.room() == 1


# ── on a log ──


class Reader(Sides):
    """One that stands in partition 0 of a log, over what was stored of its predecessors.

    It is its own driver.
    """

    def __init__(self, place: Place, prefetch: int = 4, turn: Turn | None = None) -> None:
        super().__init__(prefetch, turn)
        self.stored = place
        self.stores = True
        self.connect()

    def connect(self) -> None:
        driver: Any = self
        self.receiver = LogReceiver(self.shared, lambda events: driver)
        self.receiver.assigned([0], {0: self.stored})

    def seek(self, start: Start) -> None: ...

    def commit(self, positions: Mapping[int, Place]) -> None:
        self.stored = positions[0]

    def flush(self, timeout_s: float) -> bool:
        return self.stores

    def arrive(self, *offsets: int) -> None:
        places = [Position(0, offset) for offset in offsets]
        self.receiver.add([Received(Message(b"m"), place, place) for place in places])

    def take(self, most: int = 10) -> list[Entry]:
        """Ask, let the loop tell the driver, and take what there is then."""
        self.window.isolation.ask()
        self.tell()
        return self.users.next(most, 0.0)

    def tell(self) -> None:
        self.woken = True
        while self.woken:
            self.woken = False
            self.receiver.report()

    def leave(self) -> Place:
        """Close in an orderly way; what the next one finds."""
        self.users.close()
        self.receiver.leave()
        self.tell()
        return self.stored


def offsets(entries: list[Entry]) -> list[int]:
    return [entry.token.offset for entry in entries]


def dead_with(*held: int, at: int = 0, note: str = "") -> Place:
    """What is stored when one that stood at ``at`` has died with these in its hands."""
    reader = Reader(Place(at, note))
    reader.arrive(*held)
    assert offsets(reader.take()) == list(held)
    return reader.stored


def test_nothing_is_handed_out_before_it_is_noted_that_somebody_stands_there() -> None:
    """Else a message that kills at once would do so for ever."""
    reader = Reader(Place(0))
    reader.stores = False
    reader.arrive(0, 1)
    assert reader.take() == []
    reader.stores = True
    assert offsets(reader.take()) == [0, 1]


def test_what_may_have_killed_comes_alone_and_the_rest_behind_it() -> None:
    """Each with one loss, which ends nothing; what lies beyond the window comes as ever."""
    reader = Reader(dead_with(0, 1))
    reader.arrive(0, 1, 2, 3)
    assert reader.room() == 0
    for offset in range(4):
        (suspect,) = reader.take()
        assert (suspect.token.offset, suspect.lost, suspect.attempts) == (offset, 1, 1)
        assert reader.take() == []
        reader.settle(suspect)
    reader.arrive(4, 5)
    assert [entry.lost for entry in reader.take()] == [0, 0]


def test_a_further_death_counts_for_what_was_handed_out() -> None:
    """And for nothing behind it: the next reader takes that as before."""
    reader = Reader(dead_with(0, 1, 2))
    reader.arrive(0, 1, 2)
    reader.settle(reader.take()[0])
    assert offsets(reader.take()) == [1]
    for deaths in (2, 3):
        reader = Reader(reader.stored)
        reader.arrive(1, 2)
        (killer,) = reader.take()
        assert (killer.token.offset, killer.lost, killer.attempts) == (1, deaths, deaths + 1)
    reader.settle(killer, Settlement.DISCARD)
    (next_one,) = reader.take()
    assert (next_one.token.offset, next_one.lost) == (2, 1)


def test_deaths_without_work_count_nothing() -> None:
    """However often an idle reader dies, and one that had another partition's suspect in hand."""
    place = Place(7)
    for _ in range(5):
        reader = Reader(place)
        reader.tell()
        place = reader.stored
    reader = Reader(place)
    reader.arrive(7)
    for _ in range(5):  # nobody asks
        reader.tell()
        reader = Reader(reader.stored)
        reader.arrive(7)
    assert [entry.lost for entry in reader.take()] == [1]


def test_who_leaves_in_an_orderly_way_costs_nothing() -> None:
    """Also with a message in hand; and what was known of it before stays known."""
    reader = Reader(Place(0))
    reader.arrive(0)
    assert offsets(reader.take()) == [0]
    assert (reader.leave(), reader.stored.note) == (0, "")
    once = dead_with(0)
    reader = Reader(dead_with(0, note=once.note))
    reader.arrive(0)
    assert [entry.lost for entry in reader.take()] == [2]
    reader = Reader(reader.leave())
    reader.arrive(0)
    assert [entry.lost for entry in reader.take()] == [2]


def test_a_consumer_knows_its_own_note_after_a_cut() -> None:
    """It has not died, so nothing is lost."""
    reader = Reader(Place(0))
    reader.arrive(0)
    reader.take()
    reader.shared.disconnected()
    reader.connect()
    reader.arrive(0)
    assert [entry.lost for entry in reader.take()] == [0]


def test_who_collects_gets_suspects_together_and_they_share_their_deaths() -> None:
    """A thread that holds one and asks for more is not left waiting."""
    reader = Reader(dead_with(0, 1, 2))
    reader.arrive(0, 1, 2)
    assert offsets(reader.take()) == [0]
    reader.now = INSIST_S
    assert reader.take() == []
    assert offsets(reader.take()) == [1, 2]
    reader = Reader(reader.stored)
    reader.arrive(0, 1, 2, 3)
    assert [entry.lost for entry in reader.window.entries()] == [2, 2, 2, 1]


def test_who_waits_for_another_consumers_suspect_is_not_collecting() -> None:
    """It holds none itself, so they still come one by one when it is its turn."""
    turn = Turn()
    other, reader = World(turn), Reader(dead_with(0, 1, 2), turn=turn)
    reader.arrive(0, 1, 2)
    (first,) = reader.take()
    reader.settle(first)
    reader.tell()
    other.take()
    other.arrive(1, lost=1)
    (suspect,) = other.take()
    assert reader.take() == []
    reader.now = INSIST_S
    assert reader.take() == []
    other.settle(suspect)
    other.report()
    assert offsets(reader.take()) == [1]


def test_a_seek_keeps_the_note_and_begins_anew() -> None:
    """What is read again after it is no suspect, and the death of its reader is still noticed."""
    reader = Reader(dead_with(5, at=5))
    reader.arrive(5)
    reader.settle(reader.take()[0])
    reader.tell()
    reader.receiver.seek(Start())
    reader.arrive(0, 1)
    assert [entry.lost for entry in reader.take()] == [0, 0]
    reader = Reader(reader.stored)
    reader.arrive(6)
    assert [entry.lost for entry in reader.take()] == [1]


@pytest.mark.parametrize("note", ["", "ours", "gearshift", "gearshift x 1 2 3 4", "\x00" * 200])
def test_what_others_wrote_beside_a_position_says_nothing(note: str) -> None:
    """Their tools may read in the same group."""
    reader = Reader(Place(0, note))
    reader.arrive(0)
    assert [entry.lost for entry in reader.take()] == [0]
