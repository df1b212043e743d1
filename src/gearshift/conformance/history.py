"""The events of one test, which the checkers read afterwards.

Recording is thread-safe and keeps the order in which things were *known* to the recorder. A publish
ends as ``ok``, as ``fail`` only where nothing can have been stored, else as ``info``: it may have
been. A settlement is ``ok`` once the consumer that made it was flushed or closed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from gearshift.message import Key, Message, Position
from gearshift.rehearsal import digest

__all__ = ["Event", "History", "Kind", "Phase", "fingerprint", "key_text", "place"]


class Kind(StrEnum):
    """The kind of an event."""

    PUBLISH = "publish"
    OPEN = "open"  # a consumer came
    ASSIGN = "assign"  # a consumer of a stream was given partitions
    REVOKE = "revoke"  # it has let go of them
    DELIVER = "deliver"
    SETTLE = "settle"
    SEEK = "seek"
    CLOSE = "close"  # a consumer closed or died; what it held is back with its group
    FAULT = "fault"


class Phase(StrEnum):
    """The state of an action: begun, done, not done, or unknown."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. ``who`` is the producer or consumer, of ``partitions`` the driver's member;
    ``id`` is the message's, and ``key`` (see ``key_text``).

    ``action`` is "ack", "retry" or "reject". ``digest`` fingerprints body, key and headers.
    ``at_ns`` is of the monotonic clock, which all processes of a machine share.
    """

    kind: Kind
    phase: Phase = Phase.OK
    who: str = ""
    channel: str = ""
    group: str = ""
    id: str | None = None
    key: str | None = None
    sequence: int | None = None
    digest: str = ""
    attempt: int | None = None
    redelivered: bool | None = None
    position: tuple[int, int] | None = None
    partitions: tuple[int, ...] = ()
    action: str = ""
    prefetch: int | None = None
    note: str = ""
    at_ns: int = field(default_factory=time.monotonic_ns)

    def __str__(self) -> str:
        return f"message {self.sequence} of {self.who} ({self.id})"


def key_text(key: Key | None) -> str | None:
    """A key as events hold it: a binary one as Python writes it."""
    return repr(key) if isinstance(key, bytes) else key


class History:
    """Events in the order in which they were recorded. Any thread."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: list[Event] = list(events)
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """Record one more."""
        with self._lock:
            self._events.append(event)

    def extend(self, events: Iterable[Event]) -> None:
        """Merge what another process recorded, by time."""
        with self._lock:
            self._events.extend(events)
            self._events.sort(key=lambda event: event.at_ns)

    def events(self, *kinds: Kind) -> list[Event]:
        """Those of ``kinds``, or all."""
        with self._lock:
            return [event for event in self._events if not kinds or event.kind in kinds]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events())

    def __len__(self) -> int:
        return len(self._events)

    def published(self, channel: str, *phases: Phase) -> dict[str, Event]:
        """The last event of each publish to ``channel`` by id, if it is in one of ``phases``."""
        last = {
            event.id: event
            for event in self.events(Kind.PUBLISH)
            if event.channel == channel and event.id is not None
        }
        return {id: event for id, event in last.items() if not phases or event.phase in phases}

    def delivered(self, channel: str, group: str) -> list[Event]:
        """Deliveries of ``channel`` to ``group``."""
        return [
            event
            for event in self.events(Kind.DELIVER)
            if event.channel == channel and event.group == group
        ]

    def finished(self, channel: str, group: str) -> set[str]:
        """Ids that ``group`` has acked or rejected, as far as its consumers know."""
        found: set[tuple[str, str]] = set()
        for event in self.events(Kind.SETTLE):
            if (event.channel, event.group) != (channel, group) or event.id is None:
                continue
            if event.phase is Phase.FAIL or event.action == "retry":
                found.discard((event.who, event.id))
            else:
                found.add((event.who, event.id))
        return {id for _, id in found}


def fingerprint(message: Message) -> str:
    """A digest of everything that must arrive as it was sent: body, key, headers, properties.

    Values of one header keep their order; that of different headers is not promised.
    """
    return digest(
        message.body,
        message.key,
        sorted(message.headers.pairs, key=lambda pair: pair[0]),
        message.content_type,
        message.correlation_id,
        message.reply_to,
        message.type,
        message.content_encoding,
    )


def place(position: Position | None) -> tuple[int, int] | None:
    """``position`` as plain numbers."""
    return None if position is None else (position.partition, position.offset)
