"""How fast a broker is through Gearshift, and through its own client beside it.

Each measurement has a channel of its own, which is deleted again. Every message is confirmed and
settled one by one, as a service does it; nothing is measured that would lose messages.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from gearshift._core.error_translation import ErrorTranslator
from gearshift.bus import Bus, open_bus
from gearshift.bus.topology import Topology
from gearshift.config import Config, with_channels
from gearshift.driver.measuring import (
    HEADERS,
    IDLE_S,
    PREFETCH,
    Load,
    RawClient,
    Received,
    Sample,
    Stopwatch,
    in_threads,
    timed,
)
from gearshift.errors import DeadlineExceeded
from gearshift.message import message_id
from gearshift.operations.cleanup import delete_channels, finish

__all__ = ["WORKS", "Figures", "Plan", "Progress", "measure"]

_PATIENCE_S = 30.0
_MEASURES = ("rate", "p50_ms", "p99_ms", "cpu_us")
#: Told before each measurement what it is of: Gearshift, or the client's name.
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    """What to measure: one of WORKS with a load, in so many rounds."""

    work: str
    load: Load
    rounds: int = 1


@dataclass(frozen=True)
class Figures:
    """Samples of a plan, one for each round: Gearshift's, and the raw client's in turns with them.

    ``raw`` is empty and ``client`` None where there is nothing to be measured beside; ``how`` says
    how the raw client does it.
    """

    plan: Plan
    ours: Sequence[Sample]
    raw: Sequence[Sample] = ()
    client: str | None = None
    how: str = ""

    def median(self, measure: str, *, raw: bool = False) -> float | None:
        """The middle of the rounds of "rate", "p50_ms", "p99_ms" or "cpu_us"; None without."""
        values = [getattr(sample, measure) for sample in (self.raw if raw else self.ours)]
        return statistics.median(values) if any(values) else None

    def ratios(self, measure: str) -> list[float]:
        """Ours by theirs, round by round, from the least on; empty without a raw client."""
        pairs = [
            (getattr(ours, measure), getattr(theirs, measure))
            for ours, theirs in zip(self.ours, self.raw, strict=False)
        ]
        return sorted(ours / theirs for ours, theirs in pairs if theirs)

    def as_dict(self) -> dict[str, object]:
        """Medians, and beside them the raw client's, and ratios as [least, median, greatest]."""
        load, measures = self.plan.load, _MEASURES
        row: dict[str, object] = {
            "work": self.plan.work,
            "size": load.size,
            "threads": load.threads,
            "messages": load.total,
            "rounds": len(self.ours),
            **{measure: self.median(measure) for measure in measures},
            "raw": None,
        }
        if self.client is not None:
            row["raw"] = {
                "client": self.client,
                "how": self.how,
                **{measure: self.median(measure, raw=True) for measure in measures},
                "ratios": {
                    measure: [found[0], statistics.median(found), found[-1]]
                    for measure in measures
                    if (found := self.ratios(measure))
                },
            }
        return row


def measure(
    config: Config,
    semantics: str,
    plan: Plan,
    *,
    beside: bool = True,
    progress: Progress = lambda _: None,
) -> Figures:
    """Do ``plan`` on the profile that ``config`` selects, in channels of ``semantics``.

    ``semantics`` is "queue" or "stream", or "" for the backend's default. With ``beside`` the
    backend's raw client does the same in turns, if it has one. Blocks. The channels are called
    ``bench_...``. Raises what opening, sending and receiving raise, and DeadlineExceeded for
    messages that did not come.
    """
    ours: list[Sample] = []
    theirs: list[Sample] = []
    client, how = None, ""
    for number in range(plan.rounds):
        for is_raw in (False, True) if number % 2 == 0 else (True, False):
            if is_raw and not beside:
                continue
            with _channel(config, semantics) as (bus, channel):
                if not is_raw:
                    progress("Gearshift")
                    ours.append(_ours(bus, channel, plan))
                    continue
                with _raw_client(bus.config, channel) as raw:
                    if raw is not None:
                        work = getattr(raw.works, plan.work)
                        client, how = raw.name, (work.__doc__ or "").partition("\n")[0].rstrip(".")
                        progress(client)
                        theirs.append(_theirs(raw, plan))
    return Figures(plan, ours, theirs, client, how)


