"""Who is settled, and what the broker is told: nothing more than is true."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gearshift._core.consuming.entry import Entry, EntryState
from gearshift._core.consuming.log_settlements import LogSettlements
from gearshift._core.consuming.settlements import QueueSettlements
from gearshift.driver import Settlement, SettleRequest
from gearshift.message import Message, Position


def queue_entry(token: int, attempt: int | None = None) -> Entry:
    return Entry(Message(b"%d" % token), token, None, attempt, None)


def log_entry(partition: int, offset: int) -> Entry:
    position = Position(partition, offset)
    return Entry(Message(b"m"), position, position, None, None)


def filled(settlements: Any, entries: Sequence[Entry]) -> Any:
    for entry in entries:
        settlements.add([entry])
    return settlements


# ── queues ──


def test_a_run_of_acks_at_the_front_is_told_as_one() -> None:
    """Later acks, behind a gap, are told one by one, before the run."""
    entries = [queue_entry(n) for n in range(5)]
    settlements = filled(QueueSettlements(cumulative=True), entries)
    for number in (1, 0, 3):
        settlements.settle(entries[number], Settlement.ACK, 0.0)
    told = settlements.take().settlements
    assert told == [
        SettleRequest(3, Settlement.ACK),
        SettleRequest(1, Settlement.ACK, through=True),
    ]
    assert not settlements.news
    assert settlements.unsettled == 2


@pytest.mark.parametrize("cumulative", [False, True])
def test_what_is_settled_behind_an_unsettled_message_is_let_go(cumulative: bool) -> None:
    """One slow handler does not keep in memory all that others have settled meanwhile."""
    settlements = QueueSettlements(cumulative)
    settlements.add([queue_entry(0)])
    kept: weakref.WeakSet[Any] = weakref.WeakSet()
    for _ in range(1000):
        token = type("Token", (), {})()
        kept.add(token)
        entry = Entry(Message(b"m"), token, None, None, None)
        settlements.add([entry])
        settlements.settle(entry, Settlement.ACK, 0.0)
        assert len(settlements.take().settlements) == 1
    assert len(kept) < 100
    assert [entry.token for entry in settlements.entries()] == [0]


def test_a_run_never_covers_another_verdict() -> None:
    """A reject among acks is told for itself, and first."""
    entries = [queue_entry(n) for n in range(3)]
    settlements = filled(QueueSettlements(cumulative=True), entries)
    for entry, settlement in zip(
        entries, (Settlement.ACK, Settlement.DISCARD, Settlement.ACK), strict=True
    ):
        settlements.settle(entry, settlement, 0.0)
    assert settlements.take().settlements == [
        SettleRequest(1, Settlement.DISCARD),
        SettleRequest(2, Settlement.ACK, through=True),
    ]


def test_without_cumulative_acks_each_is_told_for_itself() -> None:
    """In the order of settling."""
    entries = [queue_entry(n) for n in range(3)]
    settlements = filled(QueueSettlements(cumulative=False), entries)
    for number in (2, 0, 1):
        settlements.settle(entries[number], Settlement.ACK, 0.0)
    assert [request.token for request in settlements.take().settlements] == [2, 0, 1]


def test_a_retry_carries_what_a_backend_needs_to_store_it_again() -> None:
    """The message, the attempt that failed and the delay."""
    entry = queue_entry(7, attempt=2)
    entry.retries = 1
    settlements = filled(QueueSettlements(cumulative=True), [entry])
    settlements.settle(entry, Settlement.RETRY, 1.5)
    assert settlements.take().settlements == [
        SettleRequest(7, Settlement.RETRY, 1.5, message=entry.message, attempt=3)
    ]


def test_abandoning_a_queue_makes_the_unsettled_stale_and_forgets_what_was_to_be_told() -> None:
    """Tokens of a lost connection are told to nobody."""
    entries = [queue_entry(n) for n in range(2)]
    settlements = filled(QueueSettlements(cumulative=True), entries)
    settlements.settle(entries[0], Settlement.ACK, 0.0)
    settlements.abandon()
    assert [entry.state for entry in entries] == [EntryState.SETTLED, EntryState.STALE]
    assert (settlements.take().settlements, settlements.unsettled) == ([], 0)


@pytest.mark.parametrize("known", [None, 4])
def test_attempts_add_what_was_retried_here_to_what_the_broker_knows(known: int | None) -> None:
    """Where the broker knows nothing it is the first."""
    entry = queue_entry(1, attempt=known)
    entry.retries = 2
    assert entry.attempts == (known or 1) + 2


class QueueMachine(RuleBasedStateMachine):
    """Any order of arrivals, settlements and tellings.

    A broker that obeys settles each message exactly once, as its consumer said, and a cumulative
    ack covers nothing that is unsettled or was not acked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settlements = QueueSettlements(cumulative=True)
        self.entries: list[Entry] = []
        self.said: dict[int, Settlement] = {}
        self.broker: dict[int, Settlement] = {}

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.entries.append(queue_entry(len(self.entries)))
            self.settlements.add([self.entries[-1]])

    @precondition(lambda self: len(self.said) < len(self.entries))
    @rule(data=st.data(), settlement=st.sampled_from(list(Settlement)))
    def settle(self, data: st.DataObject, settlement: Settlement) -> None:
        left = [entry for entry in self.entries if entry.token not in self.said]
        entry = data.draw(st.sampled_from(left))
        self.said[entry.token] = settlement
        self.settlements.settle(entry, settlement, 0.0)

    @rule()
    def tell(self) -> None:
        for request in self.settlements.take().settlements:
            tokens = [request.token]
            if request.through:
                tokens = [n for n in range(request.token + 1) if n not in self.broker]
            for token in tokens:
                assert token not in self.broker, "settled twice"
                self.broker[token] = request.settlement
        assert self.broker == self.said

    @invariant()
    def counts(self) -> None:
        assert self.settlements.unsettled == len(self.entries) - len(self.said)
        assert {entry.token for entry in self.settlements.entries()} == (
            {entry.token for entry in self.entries} - self.said.keys()
        )


