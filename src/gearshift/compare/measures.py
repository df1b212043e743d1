"""Counting in a ledger: pure functions over the events of one trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from gearshift.compare.ledger import Event, Sample

__all__ = [
    "Span",
    "backlog",
    "by_worker",
    "confirmed",
    "dead",
    "done",
    "duplicates",
    "first_deliveries",
    "flagged",
    "inversions",
    "key_inversions",
    "lost",
    "of_group",
    "overlaps",
    "peak",
    "redeliveries",
    "spans",
    "throughput_per_s",
    "unflagged",
]


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


def of_group(events: Iterable[Event], group: str) -> list[Event]:
    """What happened to ``group``, in order."""
    return [event for event in events if event.group == group]


def confirmed(events: Iterable[Event]) -> set[int]:
    """The messages that the broker has confirmed."""
    return {_seq(event) for event in events if event.kind == "receipt"}


def done(events: Iterable[Event]) -> Counter[int]:
    """How often each message was handled to the end."""
    return Counter(_seq(event) for event in events if event.kind == "done")


def dead(events: Iterable[Event]) -> list[int]:
    """The messages in the dead-letter channel."""
    return [_seq(event) for event in events if event.kind == "dead"]


def lost(events: Sequence[Event]) -> set[int]:
    """Confirmed, and neither handled to the end by anybody nor a dead letter."""
    return confirmed(events) - done(events).keys() - set(dead(events))


def duplicates(events: Sequence[Event]) -> int:
    """How many times a message was handled to the end that had been before."""
    counts = done(events)
    return counts.total() - len(counts)


def first_deliveries(events: Iterable[Event]) -> list[Event]:
    """The first delivery of each message, in the order in which handling began."""
    first: dict[int, Event] = {}
    for event in events:
        if event.kind == "deliver":
            first.setdefault(_seq(event), event)
    return list(first.values())


def redeliveries(events: Iterable[Event]) -> list[Event]:
    """Deliveries of messages that had been delivered before."""
    seen: set[int] = set()
    again: list[Event] = []
    for event in events:
        if event.kind != "deliver":
            continue
        if _seq(event) in seen:
            again.append(event)
        seen.add(_seq(event))
    return again


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
        by_key.setdefault(event.key, []).append(_seq(event))
    return [seq for order in by_key.values() for seq in inversions(order)]


def spans(events: Iterable[Event]) -> list[Span]:
    """Every delivery with how it ended, by beginning."""
    open_spans: dict[tuple[str, int], Event] = {}
    found: list[Span] = []
    seen: set[int] = set()
    again: set[int] = set()  # by id of the delivery's event
    for event in events:
        if event.kind == "deliver":
            if _seq(event) in seen:
                again.add(id(event))
            seen.add(_seq(event))
            open_spans[event.who, _seq(event)] = event
        elif event.kind in ("done", "failed"):
            begin = open_spans.pop((event.who, _seq(event)), None)
            if begin is not None:
                state: Literal["done", "failed"] = "done" if event.kind == "done" else "failed"
                found.append(_span(begin, event.at_ms, state, id(begin) in again))
    found += [_span(begin, None, "killed", id(begin) in again) for begin in open_spans.values()]
    return sorted(found, key=lambda span: span.start_ms)


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
        if event.kind == "receipt" and _seq(event) not in finished:
            waiting.add(_seq(event))
        elif event.kind == "done":
            finished.add(_seq(event))
            waiting.discard(_seq(event))
        else:
            continue
        points.append((event.at_ms, len(waiting)))
    return points


def peak(samples: Iterable[Sample], name: str, who: str = "") -> float | None:
    """The greatest sample called ``name``; None if there is none."""
    return max((s.value for s in samples if s.name == name and s.who == who), default=None)


def by_worker(events: Iterable[Event]) -> Mapping[str, int]:
    """Messages handled to the end, per worker."""
    return Counter(event.who for event in events if event.kind == "done")


def _span(
    begin: Event, end_ms: float | None, state: Literal["done", "failed", "killed"], again: bool
) -> Span:
    return Span(
        worker=begin.who,
        seq=_seq(begin),
        key=begin.key or "",
        start_ms=begin.at_ms,
        end_ms=end_ms,
        attempt=begin.attempt or 1,
        state=state,
        again=again,
    )


def _seq(event: Event) -> int:
    assert event.seq is not None, f"a {event.kind} without a message"
    return event.seq
