"""Who has the backlog is asked of the moments at which somebody looked, not of two peaks."""

from __future__ import annotations

import msgspec
import pytest

from gearshift.compare.judges.slow import JUDGE
from gearshift.compare.ledger import Event, Sample, TrialRecord

MESSAGES = 100
PREFETCH = 10


def trial(*samples: Sample) -> TrialRecord:
    """A hundred messages are there after 100 ms; one goes every 10 ms."""
    events = [Event(at_ms=float(n), kind="receipt", who="p", seq=n) for n in range(MESSAGES)]
    events += [
        Event(at_ms=100.0 + 10 * n, kind="done", who="worker", seq=n) for n in range(MESSAGES)
    ]
    return TrialRecord(repetition=1, channel="c", events=tuple(events), samples=samples,
                 settings={"prefetch": PREFETCH})  # fmt: skip


def lag(at_ms: float, value: float) -> Sample:
    return Sample(at_ms=at_ms, name="lag_messages", value=value, group="workers")


def test_of_a_small_backlog_nobody_can_say_who_has_it() -> None:
    """A consumer that may hold ten of twelve is not to blame for it."""
    few = trial(lag(105.0, 2.0))
    events = tuple(event for event in few.events if event.seq is not None and event.seq < 12)
    assert JUDGE.see([msgspec.structs.replace(few, events=events)]).outcome is None


@pytest.mark.parametrize(
    ("samples", "outcome"),
    [
        ([lag(855.0, 20.0)], "broker"),  # asked once only, late: it had 20 of the last 24
        ([lag(101.0, 0.0), lag(205.0, 85.0), lag(405.0, 66.0)], "broker"),  # slow to answer once
        ([lag(305.0, 8.0), lag(505.0, 5.0)], "consumer"),
        ([lag(305.0, -3.0)], "consumer"),
        ([lag(1095.0, 0.0)], None),  # all but handled when it was asked
        ([], None),
    ],
)
def test_the_backlog_is_where_it_was_seen(samples: list[Sample], outcome: str | None) -> None:
    """By time: what the broker said, of what waited just then."""
    assert JUDGE.see([trial(*samples)]).outcome == outcome


def test_what_nobody_holds_is_at_a_broker_that_tells_nothing() -> None:
    """Seen from the consumer's side."""
    held = Sample(at_ms=305.0, name="held_messages", value=10.0, who="worker")
    seen = JUDGE.see([trial(held)])
    assert seen.outcome == "broker"
    assert {name: value for name, _, value in seen.numbers}["at the broker"] == 87.0


def test_no_broker_has_less_than_nothing_or_more_than_waits() -> None:
    """What a broker says too early or too late is not drawn as it is."""
    seen = JUDGE.see([trial(lag(205.0, -3.0), lag(405.0, 999.0))])
    (chart,) = seen.charts
    there = {at_ms: n for where, at_ms, n in chart.rows if where == "at the broker"}
    waiting = {at_ms: n for where, at_ms, n in chart.rows if where == "waiting in all"}
    assert min(there.values()) == 0  # type: ignore[type-var]
    assert all(there[at_ms] <= waiting[at_ms] for at_ms in there)  # type: ignore[operator]