# ── logs ──


def test_a_position_stops_before_the_first_unsettled_message() -> None:
    """What is settled behind it counts as soon as it is settled itself."""
    entries = [log_entry(0, offset) for offset in (10, 11, 14)]
    settlements = filled(LogSettlements(), entries)
    settlements.settle(entries[1], Settlement.ACK, 0.0)
    assert (settlements.take().places, settlements.span, settlements.unsettled) == ({}, 3, 2)
    settlements.settle(entries[0], Settlement.DISCARD, 0.0)
    assert (settlements.take().places, settlements.span) == ({0: 12}, 1)
    settlements.settle(entries[2], Settlement.ACK, 0.0)
    assert settlements.take().places == {0: 15}
    assert settlements.take().places == {}


def test_a_released_message_holds_the_position() -> None:
    """It was never worked on, and comes again."""
    entries = [log_entry(0, offset) for offset in range(2)]
    settlements = filled(LogSettlements(), entries)
    settlements.settle(entries[0], Settlement.RELEASE, 0.0)
    settlements.settle(entries[1], Settlement.ACK, 0.0)
    assert settlements.take().places == {}


def test_a_revoked_partition_is_forgotten_and_its_deliveries_are_stale() -> None:
    """Other partitions go on; nothing of the lost one is committed any more."""
    lost, kept = log_entry(0, 5), log_entry(1, 5)
    settled = log_entry(0, 4)
    settlements = filled(LogSettlements(), [settled, lost, kept])
    settlements.settle(settled, Settlement.ACK, 0.0)
    assert settlements.positions([0, 1]) == {0: 5}
    settlements.revoke([0])
    assert (lost.state, kept.state) == (EntryState.STALE, EntryState.BUFFERED)
    assert (settlements.take().places, settlements.unsettled, settlements.span) == ({}, 1, 1)
    settlements.settle(kept, Settlement.ACK, 0.0)
    assert settlements.take().places == {1: 6}


def test_only_what_is_in_hand_keeps_a_revocation_waiting() -> None:
    """Buffered and held messages are nobody's work."""
    entry = log_entry(3, 0)
    settlements = filled(LogSettlements(), [entry])
    seen = []
    for state in (EntryState.BUFFERED, EntryState.HELD, EntryState.IN_HAND):
        entry.state = state
        seen.append(settlements.in_hand([3]))
    assert seen == [False, False, True]
    assert not settlements.in_hand([2])


class LogMachine(RuleBasedStateMachine):
    """Any order of arrivals, settlements, commits and revocations on three partitions.

    A committed position never passes an unsettled message, never moves back, and reaches the end
    of the settled prefix.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settlements = LogSettlements()
        self.open: dict[int, list[Entry]] = {}
        self.next: dict[int, int] = {}
        self.committed: dict[int, int] = {}

    @rule(partition=st.integers(0, 2), gap=st.integers(0, 2), count=st.integers(1, 4))
    def arrive(self, partition: int, gap: int, count: int) -> None:
        offset = self.next.get(partition, 0) + gap
        for entry in (log_entry(partition, offset + n) for n in range(count)):
            self.settlements.add([entry])
            self.open.setdefault(partition, []).append(entry)
        self.next[partition] = offset + count

    @precondition(lambda self: self._unsettled())
    @rule(data=st.data(), settlement=st.sampled_from([Settlement.ACK, Settlement.DISCARD]))
    def settle(self, data: st.DataObject, settlement: Settlement) -> None:
        self.settlements.settle(data.draw(st.sampled_from(self._unsettled())), settlement, 0.0)

    @rule()
    def commit(self) -> None:
        self._store(self.settlements.take().places)
        for partition, entries in self.open.items():
            unsettled = [e.token.offset for e in entries if e.state is not EntryState.SETTLED]
            settled = [e.token.offset for e in entries if e.state is EntryState.SETTLED]
            prefix = [offset for offset in settled if offset < min(unsettled, default=2**62)]
            if prefix:
                assert self.committed[partition] == max(prefix) + 1

    @rule(partition=st.integers(0, 2))
    def revoke(self, partition: int) -> None:
        self._store(self.settlements.positions([partition]))
        self.settlements.revoke([partition])
        gone = self.open.pop(partition, [])
        assert all(entry.state in (EntryState.SETTLED, EntryState.STALE) for entry in gone)

    def _store(self, positions: Mapping[int, int]) -> None:
        for partition, position in positions.items():
            assert position >= self.committed.get(partition, 0)
            self.committed[partition] = position

    def _unsettled(self) -> list[Entry]:
        return [e for each in self.open.values() for e in each if e.state is not EntryState.SETTLED]

    @invariant()
    def no_position_passes_an_unsettled_message(self) -> None:
        for entry in self._unsettled():
            assert self.committed.get(entry.token.partition, 0) <= entry.token.offset
        assert self.settlements.unsettled == len(self._unsettled())
        assert self.settlements.span >= self.settlements.unsettled


for machine in (QueueMachine, LogMachine):
    machine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_a_queue_is_settled_once_and_truly = QueueMachine.TestCase
test_a_position_never_passes_an_unsettled_message = LogMachine.TestCase
