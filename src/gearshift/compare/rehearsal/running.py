"""Runs a rehearsal: looks at the live channel, copies to both brokers, lets the handler work."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from gearshift import config as configuration
from gearshift.bus import Bus, open_bus
from gearshift.capabilities import Durability
from gearshift.compare import measures
from gearshift.compare.columns import Target, described, target_of
from gearshift.compare.comparison import Progress
from gearshift.compare.environment import machine, versions
from gearshift.compare.ledger import Column, Event
from gearshift.compare.notebook import apart
from gearshift.compare.rehearsal.document import Original, Rehearsal, Variant, VariantRun, digests
from gearshift.compare.rehearsal.originals import Watched, watch
from gearshift.compare.rehearsal.worker import MAX_RETRY_DELAY_S, Job
from gearshift.compare.trial import Trial
from gearshift.driver import Start
from gearshift.errors import NotSupported
from gearshift.message import DEFAULT_GROUP
from gearshift.rehearsal import digest, read_captured

__all__ = ["Request", "rehearse"]

_STEPS: Sequence[tuple[Variant, str]] = (
    ("old", "{channel} on {old}"),
    ("again", "{channel} on {old} again, to know what varies by itself"),
    ("new", "{channel} on {new}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A rehearsal to be made. ``old`` and ``new`` are profiles, or ``profile:semantics``.

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
    old = target_of(request.old, config, request.channel)
    new = target_of(request.new, config, request.channel)
    columns = {"old": _column(old), "new": _column(new)}
    with tempfile.TemporaryDirectory(prefix="gearshift-rehearsal-") as name:
        run = _Run(request, old, Path(name), progress)
        runs = []
        for done, (variant, what) in enumerate(_STEPS):
            text = what.format(
                channel=request.channel, old=columns["old"].id, new=columns["new"].id
            )
            progress(text, done, len(_STEPS))
            runs.append(run.variant(variant, new if variant == "new" else old))
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
        runs=tuple(runs),
    )


@dataclass
class _Run:
    """One rehearsal under way."""

    request: Request
    old: Target
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
        """The live channel's messages as the document keeps them."""
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
        config, profile, channel = self.old.config, self.old.profile, self.request.channel
        bus = open_bus(config, profile=profile)
        if bus.semantics(channel) is self.old.semantics:
            return bus
        bus.close()
        setting = f"GEARSHIFT_CHANNELS__{channel.upper()}__SEMANTICS"
        environ = os.environ | {setting: self.old.semantics.value}
        return open_bus(config=configuration.load(config, profile=profile, environ=environ))

    def variant(self, variant: Variant, target: Target) -> VariantRun:
        """Send the copies to ``target`` and let the handler work on them."""
        request = self.request
        captured = self.folder / f"{variant}.captured"
        settings, partitions = self._settings(target)
        with Trial.set_up(target, self.folder, settings, partitions=partitions) as trial:
            for number in range(request.workers):
                job = Job(
                    name=f"worker-{number + 1}",
                    channel=trial.channel,
                    live=request.channel,
                    handler=request.handler,
                    copies=str(self._copies),
                    captured=str(captured),
                    site=trial.site,
                )
                trial.workers.process(job.name, "gearshift.compare.rehearsal.worker", job)
            trial.wait_ready(request.workers)
            keys = [original.key for original in self.originals]
            copies = list(zip(keys, self.watched.messages, strict=True))
            with trial.attempt():
                trial.send_copies(copies)
                trial.wait(_is_over, "every message handled or given up", request.seconds)
        counts = {"messages": len(copies), "workers": request.workers}
        record = trial.record(1, variant, counts)
        return VariantRun(variant=variant, trial=record, captured=read_captured(captured))

    @property
    def _copies(self) -> Path:
        return self.folder / "copies.json"

    def _share(self) -> int:
        """A prefetch that leaves work for every worker, as there would be over a longer time."""
        return max(1, self.request.messages // (4 * self.request.workers))

    def _settings(self, target: Target) -> tuple[dict[str, Any], int | None]:
        """The live channel's settings for a copy of it, and its partitions.

        ``native`` is left out: it names what is there already, and the copy must not touch that.
        """
        live = configuration.load(target.config, profile=target.profile).channel(
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


def _column(target: Target) -> Column:
    """A side, described; refused where worker processes could not reach it."""
    column = described(target)
    if column.capabilities["durability"] == Durability.NOTHING.value:
        raise NotSupported(
            f"profile {column.profile!r} lives in one process, and a rehearsal has several",
            hint="rehearse with sqlite, or with a server",
            backend=column.backend,
        )
    return column


def _is_over(events: list[Event]) -> bool:
    """Everything that was stored has been handled or given up."""
    ended = measures.done(events).keys() | measures.settled(events, "reject")
    return measures.confirmed(events) <= ended