def _ours(bus: Bus, channel: str, plan: Plan) -> Sample:
    if plan.work == "receive":
        send_many(bus, channel, plan.load)
    return _complete(WORKS[plan.work](bus, channel, plan.load), plan)


def _theirs(raw: RawClient, plan: Plan) -> Sample:
    if plan.work == "receive":
        raw.works.send_many(plan.load)
    return _complete(getattr(raw.works, plan.work)(plan.load), plan)


def _complete(sample: Sample, plan: Plan) -> Sample:
    if sample.done < plan.load.total:
        missing = plan.load.total - sample.done
        raise DeadlineExceeded(f"{plan.work}: {missing} of {plan.load.total} messages did not come")
    return sample


@contextmanager
def _channel(config: Config, semantics: str) -> Iterator[tuple[Bus, str]]:
    channel = f"bench_{message_id()[-14:]}"
    settings = {"semantics": semantics} if semantics else {}
    with open_bus(config=with_channels(config, {channel: settings})) as bus:
        patience_s = 0.0  # where no broker was reached there is nothing to delete
        try:
            bus.declare(channel)
            patience_s = _PATIENCE_S
            yield bus, channel
        finally:
            finish(lambda: delete_channels(bus, channel, patience_s=patience_s))


@contextmanager
def _raw_client(config: Config, channel: str) -> Iterator[RawClient | None]:
    """The backend's own, if it has one; a rehearsal has none, as it sends nothing."""
    plugin = config.load_plugin()
    if plugin.raw_client is None or config.rehearsal is not None:
        yield None
        return
    settings = config.settings_for(plugin)
    raw = plugin.raw_client(settings, Topology(config, plugin).spec(channel))
    try:
        with (
            closing(plugin.connect(settings)) as backend,
            ErrorTranslator(backend, plugin.name, channel).raised(),
        ):
            yield raw
    finally:
        if raw is not None:
            raw.close()


# ── The works: each in a channel that is declared ────────────────────────────────────────────────


def send(bus: Bus, channel: str, load: Load) -> Sample:
    """One at a time, in each of the load's threads."""
    with bus.producer(channel) as producer:
        one = partial(producer.send, headers=HEADERS, timeout_s=_PATIENCE_S)
        return in_threads(lambda key, body: one(body, key=key), load)


def send_many(bus: Bus, channel: str, load: Load) -> Sample:
    """All at once."""
    with bus.producer(channel) as producer:

        def run() -> int:
            messages = (producer.message(body, key=key, headers=HEADERS) for key, body in load)
            return len(producer.send_many(messages, timeout_s=_PATIENCE_S))

        return timed(run)


def receive(bus: Bus, channel: str, load: Load) -> Sample:
    """What ``send_many`` has stored, each acknowledged."""
    received = Received(load.total)
    with bus.consumer(channel, prefetch=PREFETCH) as consumer:
        while not received.complete:
            deliveries = consumer.receive(received.wanted, timeout_s=IDLE_S)
            if not deliveries:
                break
            received.add(*(delivery.body for delivery in deliveries))
            for delivery in deliveries:
                delivery.ack()
        consumer.flush()
        return received.sample()


def end_to_end(bus: Bus, channel: str, load: Load) -> Sample:
    """Sent at the load's pace and received beside it."""
    watch = Stopwatch(load)
    with bus.producer(channel) as producer, bus.consumer(channel, prefetch=PREFETCH) as consumer:
        consumer.ready(_PATIENCE_S)

        def serve() -> None:
            watch.ready()
            while not watch.ended:
                for delivery in consumer.receive(PREFETCH, timeout_s=1.0):
                    watch.arrived(delivery.body)
                    delivery.ack()

        one = partial(producer.send, headers=HEADERS, timeout_s=_PATIENCE_S)
        return watch.run(one, serve)


#: What can be measured, in the order in which it is shown.
WORKS: dict[str, Callable[[Bus, str, Load], Sample]] = {
    "send": send,
    "send_many": send_many,
    "receive": receive,
    "end_to_end": end_to_end,
}
