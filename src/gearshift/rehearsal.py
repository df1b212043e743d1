"""A rehearsal: what is sent is written down and goes nowhere, and nothing else is touched.

While ``GEARSHIFT_REHEARSAL`` names a file, every bus that is opened is ``Rehearsed``: producers
confirm each message once it stands in that file, as a ``Captured``; what would consume, purge or
delete is refused. Only Gearshift itself is held back: whatever else a program does, it does.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from gearshift import config as configuration
from gearshift.driver import (
    AdminDriver,
    Backend,
    ChannelSpec,
    ConsumerSpec,
    GroupStatus,
    OnOutcomes,
    Outcome,
    ProducerDriver,
    Stored,
)
from gearshift.driver.helpers import Wrapper
from gearshift.errors import NotSupported
from gearshift.message import Message

__all__ = [
    "Captured", "Rehearsed", "Untouched", "digest", "handling", "read_captured", "rehearsing",
]  # fmt: skip

#: The place of the message that this context handles.
_handled: ContextVar[int | None] = ContextVar("gearshift_handled", default=None)


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a handler sent in a rehearsal: no content, only what tells contents apart.

    ``seq`` is the message that was handled meanwhile; None if it was sent on a thread of the
    handler's own.
    """

    channel: str
    key: str | None
    contents: str
    seq: int | None = None


def rehearsing() -> bool:
    """True if this is a rehearsal: nothing that Gearshift is told to send leaves the process.

    A handler asks this before it does what Gearshift cannot hold back: a payment, a mail.
    """
    return configuration.rehearsal_file() is not None


def digest(*parts: object) -> str:
    """A short name for exactly these values, the same in every process."""
    name = hashlib.sha256()
    for part in parts:
        # A body is not written out: with a large one that holds the interpreter's lock for seconds.
        kind, contents = ("b", part) if isinstance(part, bytes) else ("r", repr(part).encode())
        name.update(f"{kind}{len(contents)} ".encode())
        name.update(contents)
    return name.hexdigest()[:16]


@contextmanager
def handling(seq: int) -> Iterator[None]:
    """Attribute all sends inside the block, on its thread or in its tasks, to message ``seq``."""
    token = _handled.set(seq)
    try:
        yield
    finally:
        _handled.reset(token)


def read_captured(file: Path) -> tuple[Captured, ...]:
    """All messages that were sent so far."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return tuple(msgspec.json.decode(line, type=Captured) for line in lines)


class Rehearsed(Wrapper):
    """A Backend that connects nowhere; the one below only checks settings."""

    def __init__(self, backend: Backend, file: Path) -> None:
        super().__init__(backend)
        self._file = file

    def admin(self) -> AdminDriver:
        return Untouched("rehearsal")

    def producer(self, channel: ChannelSpec) -> ProducerDriver:
        return _Capture(channel.name, self._file)

    def queue_consumer(self, spec: ConsumerSpec) -> NoReturn:
        _refuse("opens no consumer but the one that feeds the handler")

    def log_consumer(self, spec: ConsumerSpec, events: Any) -> NoReturn:
        _refuse("opens no consumer but the one that feeds the handler")


class _Capture(ProducerDriver):
    """A ProducerDriver that writes to a file, which several processes may share."""

    def __init__(self, channel: str, path: Path) -> None:
        self._channel = channel
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        """See ProducerDriver, as all below. Core calls this on the thread that sends."""
        lines = [msgspec.json.encode(self._captured(message)) + b"\n" for message in messages]
        os.write(self._file, b"".join(lines))  # at once, so that no two processes' lines mix
        on_outcomes([Outcome(number, Stored.YES) for number in range(len(messages))])

    def close(self, timeout_s: float) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def _captured(self, message: Message) -> Captured:
        return Captured(
            channel=self._channel,
            key=None if message.key is None else digest(message.key),
            contents=digest(message.body, sorted(message.headers.pairs, key=lambda pair: pair[0])),
            seq=_handled.get(),
        )


class Untouched(AdminDriver):
    """An AdminDriver for which everything is there already and nothing may go."""

    def __init__(self, server: str) -> None:
        self._server = server

    def server(self) -> str:
        return self._server

    def exists(self, channel: ChannelSpec) -> bool:
        return True

    def declare(self, channel: ChannelSpec) -> None:
        """Nothing is made."""

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        return ()

    def purge(self, channel: ChannelSpec, group: str) -> NoReturn:
        _refuse("purges nothing")

    def delete(self, channel: ChannelSpec) -> NoReturn:
        _refuse("deletes nothing")


def _refuse(what: str) -> NoReturn:
    raise NotSupported(f"a rehearsal {what}", hint="ask gearshift.rehearsing() first")
