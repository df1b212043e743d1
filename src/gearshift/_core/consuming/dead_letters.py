"""Dead letters: rejected messages, stored in another channel before the original is settled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.errors import GearshiftError
from gearshift.message import Headers, HeaderValue, Message, message_id

__all__ = ["REDRIVE_GROUP", "DeadLetters", "Death", "redriven_to", "revived"]

#: Headers that tell a dead letter's story. They replace those of an earlier death.
REASON, CHANNEL, GROUP, ATTEMPTS, TIME = (
    "dead-letter-reason",
    "dead-letter-channel",
    "dead-letter-group",
    "dead-letter-attempts",
    "dead-letter-time-ms",
)
#: Header of a redriven message: the one group that it is for. Others settle it unseen, because
#: neither a log nor Kafka's share groups can store a message for one group.
REDRIVE_GROUP = "redrive-group"
_OURS = frozenset((REASON, CHANNEL, GROUP, ATTEMPTS, TIME, REDRIVE_GROUP))

MAX_REASON = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A dead letter's headers; None where it has no such header, or a foreign one."""

    reason: str | None
    channel: str | None
    group: str | None
    attempts: int | None
    time_ms: int | None

    @staticmethod
    def of(message: Message) -> Death:
        """Read ``message``'s headers."""
        headers = message.headers
        return Death(
            reason=_text(headers.get(REASON)),
            channel=_text(headers.get(CHANNEL)),
            group=_text(headers.get(GROUP)),
            attempts=_number(headers.get(ATTEMPTS)),
            time_ms=_number(headers.get(TIME)),
        )


def revived(message: Message, group: str | None = None) -> Message:
    """``message`` as it was before it died: the same id, body, key and all other headers.

    With ``group`` it is marked as being for that group alone (see ``redriven_to``).
    """
    kept = [pair for pair in message.headers.pairs if pair[0] not in _OURS]
    if group is not None:
        kept.append((REDRIVE_GROUP, group))
    return message.replace(headers=Headers(tuple(kept)))


def redriven_to(message: Message) -> str | None:
    """The one group that ``message`` was redriven to; None if it is for every group."""
    return _text(message.headers.get(REDRIVE_GROUP))


class DeadLetters:
    """Sends to one dead-letter channel, opened when the first message dies. Any thread.

    ``_lock`` guards ``_buffer``.
    """

    def __init__(
        self,
        open_buffer: Callable[[], PublishBuffer],
        *,
        channel: str,
        group: str,
        timeout_s: float = 30.0,
    ) -> None:
        self._open_buffer = open_buffer
        self._channel = channel
        self._group = group
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._buffer: PublishBuffer | None = None

    def send(
        self,
        message: Message,
        *,
        reason: str,
        attempts: int,
        on_done: Callable[[GearshiftError | None], None],
        brief: bool = False,
    ) -> None:
        """Store a copy under the same id; ``on_done`` gets None once confirmed, else the error.

        ``brief``: of the headers that tell its story only those that redrive needs, for a message
        that is about as large as the broker takes.

        Blocks for room at most ``timeout_s``, the first time also for the connection. Raises
        nothing: what goes wrong goes to ``on_done``.
        """
        native = message.native
        copy = message.replace(
            # What came without an id must be able to go back without one.
            id=message.id if native else message.id or message_id(),
            headers=self._headers(revived(message).headers, None if brief else reason, attempts),
            native=native and replace(native, resting=True),
        )

        def finished(batch: Batch) -> None:
            result = batch.results[0]
            on_done(result if isinstance(result, GearshiftError) else None)

        try:
            self._opened().put(Batch([copy], time.monotonic() + self._timeout_s, finished))
        except GearshiftError as error:
            on_done(error)

    def flush(self, timeout_s: float) -> bool:
        """Wait until each letter is stored or known not to be; False if time ran out."""
        with self._lock:
            buffer = self._buffer
        return buffer is None or buffer.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Wait for what is on its way, up to ``timeout_s``, and close. Idempotent."""
        with self._lock:
            if self._buffer is not None:
                self._buffer.close(timeout_s)

    def _opened(self) -> PublishBuffer:
        with self._lock:
            if self._buffer is None:
                self._buffer = self._open_buffer()
            return self._buffer

    def _headers(self, headers: Headers, reason: str | None, attempts: int) -> Headers:
        if reason is None:
            return Headers([*headers.pairs, (CHANNEL, self._channel), (GROUP, self._group)])
        return Headers(
            [
                *headers.pairs,
                (REASON, reason[:MAX_REASON].encode("utf-8", "replace").decode()),
                (CHANNEL, self._channel),
                (GROUP, self._group),
                (ATTEMPTS, attempts),
                (TIME, time.time_ns() // 1_000_000),
            ]
        )


def _text(value: HeaderValue | None) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def _number(value: HeaderValue | None) -> int | None:
    """Also of digits: Kafka's headers are bytes, whatever was put in."""
    try:
        return None if value is None else int(value)
    except ValueError:
        return None
