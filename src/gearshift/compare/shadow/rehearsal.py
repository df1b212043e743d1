"""Runs a rehearsal: looks at the live channel, copies to both brokers, lets the handler work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from gearshift import config as configuration
from gearshift.bus import Bus
from gearshift.capabilities import Durability
from gearshift.compare.columns import broker_of, described
from gearshift.compare.ledger import Column, Event, Trial
from gearshift.compare.notebook import apart
from gearshift.compare.shadow.document import Original, Performance, Rehearsal, Variant, digests
from gearshift.compare.shadow.originals import Watched, watch
from gearshift.compare.shadow.performer import MAX_RETRY_DELAY_S, Part
from gearshift.compare.stage import Broker, Stage
from gearshift.compare.surroundings import machine, versions
from gearshift.driver import Start
from gearshift.errors import GearshiftError, NotSupported
from gearshift.message import DEFAULT_GROUP
from gearshift.rehearsal import digest, read_captured

__all__ = ["Progress", "Request", "rehearse"]

#: Told of each step: what, how many are done, how many there are.
Progress = Callable[[str, int, int], None]

_STEPS: Sequence[tuple[Variant, str]] = (
    ("old", "{channel} on {old}"),
    ("again", "{channel} on {old} again, to know what varies by itself"),
    ("new", "{channel} on {new}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to rehearse. ``old`` and ``new`` are profiles, or ``profile:semantics``.

    ``handler`` is module:function. ``seconds`` bounds the look at the channel, and then the
    handler's work on each side. ``start`` is for streams.
    """

    old: str
    new: str
    channel: str
    handler: str
    messages: int = 200
    seconds: float = 30.0
    workers: int = 3
    start: Start = field(default_factory=Start)


