"""Parts that drivers of several brokers need alike; a backend may use them or not."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Any

from msgspec.structs import force_setattr

from gearshift.driver.values import Received, SettleRequest, Unstored
from gearshift.errors import InvalidMessage
from gearshift.message import Message
from gearshift.validation import validate_header_name

__all__ = [
    "SLOWEST_BYTES_PER_S",
    "OpenCount",
    "UnreadMessage",
    "Wrapper",
    "attempt_after",
    "is_plain_name",
    "retried",
    "unstored",
]


#: The slowest link to a broker: what has not arrived at this speed is not on its way any more.
SLOWEST_BYTES_PER_S = 100_000


class Wrapper:
    """A stand-in for a driver, or another object, of which something is observed or changed.

    Passes everything on to ``inner``, but for what a subclass does itself.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def attempt_after(failed: int, lost: int) -> int:
    """The attempt that a delivery is, behind so many that failed and so many that were lost.

    One loss counts nothing yet: of several messages any may have caused it (see ``Received``).
    """
    return failed + 1 + (lost if lost > 1 else 0)


def retried(request: SettleRequest) -> tuple[Message, int]:
    """The message and the failed attempt of a RETRY, for storing it again."""
    assert request.message is not None, "a RETRY carries its message"
    assert request.attempt is not None, "and the attempt that failed"
    return request.message, request.attempt


def unstored(request: SettleRequest, error: Exception) -> Received:
    """The message that ``receive`` returns for a RETRY that the broker did not store."""
    message, failed = retried(request)
    refusal = Unstored(error, request.delay_s)
    return Received(message, request.token, None, failed + 1, True, unstored=refusal)


def is_plain_name(name: str) -> bool:
    """True if a sender may choose this header name."""
    try:
        validate_header_name(name)
    except InvalidMessage:
        return False
    return True


class OpenCount:
    """Counter of submitted messages without outcome. Any thread; one lock guards the number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._none_left = threading.Condition(self._lock)
        self._count = 0
        self._is_waited_for = False

    def __bool__(self) -> bool:
        return self._count > 0

    def __int__(self) -> int:
        return self._count

    def add(self, count: int) -> None:
        """So many were submitted."""
        with self._lock:
            self._count += count

    def remove(self, count: int) -> None:
        """So many have their outcomes."""
        with self._lock:
            self._count -= count
            if self._is_waited_for and not self._count:
                self._none_left.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every message has its outcome; False if time ran out."""
        with self._lock:
            self._is_waited_for = True
            return self._none_left.wait_for(lambda: not self._count, timeout_s)


class UnreadMessage(Message, frozen=True, gc=False):
    """A received message of which only the body was read: the rest is when it is asked for.

    Most handlers never look at all headers, and reading them costs more than all else. ``source``
    is what the client gave. Any thread may read; two at once read the same.
    """

    source: Any = None
    _whole: Message | None = None

    @abstractmethod
    def read(self) -> Message:
        """The message in ``source``. Raises nothing."""

    def _read_field(self, name: str) -> Any:
        whole = self._whole
        if whole is None:
            whole = self.read()
            force_setattr(self, "_whole", whole)
        return getattr(whole, name)

    def __reduce__(self) -> Any:
        return self.replace().__reduce__()


def _read_later(name: str) -> property:
    return property(lambda message: message._read_field(name))


for _name in Message.__struct_fields__[1:-1]:  # all but the body and what is known of the size
    setattr(UnreadMessage, _name, _read_later(_name))
