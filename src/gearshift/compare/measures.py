"""Counting in a ledger: pure functions over the events of one trial."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from gearshift.compare.ledger import Event

__all__ = [
    "Points", "Span", "Stretch", "at", "backlog", "by_worker", "confirmed", "count", "dead",
    "done", "duplicates", "first_deliveries", "flagged", "grid", "inversions",
    "is_balanced", "key_inversions", "lost", "of_group", "overlaps", "redeliveries",
    "seq_of", "settled", "spans", "stretches", "throughput_per_s", "unflagged",
]  # fmt: skip


class Span(NamedTuple):
    """One delivery from its beginning to the end of its handling. ``end_ms`` None: it never ended.

    ``again`` is true if its group was given the message before.
    """

    worker: str
    seq: int
    key: str
    start_ms: float
    end_ms: float | None
    attempt: int
    state: Literal["done", "failed", "killed"]
    again: bool


class Stretch(NamedTuple):
    """Deliveries to a worker, one after the other without a pause, that ended alike."""

    worker: str
    start_ms: float
    end_ms: float
    messages: int
    state: str


#: A number over time: (at_ms, value), by time.
Points = Sequence[tuple[float, float]]


def count(events: Iterable[Event], kind: str) -> int:
    """The number of events of ``kind``."""
    return sum(event.kind == kind for event in events)


def of_group(events: Iterable[Event], group: str) -> list[Event]:
    """The events of ``group``, in order."""
    return [event for event in events if event.group == group]


def confirmed(events: Iterable[Event]) -> set[int]:
    """The messages that the broker has confirmed."""
    return {seq_of(event) for event in events if event.kind == "receipt"}


def done(events: Iterable[Event]) -> Counter[int]:
    """Count how often each message was handled to the end."""
    return Counter(seq_of(event) for event in events if event.kind == "done")


def settled(events: Iterable[Event], what: str) -> set[int]:
    """The messages that were settled as ``what``: "ack", "retry", "reject"."""
    return {seq_of(event) for event in events if event.kind == "settle" and event.what == what}


def dead(events: Iterable[Event]) -> list[int]:
    """The messages in the dead-letter channel."""
    return [seq_of(event) for event in events if event.kind == "dead"]


def lost(events: Sequence[Event]) -> set[int]:
    """Confirmed, and neither handled to the end by anybody nor a dead letter."""
    return confirmed(events) - done(events).keys() - set(dead(events))


def duplicates(events: Sequence[Event]) -> int:
    """Count how often a message was handled to the end that had been before."""
    counts = done(events)
    return counts.total() - len(counts)


def first_deliveries(events: Iterable[Event]) -> list[Event]:
    """The first delivery of each message, in the order in which handling began."""
    return _deliveries(events)[0]


def redeliveries(events: Iterable[Event]) -> list[Event]:
    """Deliveries of messages that had been delivered before."""
    return _deliveries(events)[1]


def _deliveries(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    first: dict[int, Event] = {}
    again = [
        event
        for event in events
        if event.kind == "deliver" and first.setdefault(seq_of(event), event) is not event
    ]
    return list(first.values()), again


def flagged(events: Iterable[Event]) -> int:
    """Deliveries that came with ``redelivered``, rightly or not."""
    return sum(event.kind == "deliver" and event.redelivered is True for event in events)


def unflagged(events: Iterable[Event]) -> int:
    """Deliveries of messages that had been delivered before, without saying so."""
    return sum(event.redelivered is not True for event in redeliveries(events))


def inversions(order: Iterable[int]) -> list[int]:
    """Those that came later than one that was sent after them."""
    latest, inverted = -1, []
    for seq in order:
        if seq < latest:
            inverted.append(seq)
        latest = max(latest, seq)
    return inverted


def key_inversions(deliveries: Iterable[Event]) -> list[int]:
    """As ``inversions``, among messages of the same key."""
    by_key: dict[str | None, list[int]] = {}
    for event in deliveries:
        by_key.setdefault(event.key, []).append(seq_of(event))
    return [seq for order in by_key.values() for seq in inversions(order)]


def spans(events: Iterable[Event]) -> list[Span]:
    """Every delivery with how it ended, by beginning."""
    begun: dict[tuple[str, int], Span] = {}
    found: list[Span] = []
    seen: set[int] = set()
    for event in events:
        if event.kind == "deliver":
            seq = seq_of(event)
            begun[event.who, seq] = Span(
                worker=event.who,
                seq=seq,
                key=event.key or "",
                start_ms=event.at_ms,
                end_ms=None,
                attempt=event.attempt or 1,
                state="killed",
                again=seq in seen,
            )
            seen.add(seq)
        elif event.kind in ("done", "failed"):
            span = begun.pop((event.who, seq_of(event)), None)
            if span is not None:
                state: Literal["done", "failed"] = "done" if event.kind == "done" else "failed"
                found.append(span._replace(end_ms=event.at_ms, state=state))
    return sorted([*found, *begun.values()], key=lambda span: span.start_ms)


def stretches(found: Iterable[Span], pause_ms: float) -> list[Stretch]:
    """``found`` by worker, those with shorter pauses than ``pause_ms`` between them together."""
    last: dict[str, Stretch] = {}
    ended: list[Stretch] = []
    for span in found:
        state = "again" if span.again else span.state
        end_ms = span.start_ms if span.end_ms is None else span.end_ms
        before = last.get(span.worker)
        if before and before.state == state and span.start_ms - before.end_ms < pause_ms:
            end_ms = max(end_ms, before.end_ms)
            grown = before._replace(end_ms=end_ms, messages=before.messages + 1)
            last[span.worker] = grown
            continue
        if before:
            ended.append(before)
        last[span.worker] = Stretch(span.worker, span.start_ms, end_ms, 1, state)
    return sorted([*ended, *last.values()], key=lambda one: one.start_ms)


def overlaps(events: Sequence[Event]) -> list[int]:
    """Messages whose handling began while an earlier one of their key was still handled."""
    running: dict[str, list[Span]] = {}
    found = []
    for span in spans(events):
        active = [
            other
            for other in running.get(span.key, [])
            if other.end_ms is None or other.end_ms > span.start_ms
        ]
        if any(other.seq < span.seq and other.state != "killed" for other in active):
            found.append(span.seq)
        running[span.key] = [*active, span]
    return found


def throughput_per_s(events: Iterable[Event]) -> float | None:
    """Messages handled per second, from the first delivery to the last end; None if unknowable."""
    starts = [event.at_ms for event in events if event.kind == "deliver"]
    ends = [event.at_ms for event in events if event.kind == "done"]
    if not starts or not ends or max(ends) <= min(starts):
        return None
    return len(ends) / (max(ends) - min(starts)) * 1000


def backlog(events: Iterable[Event]) -> list[tuple[float, int]]:
    """Confirmed and not yet handled, after each event that changes it: (at_ms, messages)."""
    waiting: set[int] = set()
    finished: set[int] = set()
    points = []
    for event in events:
        if event.kind == "receipt" and seq_of(event) not in finished:
            waiting.add(seq_of(event))
        elif event.kind == "done":
            finished.add(seq_of(event))
            waiting.discard(seq_of(event))
        else:
            continue
        points.append((event.at_ms, len(waiting)))
    return points


def grid(first_ms: float, last_ms: float, every_ms: float) -> list[float]:
    """Times from ``first_ms`` to ``last_ms``, ``every_ms`` apart."""
    return [first_ms + n * every_ms for n in range(int((last_ms - first_ms) / every_ms) + 1)]


def at(points: Points, times: Iterable[float]) -> list[float]:
    """The values of ``points`` at ``times``, on a straight line between two of them."""
    moments = [at_ms for at_ms, _ in points]
    return [_between(points, bisect_right(moments, time), time) for time in times]


def _between(points: Points, after: int, time: float) -> float:
    """The value at ``time``, which lies before the point number ``after`` and not before others."""
    if not points:
        return 0.0
    if after in (0, len(points)):
        return points[min(after, len(points) - 1)][1]
    (start, low), (end, high) = points[after - 1], points[after]
    return low + (high - low) * (time - start) / (end - start)


def by_worker(events: Iterable[Event]) -> Mapping[str, int]:
    """Messages handled to the end, per worker."""
    return Counter(event.who for event in events if event.kind == "done")


def seq_of(event: Event) -> int:
    """The message that ``event`` is about."""
    assert event.seq is not None, f"a {event.kind} without a message"
    return event.seq


def is_balanced(events: Iterable[Event], members: int, partitions: int | None) -> bool:
    """Every partition has one owner, and as many workers as possible own one.

    Where nobody knows how many ``partitions`` there are, those that were ever owned are all.
    """
    assigned = [event for event in events if event.kind == "assign"]
    known = partitions or len({number for event in assigned for number in event.partitions})
    owned = {event.who: event.partitions for event in assigned}
    shared = [partition for own in owned.values() for partition in own]
    owners = sum(bool(own) for own in owned.values())
    return 0 < len(shared) == len(set(shared)) == known and owners == min(members, known)