def rehearse(
    request: Request,
    *,
    config: Path | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Rehearsal:
    """Rehearse the switch from ``old`` to ``new`` and return what happened. Blocks for minutes.

    The live channel is looked at by a reader of its own; nothing is settled, and no group's
    position moves. Copies of its messages go to channels that are made for it and deleted again,
    also when this is interrupted. Raises ConfigError, ConnectionFailed, UnknownChannel;
    DeadlineExceeded if no message came; NotSupported for what a side cannot do at all.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    old = broker_of(request.old, config, request.channel)
    new = broker_of(request.new, config, request.channel)
    columns = {"old": _column(old), "new": _column(new)}
    with tempfile.TemporaryDirectory(prefix="gearshift-rehearsal-") as name:
        run = _Run(request, old, Path(name), progress)
        performances = []
        for done, (variant, what) in enumerate(_STEPS):
            text = what.format(
                channel=request.channel, old=columns["old"].id, new=columns["new"].id
            )
            progress(text, done, len(_STEPS))
            performances.append(run.perform(variant, new if variant == "new" else old))
        progress("done", len(_STEPS), len(_STEPS))
    return Rehearsal(
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        duration_s=round(time.monotonic() - started, 1),
        channel=request.channel,
        handler=request.handler,
        workers=request.workers,
        repeated=run.watched.repeated,
        versions=versions(),
        machine=machine(),
        old=columns["old"],
        new=columns["new"],
        originals=run.originals,
        performances=tuple(performances),
    )


@dataclass
class _Run:
    """One rehearsal under way."""

    request: Request
    old: Broker
    folder: Path
    progress: Progress

    @cached_property
    def watched(self) -> Watched:
        """The live channel's messages; looked at once, when the handler is known to start."""
        request = self.request
        with self._live() as bus:
            found = apart(
                lambda: watch(
                    bus,
                    request.channel,
                    start=request.start,
                    messages=request.messages,
                    seconds=request.seconds,
                    progress=lambda seen: self.progress(
                        f"looking at {request.channel}: {seen} of {request.messages}",
                        0,
                        len(_STEPS),
                    ),
                )
            )
        places = {message.id: place for place, message in enumerate(found.messages)}
        self._copies.write_bytes(msgspec.json.encode(places))
        return found

    @cached_property
    def originals(self) -> tuple[Original, ...]:
        """What is kept of the live channel's messages."""
        return tuple(
            Original(
                id=message.id or "",
                key=None if message.key is None else digest(message.key),
                bytes=message.size,
                digests=digests(message),
            )
            for message in self.watched.messages
        )

    def _live(self) -> Bus:
        """The bus of the live channel, as it is configured or as the command line says."""
        bus, _ = self.old.open({})
        if bus.semantics(self.request.channel) is self.old.semantics:
            return bus
        bus.close()
        return self.old.open({self.request.channel: {"semantics": self.old.semantics.value}})[0]

    def perform(self, variant: Variant, broker: Broker) -> Performance:
        """Send the copies to ``broker`` and let the handler work on them."""
        error = None
        captured = self.folder / f"{variant}.captured"
        settings, partitions = self._settings(broker)
        with Stage.set_up(
            broker, self.folder, settings, keyed=True, partitions=partitions
        ) as stage:
            for number in range(self.request.workers):
                part = self._part(f"worker-{number + 1}", stage, captured)
                stage.spawn(part.name, "gearshift.compare.shadow.performer", part)
            stage.wait_ready(self.request.workers)
            copies = list(zip(self._keys(), self.watched.messages, strict=True))
            try:
                stage.send_copies(copies)
                stage.wait(_is_over, "every message handled or given up", self.request.seconds)
            except GearshiftError as failure:
                error = stage.bus.config.masked(str(failure))
        return Performance(
            variant=variant,
            trial=Trial(
                repetition=1,
                channel=stage.channel,
                variant=variant,
                settings={"messages": len(copies), "workers": self.request.workers},
                error=error,
                events=stage.events,
                samples=stage.samples,
            ),
            captured=read_captured(captured),
        )

    @property
    def _copies(self) -> Path:
        return self.folder / "copies.json"

    def _keys(self) -> list[str | None]:
        return [original.key for original in self.originals]

    def _part(self, name: str, stage: Stage, captured: Path) -> Part:
        return Part(
            name=name,
            channel=stage.channel,
            live=self.request.channel,
            handler=self.request.handler,
            copies=str(self._copies),
            captured=str(captured),
            site=stage.site(),
        )

    def _share(self) -> int:
        """So few in one worker's hand that all have work, as they would over a longer time."""
        return max(1, self.request.messages // (4 * self.request.workers))

    def _settings(self, broker: Broker) -> tuple[dict[str, Any], int | None]:
        """The live channel's settings for a copy of it, and its partitions.

        ``native`` is left out: it names what is there already, and the copy must not touch that.
        """
        live = configuration.load(broker.config, profile=broker.profile).channel(
            self.request.channel
        )
        settings: dict[str, Any] = {
            "groups": [DEFAULT_GROUP],
            "dead_letter": False,
            "max_attempts": live.max_attempts,
            "prefetch": min(live.prefetch, self._share()),
            "codec": live.codec,
            "requires": [str(requirement) for requirement in live.requires],
            "retry_delay_s": min(live.retry_delay_s, MAX_RETRY_DELAY_S),
            "retry_max_delay_s": min(live.retry_max_delay_s, MAX_RETRY_DELAY_S),
        }
        if live.max_processing_s is not None:
            settings["max_processing_s"] = live.max_processing_s
        return settings, live.partitions


def _column(broker: Broker) -> Column:
    """A side, described; refused where worker processes could not reach it."""
    column = described(broker)
    if column.capabilities["durability"] == Durability.NOTHING.value:
        raise NotSupported(
            f"profile {column.profile!r} lives in one process, and a rehearsal has several",
            hint="rehearse with sqlite, or with a server",
            backend=column.backend,
        )
    return column


def _is_over(events: list[Event]) -> bool:
    """Everything that was stored has been handled or given up."""
    stored = {event.seq for event in events if event.kind == "receipt"}
    ended = {
        event.seq
        for event in events
        if event.kind == "done" or (event.kind == "settle" and event.what == "reject")
    }
    return stored <= ended
