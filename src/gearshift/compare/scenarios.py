"""The seven scenarios: what is done to a broker, by real means. What it shows is judged elsewhere.

Each plays one repetition; everything that happens is on the tapes of its stages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gearshift.compare.actor import Role
from gearshift.compare.ledger import Event, Scenario, Trial
from gearshift.compare.stage import Broker, Stage, count
from gearshift.compare.workload import Order
from gearshift.errors import GearshiftError

__all__ = ["PLAYS", "PROCESSES", "Options", "Play"]

#: The one group of every scenario but the fan-out.
GROUP = "workers"

MEMBERS = 3
SCALES = (1, 2, 4, 8)
EARLY_GROUPS, LATE_GROUP = ("billing", "audit"), "late"
PREFETCH_FOR_RETRIES = 50  # a key that waits must not fill the window of all others
STUCK_AT = 5

#: A backlog lasts at least so long: a busy broker takes its time to say how large it is.
SLOW_FOR_MS = 3000.0

#: Scenarios with worker processes: a broker inside this process cannot play them.
PROCESSES: tuple[Scenario, ...] = ("crash", "slow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a comparison can be asked for."""

    seed: int = 1
    messages: int = 200
    repetitions: int = 1
    keys: int = 8  #: 0 sends without keys; order is still judged by customer
    prefetch: int = 10
    handler: str = ""  #: module:function
    settle: Literal["after", "first"] = "after"  #: "first" acks before it works: sabotage


@dataclass(slots=True, kw_only=True)
class Play:
    """One repetition of one scenario on one broker. ``trials`` fills as it goes."""

    broker: Broker
    folder: Path
    options: Options
    orders: Sequence[Order]
    repetition: int
    trials: list[Trial] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(
        self,
        *,
        messages: int,
        work_ms: float,
        prefetch: int | None = None,
        variant: str = "",
        channel: Mapping[str, Any] | None = None,
    ) -> Iterator[_Act]:
        """A stage whose trial is kept; an error of ours in it ends the trial, not the run."""
        options, error = self.options, None
        dead_letter = {} if options.handler else {"dead_letter": False}
        keyed = options.keys > 0
        settings = {"groups": [GROUP]} | dead_letter | dict(channel or {})
        with Stage.set_up(self.broker, self.folder, settings, keyed=keyed) as stage:
            act = _Act(stage, options, self.orders[:messages], work_ms, prefetch)
            try:
                yield act
            except GearshiftError as failure:
                error = stage.bus.config.masked(str(failure))
        self.trials.append(
            Trial(
                repetition=self.repetition,
                channel=stage.channel,
                variant=variant,
                settings={
                    "messages": len(act.orders),
                    "work_ms": work_ms,
                    "prefetch": act.prefetch,
                    "keys": options.keys,
                    "settle": options.settle,
                },
                error=error,
                events=stage.events,
                samples=stage.samples,
            )
        )


class _Act:
    """A stage, the orders that are sent there, and roles for its workers."""

    def __init__(
        self,
        stage: Stage,
        options: Options,
        orders: Sequence[Order],
        work_ms: float,
        prefetch: int | None,
    ) -> None:
        self.stage = stage
        self.orders = orders
        self.prefetch = prefetch or options.prefetch
        self._options = options
        self._work_ms = work_ms

    def role(self, name: str, group: str = GROUP, **more: Any) -> Role:
        """A worker's role with what all workers here have in common."""
        return Role(
            name=name,
            channel=self.stage.channel,
            group=group,
            prefetch=self.prefetch,
            work_ms=self._work_ms,
            handler=self._options.handler,
            settle=self._options.settle,
            **more,
        )


def ordering(play: Play) -> None:
    """Several members of a group work while messages come in."""
    with play.stage(messages=play.options.messages, work_ms=4) as act:
        for number in range(MEMBERS):
            act.stage.thread(act.role(f"worker-{number + 1}"))
        act.stage.wait_ready(MEMBERS)
        act.stage.send(act.orders)
        act.stage.wait_done(act.orders)


