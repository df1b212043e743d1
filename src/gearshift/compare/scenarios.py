"""The seven scenarios: what is done to a broker, by real means. Judges say what it shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gearshift.compare import workload
from gearshift.compare.columns import Target
from gearshift.compare.ledger import Event, Scenario, TrialRecord
from gearshift.compare.measures import count, settled
from gearshift.compare.trial import Trial
from gearshift.compare.worker import GROUP, Duties
from gearshift.compare.workload import Order

__all__ = ["RUNS", "Options", "Run"]

MEMBERS = 3
SCALES = (1, 2, 4, 8)
EARLY_GROUPS, LATE_GROUP = ("billing", "audit"), "late"
PREFETCH_FOR_RETRIES = 50  # a key that waits must not fill the window of all others
STUCK_AT = 5
SPREAD = 8  # few keys may miss a partition, which then has no work for its worker

#: What a user's handler fails at is soon given up, which ends its trial.
_RETRIED = {"retry_delay_s": 0.1, "retry_max_delay_s": 0.1}

#: A backlog lasts at least so long: a busy broker takes its time to say how large it is.
SLOW_FOR_MS = 3000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a comparison."""

    seed: int = 1
    messages: int = 200
    repetitions: int = 1
    keys: int = 8  #: 0 sends without keys; order is still judged by customer
    prefetch: int = 10
    handler: str = ""  #: module:function
    settle: Literal["after", "first"] = "after"  #: "first" acks before it works: sabotage


@dataclass(slots=True, kw_only=True)
class Run:
    """One scenario on one target, repetition by repetition. ``records`` fills as it goes."""

    target: Target
    folder: Path
    options: Options
    orders: Sequence[Order]
    repetition: int = 1
    records: list[TrialRecord] = field(default_factory=list)

    @contextlib.contextmanager
    def trial(
        self,
        messages: int,
        work_ms: float,
        *,
        prefetch: int | None = None,
        variant: str = "",
        spread: int = 1,
        **channel: Any,
    ) -> Iterator[tuple[Trial, Sequence[Order]]]:
        """A trial and its orders; an error of ours in it ends the trial, not the run.

        ``channel`` are the settings of its channel, ``prefetch`` and ``work_ms`` those of all its
        workers. The orders have ``spread`` times as many keys as the options say.
        """
        options, orders = self.options, self.orders[:messages]
        if spread > 1:
            orders = workload.make(options.seed, messages, max(1, options.keys * spread))
        failing = _RETRIED if options.handler else {"dead_letter": False}
        settings = {"groups": [GROUP]} | failing | channel
        duties = Duties(
            prefetch=prefetch or options.prefetch,
            work_ms=work_ms,
            handler=options.handler,
            settle=options.settle,
        )
        with (
            Trial.set_up(
                self.target, self.folder, settings, duties=duties, keyed=options.keys > 0
            ) as trial,
            trial.attempt(),
        ):
            yield trial, orders
        self.records.append(
            trial.record(
                self.repetition,
                variant,
                {
                    "messages": len(orders),
                    "work_ms": work_ms,
                    "prefetch": duties.prefetch,
                    "keys": options.keys * spread,
                    "settle": options.settle,
                },
            )
        )


def ordering(run: Run) -> None:
    """Several members of a group work while messages come in."""
    with run.trial(run.options.messages, work_ms=4) as (trial, orders):
        trial.threads(MEMBERS)
        trial.send(orders)
        trial.wait_done(orders)


def crash(run: Run) -> None:
    """Of two worker processes one is killed inside its handler; the other one goes on."""
    with run.trial(run.options.messages // 2, work_ms=10) as (trial, orders):
        trial.process("victim", stuck_at=STUCK_AT)
        trial.process("survivor")
        trial.wait_ready(2)
        trial.send(orders)
        trial.wait(lambda events: count(events, "stuck") == 1, "the victim at work")
        if run.options.settle == "first":
            trial.wait_acks_heard()
        trial.kill("victim")
        trial.wait_done_or_drained(orders)


def fan_out(run: Run) -> None:
    """Two groups from the start, a third one when half of the messages have been handled."""
    half = run.options.messages // 4
    with run.trial(run.options.messages // 2, work_ms=1, groups=list(EARLY_GROUPS)) as (
        trial,
        orders,
    ):
        for group in EARLY_GROUPS:
            trial.thread(group, group=group)
        for group in EARLY_GROUPS:
            trial.wait_ready(1, group)
        trial.send(orders[:half])
        for group in EARLY_GROUPS:
            trial.wait_done(orders[:half], group)
        trial.thread(LATE_GROUP, group=LATE_GROUP, create_group=True)
        trial.wait_ready(1, LATE_GROUP)
        trial.send(orders[half:])
        for group in (*EARLY_GROUPS, LATE_GROUP):
            trial.wait_done(orders[half:], group)


def replay(run: Run) -> None:
    """A consumer that has done everything goes back to the start."""
    with run.trial(run.options.messages, work_ms=0.5) as (trial, orders):
        trial.thread("reader", seek_after=len(orders))
        trial.wait_ready(1)
        trial.send(orders)
        trial.wait(lambda events: _is_replayed(events, len(orders)), "the replay")


def poison(run: Run) -> None:
    """One message fails at every attempt, among others of its key and of other keys."""
    with run.trial(
        run.options.messages // 2,
        work_ms=12,
        prefetch=PREFETCH_FOR_RETRIES,
        max_attempts=4,
        retry_delay_s=0.15,
        retry_max_delay_s=0.3,
        dead_letter=True,
    ) as (trial, orders):
        bad = _poisoned(orders)
        trial.thread("worker", poison=bad)
        trial.wait_ready(1)
        trial.send(orders)
        trial.wait_done([order for order in orders if order.order_id != bad])
        trial.wait(lambda events: bad in settled(events, "reject"), "the poison given up")
        trial.workers.stop()
        trial.read_dead_letters()


def slow(run: Run) -> None:
    """A producer that is several times as quick as the only consumer."""
    messages = run.options.messages
    with run.trial(messages, work_ms=max(6.0, SLOW_FOR_MS / messages)) as (trial, orders):
        trial.process("worker")
        trial.wait_ready(1)
        with trial.sampled(GROUP):
            trial.send(orders, per_s=600)
            trial.wait_done(orders)


def scaling(run: Run) -> None:
    """The same messages for 1, 2, 4 and 8 workers; a stream has four partitions."""
    messages = run.options.messages * 3 // 5
    for workers in SCALES:
        with run.trial(
            messages, work_ms=12, prefetch=1, variant=f"workers={workers}", spread=SPREAD
        ) as (trial, orders):
            trial.threads(workers)
            trial.send(orders)
            trial.wait_done(orders)


#: Every scenario, in the order in which they are run.
RUNS: Mapping[Scenario, Callable[[Run], None]] = {
    "ordering": ordering,
    "crash": crash,
    "fan_out": fan_out,
    "replay": replay,
    "poison": poison,
    "slow": slow,
    "scaling": scaling,
}


def _poisoned(orders: Sequence[Order]) -> int:
    """An early message whose key has many successors."""
    early = orders[: max(1, len(orders) // 10)]
    return max(
        early, key=lambda order: sum(other.customer == order.customer for other in orders)
    ).order_id


def _is_replayed(events: Sequence[Event], messages: int) -> bool:
    """True if ``messages`` were handled again after a seek, or if it was refused."""
    at = next((n for n, event in enumerate(events) if event.kind == "seek"), None)
    if at is None:
        return False
    return events[at].what != "earliest" or count(events[at:], "done") >= messages