def crash(play: Play) -> None:
    """Of two worker processes one is killed inside its handler; the other one goes on."""
    with play.stage(messages=play.options.messages // 2, work_ms=10) as act:
        act.stage.process(act.role("victim", stuck_at=STUCK_AT))
        act.stage.process(act.role("survivor"))
        act.stage.wait_ready(2)
        act.stage.send(act.orders)
        act.stage.wait(lambda events: count(events, "stuck") == 1, "the victim at work")
        if play.options.settle == "first":
            act.stage.wait_acks_heard()
        act.stage.kill("victim")
        act.stage.wait_done_or_drained(act.orders)


def fan_out(play: Play) -> None:
    """Two groups from the start, a third one when half of the messages have been handled."""
    messages = play.options.messages // 2
    with play.stage(messages=messages, work_ms=1, channel={"groups": list(EARLY_GROUPS)}) as act:
        for group in EARLY_GROUPS:
            act.stage.thread(act.role(group, group))
        act.stage.wait_ready_each(EARLY_GROUPS)
        before, after = act.orders[: messages // 2], act.orders[messages // 2 :]
        act.stage.send(before)
        for group in EARLY_GROUPS:
            act.stage.wait_done(before, group)
        act.stage.thread(act.role(LATE_GROUP, LATE_GROUP, create_group=True))
        act.stage.wait_ready_each((LATE_GROUP,))
        act.stage.send(after)
        for group in (*EARLY_GROUPS, LATE_GROUP):
            act.stage.wait_done(after, group)


def replay(play: Play) -> None:
    """A consumer that has done everything goes back to the start."""
    with play.stage(messages=play.options.messages, work_ms=0.5) as act:
        act.stage.thread(act.role("reader", seek_after=len(act.orders)))
        act.stage.wait_ready(1)
        act.stage.send(act.orders)
        act.stage.wait(lambda events: count(events, "seek") == 1, "the reader back at the start")
        act.stage.wait_replayed_or_refused(len(act.orders))


def poison(play: Play) -> None:
    """One message fails at every attempt, among others of its key and of other keys."""
    channel = {"max_attempts": 4, "retry_delay_s": 0.15, "retry_max_delay_s": 0.3}
    with play.stage(
        messages=play.options.messages // 2,
        work_ms=12,
        prefetch=PREFETCH_FOR_RETRIES,
        channel=channel | {"dead_letter": True},
    ) as act:
        bad = _poisoned(act.orders)
        act.stage.thread(act.role("worker", poison=bad))
        act.stage.wait_ready(1)
        act.stage.send(act.orders)
        act.stage.wait_done([order for order in act.orders if order.order_id != bad])
        act.stage.wait(lambda events: _is_given_up(events, bad), "the poison given up")
        act.stage.stop_threads()
        act.stage.read_dead_letters()


def slow(play: Play) -> None:
    """A producer that is several times as quick as the only consumer."""
    messages = play.options.messages
    with play.stage(messages=messages, work_ms=max(6.0, SLOW_FOR_MS / messages)) as act:
        act.stage.process(act.role("worker"))
        act.stage.wait_ready(1)
        with act.stage.sampled(GROUP):
            act.stage.send(act.orders, per_s=600)
            act.stage.wait_done(act.orders)


def scaling(play: Play) -> None:
    """The same messages for 1, 2, 4 and 8 workers; a stream has four partitions."""
    for workers in SCALES:
        with play.stage(
            messages=play.options.messages * 3 // 5,
            work_ms=12,
            prefetch=1,
            variant=f"workers={workers}",
        ) as act:
            for number in range(workers):
                act.stage.thread(act.role(f"worker-{number + 1}"))
            act.stage.wait_ready(workers)
            act.stage.send(act.orders)
            act.stage.wait_done(act.orders)


#: Every scenario, in the order in which they are played.
PLAYS: Mapping[Scenario, Callable[[Play], None]] = {
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


def _is_given_up(events: Sequence[Event], seq: int) -> bool:
    return any(
        event.kind == "settle" and event.seq == seq and event.what == "reject" for event in events
    )
